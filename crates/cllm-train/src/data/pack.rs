//! The rows of an example, and what each is scored against.
//!
//! ```text
//! prompt | clean answer, but its last token | noisy block, ... | data's own answer
//! ```
//!
//! The row of a text's token t predicts token t + 1. So the row that predicts token i of
//! a block is that of token i - 1 of the state shown, and with f the first wrong token
//! of the state, exactly the tokens i > f are predicted from something wrong: those are
//! scored (Kou et al. 2024). Their teacher is the clean row that predicts the same token,
//! or, for local consistency, the row of the next state.
//!
//! What costs rows and changes nothing is left out. Rows of a state before f have the
//! tokens, positions and context of clean rows, so with clean history the noisy segment
//! starts at f and sees the clean answer up to there; and a row that nothing is predicted
//! from, the last of a text or of a block, is not there.

use std::ops::Range;

use cllm_decode::Token;

use super::bundle::Bundle;
use super::example::{Block, Example};
use super::noise::{Drawn, NoiseSchedule, Place};
use crate::packed::{Packed, RowTarget, TokenTarget};

/// Which earlier blocks a noisy block sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The clean answer (Kou et al. 2024).
    Clean,
    /// The noisy blocks before it (Jacobi Forcing).
    Noisy,
}

/// Whose distribution a noisy row should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// That of the fixed point.
    Global,
    /// That of the next state; needs clean history.
    Local,
}

/// Which answer the AR loss is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArAnswers {
    /// The teacher's, which the trajectories lead to.
    Teacher,
    /// The data's own, where an example has one.
    Data,
    /// The data's own, and of the teacher's what follows its first token that differs: an answer
    /// that has gone astray is text too, and not a state on its way to a better one.
    Both,
}

impl ArAnswers {
    fn of_data(self) -> bool {
        matches!(self, Self::Data | Self::Both)
    }
}

/// How examples become rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Packing {
    /// Of everything drawn.
    pub seed: u64,
    /// Noisy copies of an answer; 0 leaves the consistency loss out.
    pub noisy_copies: usize,
    /// Which states they show.
    pub noise: NoiseSchedule,
    /// Share of blocks that show an augmented state, where there is one.
    pub augmented_share: f64,
    /// What noisy blocks see.
    pub history: History,
    /// What noisy rows are scored against.
    pub consistency: Consistency,
    /// What the AR loss is on; `None` leaves it out.
    pub ar: Option<ArAnswers>,
}

impl Packing {
    /// Cross-entropy on the answers and nothing else.
    #[must_use]
    pub fn sft() -> Self {
        Self {
            seed: 0,
            noisy_copies: 0,
            noise: NoiseSchedule::Uniform,
            augmented_share: 0.0,
            history: History::Clean,
            consistency: Consistency::Global,
            ar: Some(ArAnswers::Teacher),
        }
    }

    /// Adds the rows of a bundle to `out`, every weight 1.
    pub fn pack(&self, examples: &[Example], bundle: &Bundle, epoch: u64, out: &mut Packed) {
        let Some(&first) = bundle.members.first() else { return };
        let shared = push(out, &examples[first].prompt[..bundle.shared], 0, &[]);
        for &index in &bundle.members {
            let example = &examples[index];
            let rest = &example.prompt[bundle.shared..];
            let rest = push(out, rest, bundle.shared, std::slice::from_ref(&shared));
            let mut text = Text { out, example, prompt: join(&[shared.clone(), rest]) };
            let clean = text.answer(self.ar);
            for copy in 0..self.noisy_copies {
                let drawn = |(b, block): (usize, &Block)| {
                    let place = Place { epoch, example: index, copy, block: b };
                    self.noise.draw(self.seed, self.augmented_share, place, block)
                };
                let drawn: Vec<Drawn> = example.blocks.iter().enumerate().map(drawn).collect();
                match self.history {
                    History::Clean => text.noisy_after_clean(&clean, &drawn, self.consistency),
                    History::Noisy => text.noisy_after_noisy(&clean, &drawn),
                }
            }
        }
    }
}

/// An example on its way into a forward.
struct Text<'a> {
    out: &'a mut Packed,
    example: &'a Example,
    /// Rows of its prompt.
    prompt: Vec<Range<usize>>,
}

impl Text<'_> {
    /// The clean answer, and the data's own if that is scored. Returns the clean rows: of
    /// all tokens but the last.
    fn answer(&mut self, ar: Option<ArAnswers>) -> Range<usize> {
        let Example { prompt, answer, reference, .. } = self.example;
        let own = reference.as_ref().filter(|_| ar.is_some_and(ArAnswers::of_data));
        let clean = push(self.out, &answer[..answer.len() - 1], prompt.len(), &self.prompt);
        match own {
            Some(own) => {
                let rows = push(self.out, &own[..own.len() - 1], prompt.len(), &self.prompt);
                self.score_tokens(&rows, own, 0);
                if ar == Some(ArAnswers::Both) {
                    let equal = own.iter().zip(answer).take_while(|(a, b)| a == b).count();
                    self.score_tokens(&clean, answer, equal + 1);
                }
            }
            None if ar.is_some() => self.score_tokens(&clean, answer, 0),
            None => {}
        }
        clean
    }

    /// Scores the tokens from `from` on of an answer whose rows are `rows`; the prompt's last
    /// row predicts the first.
    fn score_tokens(&mut self, rows: &Range<usize>, answer: &[Token], from: usize) {
        let last = self.prompt.last().map_or(0, |range| range.end - 1);
        let predicting = std::iter::once(last).chain(rows.clone());
        let targets =
            predicting.zip(answer).map(|(row, &token)| TokenTarget { row, token, weight: 1.0 });
        self.out.tokens_scored.extend(targets.skip(from));
    }

    fn noisy_after_clean(
        &mut self,
        clean: &Range<usize>,
        drawn: &[Drawn],
        consistency: Consistency,
    ) {
        let example = self.example;
        for (block, drawn) in example.blocks.iter().zip(drawn) {
            let students = self.tail(clean, block, *drawn);
            let next = Drawn { state: drawn.state + 1, augmented: false };
            let next_from = block.first_wrong(next.state);
            let teachers = match consistency {
                // The next state may be wrong only where nothing is scored.
                Consistency::Local if !students.is_empty() => self.tail(clean, block, next),
                _ => 0..0,
            };
            let from = block.first_wrong(drawn.state);
            for (i, student) in (from..).zip(students) {
                let teacher = if teachers.is_empty() || i < next_from {
                    clean.start + block.start() + i
                } else {
                    teachers.start + i - next_from
                };
                self.out.rows_scored.push(RowTarget { student, teacher, weight: 1.0 });
            }
        }
    }

    /// The rows of a state from its first wrong token to its last but one.
    fn tail(&mut self, clean: &Range<usize>, block: &Block, drawn: Drawn) -> Range<usize> {
        let (from, n) = (block.first_wrong(drawn.state), block.len());
        if from + 1 >= n {
            return 0..0;
        }
        let tokens = &block.state(drawn.state, drawn.augmented)[from..n - 1];
        let at = block.start() + from;
        let mut sees = self.prompt.clone();
        sees.push(clean.start..clean.start + at);
        push(self.out, tokens, self.example.prompt.len() + at, &join(&sees))
    }

    fn noisy_after_noisy(&mut self, clean: &Range<usize>, drawn: &[Drawn]) {
        let example = self.example;
        let prompt = example.prompt.len();
        let mut sees = self.prompt.clone();
        for (b, (block, drawn)) in example.blocks.iter().zip(drawn).enumerate() {
            let (start, n) = (block.start(), block.len());
            let state = if drawn.state < block.unfinished() {
                block.state(drawn.state, drawn.augmented)
            } else {
                &example.answer[start..start + n]
            };
            // The block after this one sees all of it.
            let rows = if b + 1 < example.blocks.len() { n } else { n - 1 };
            let rows = push(self.out, &state[..rows], prompt + start, &sees);
            for i in block.first_wrong(drawn.state)..n.saturating_sub(1) {
                let teacher = clean.start + start + i;
                let target = RowTarget { student: rows.start + i, teacher, weight: 1.0 };
                self.out.rows_scored.push(target);
            }
            sees.push(rows);
            sees = join(&sees);
        }
    }
}

/// As [`Packed::push`], without a segment where there are no tokens.
fn push(out: &mut Packed, tokens: &[Token], at: usize, sees: &[Range<usize>]) -> Range<usize> {
    if tokens.is_empty() { out.len()..out.len() } else { out.push(tokens, at, sees) }
}

/// Ranges without empty ones, adjacent ones as one.
fn join(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range.clone()),
        }
    }
    joined
}
