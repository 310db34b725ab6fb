//! How fast the positions of answers settle.
//!
//! With a window that slides, the convergence of a block is not a thing the decoder sees. It
//! is counted after the fact: the tokens that decode forwards settled are cut into blocks,
//! and the iterations of a block are the forwards from the one that settled its first token
//! to the one that settled its last, both counted. A block that is not full is left out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Named;
use crate::commands::eval::settling;
use crate::contest::repetition_rate;
use crate::figures::Figures;
use crate::trace::read::Traced;

/// Positions of an answer that share a mean.
const BIN: usize = 32;

/// How one model settles.
#[derive(Debug, Serialize)]
pub(crate) struct Model {
    pub(crate) name: String,
    /// As the traces name it.
    model: String,
    decoder: String,
    pub(crate) answers: usize,
    pub(crate) figures: Figures,
    pub(crate) mean_acceptance_length_ended: Option<f64>,
    pub(crate) fast_forwarded_tokens: usize,
    pub(crate) stationary_tokens: usize,
    pub(crate) eos_share: f64,
    pub(crate) repetition_rate: Option<f64>,
    /// Forwards by how many tokens they settled.
    pub(crate) acceptance: Vec<Settled>,
    /// By position in the window, from 1.
    pub(crate) acceptance_by_rank: Vec<Rank>,
    /// By position in the answer, in bins.
    pub(crate) acceptance_by_position: Vec<Bin>,
    /// Tokens by the forwards that had them in the window, the one that settled them included.
    iterations_to_settle: Vec<Iterations>,
    pub(crate) blocks: Blocks,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Settled {
    pub(crate) settled: usize,
    pub(crate) forwards: usize,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Rank {
    rank: usize,
    /// Forwards whose window was that long.
    forwards: usize,
    /// Those that settled so many tokens.
    settled: usize,
    share: f64,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Bin {
    pub(crate) from: usize,
    to: usize,
    tokens: usize,
    forwards: usize,
    pub(crate) mean_acceptance_length: f64,
    /// Rows of those forwards: what `auto` chose.
    pub(crate) mean_rows: f64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Iterations {
    iterations: usize,
    tokens: usize,
}

/// Convergence block by block.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Blocks {
    /// Tokens of a block.
    pub(crate) length: usize,
    count: usize,
    pub(crate) mean_iterations: Option<f64>,
    histogram: Vec<BlockIterations>,
}

#[derive(Debug, PartialEq, Serialize)]
struct BlockIterations {
    iterations: usize,
    blocks: usize,
}

impl Model {
    /// Counts; `block` is the length of blocks.
    pub(super) fn of(named: &Named, block: usize) -> Self {
        let answers = &named.answers;
        let ended = answers.iter().filter(|answer| answer.ended());
        let ended_figures = Figures::pool(ended.clone().map(|answer| &answer.figures));
        let (mut fast, mut stationary) = (0, 0);
        for answer in answers {
            let forwards: Vec<_> = answer.forwards.iter().map(|f| f.recorded()).collect();
            let counts = settling::count(forwards.iter(), &answer.tokens);
            fast += counts.0;
            stationary += counts.1;
        }
        let mut acceptance = BTreeMap::new();
        for forward in answers.iter().flat_map(Traced::decode) {
            *acceptance.entry(forward.settled).or_insert(0) += 1;
        }
        let of = |pick: fn(&Traced) -> &str| {
            let mut names: Vec<_> = answers.iter().map(pick).collect();
            names.sort_unstable();
            names.dedup();
            names.join(", ")
        };
        Self {
            name: named.name.clone(),
            model: of(|answer| &answer.model),
            decoder: of(|answer| &answer.decoder),
            answers: answers.len(),
            figures: Figures::pool(answers.iter().map(|answer| &answer.figures)),
            mean_acceptance_length_ended: ended_figures.mean_acceptance_length,
            fast_forwarded_tokens: fast,
            stationary_tokens: stationary,
            eos_share: ended.count() as f64 / answers.len().max(1) as f64,
            repetition_rate: repetition_rate(answers.iter().map(|a| a.tokens.as_slice())),
            acceptance: acceptance
                .into_iter()
                .map(|(settled, forwards)| Settled { settled, forwards })
                .collect(),
            acceptance_by_rank: by_rank(answers),
            acceptance_by_position: by_position(answers),
            iterations_to_settle: to_settle(answers),
            blocks: blocks(answers, block),
        }
    }
}

fn by_rank(answers: &[Traced]) -> Vec<Rank> {
    let mut ranks: Vec<(usize, usize)> = Vec::new();
    for forward in answers.iter().flat_map(Traced::decode) {
        ranks.resize(ranks.len().max(forward.output.len()), (0, 0));
        ranks[..forward.output.len()].iter_mut().for_each(|rank| rank.0 += 1);
        ranks[..forward.settled].iter_mut().for_each(|rank| rank.1 += 1);
    }
    let rank = |(i, (forwards, settled)): (usize, (usize, usize))| {
        let share = settled as f64 / forwards as f64;
        Rank { rank: i + 1, forwards, settled, share }
    };
    ranks.into_iter().enumerate().map(rank).collect()
}

fn by_position(answers: &[Traced]) -> Vec<Bin> {
    let mut bins: BTreeMap<usize, [usize; 3]> = BTreeMap::new();
    for forward in answers.iter().flat_map(Traced::decode) {
        let bin = bins.entry(forward.start / BIN).or_default();
        let one = [forward.settled, forward.rows, 1];
        bin.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
    }
    let bin = |(i, [tokens, rows, forwards]): (usize, [usize; 3])| Bin {
        from: i * BIN,
        to: (i + 1) * BIN,
        tokens,
        forwards,
        mean_acceptance_length: tokens as f64 / forwards as f64,
        mean_rows: rows as f64 / forwards as f64,
    };
    bins.into_iter().map(bin).collect()
}

fn to_settle(answers: &[Traced]) -> Vec<Iterations> {
    let mut tokens = BTreeMap::new();
    for answer in answers {
        let mut seen = vec![0; answer.tokens.len()];
        for forward in answer.decode() {
            let window =
                forward.start..answer.tokens.len().min(forward.start + forward.output.len());
            seen[window].iter_mut().for_each(|count| *count += 1);
        }
        // What prefill gave was in no window.
        for count in seen.into_iter().filter(|count| *count > 0) {
            *tokens.entry(count).or_insert(0) += 1;
        }
    }
    tokens.into_iter().map(|(iterations, tokens)| Iterations { iterations, tokens }).collect()
}

/// For every token that a decode forward settled, the index of that forward; the index in the
/// answer of the first of them comes first.
pub(super) fn settled_by(answer: &Traced) -> (usize, Vec<usize>) {
    let first = answer.decode().next().map_or(answer.tokens.len(), |forward| forward.start);
    let counts = answer.decode().map(|forward| forward.settled).enumerate();
    (first, counts.flat_map(|(i, settled)| std::iter::repeat_n(i, settled)).collect())
}

fn blocks(answers: &[Traced], length: usize) -> Blocks {
    let mut histogram = BTreeMap::new();
    for answer in answers {
        for block in settled_by(answer).1.chunks_exact(length) {
            *histogram.entry(block[length - 1] - block[0] + 1).or_insert(0usize) += 1;
        }
    }
    let count: usize = histogram.values().sum();
    let iterations: usize = histogram.iter().map(|(iterations, blocks)| iterations * blocks).sum();
    Blocks {
        length,
        count,
        mean_iterations: (count > 0).then(|| iterations as f64 / count as f64),
        histogram: histogram
            .into_iter()
            .map(|(iterations, blocks)| BlockIterations { iterations, blocks })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::read::tests::traced;

    #[test]
    fn an_answer_is_counted() {
        // 11 settles with 13 right behind a wrong 9: stationary. Then 12 and 13, then 2.
        let answer = traced(10, &[(&[11, 9, 13], 1), (&[12, 13, 7], 2), (&[2], 1)]);
        let model = Model::of(&Named { name: "m".into(), answers: vec![answer] }, 2);
        assert_eq!(model.figures.tokens, 4);
        assert_eq!((model.fast_forwarded_tokens, model.stationary_tokens), (1, 1));
        let settled = |settled, forwards| Settled { settled, forwards };
        assert_eq!(model.acceptance, [settled(1, 2), settled(2, 1)]);
        let rank = |rank, forwards, settled| Rank {
            rank,
            forwards,
            settled,
            share: settled as f64 / forwards as f64,
        };
        assert_eq!(model.acceptance_by_rank, [rank(1, 3, 3), rank(2, 2, 1), rank(3, 2, 0)]);
        let iterations = |iterations, tokens| Iterations { iterations, tokens };
        // 11 once; 12, 13 and 2 twice.
        assert_eq!(model.iterations_to_settle, [iterations(1, 1), iterations(2, 3)]);
        // 11 12 took two forwards, 13 2 as well.
        assert_eq!(model.blocks.histogram, [BlockIterations { iterations: 2, blocks: 2 }]);
        assert_eq!(model.blocks.mean_iterations, Some(2.0));
        let [bin] = &model.acceptance_by_position[..] else { panic!("one bin") };
        assert_eq!((bin.tokens, bin.forwards, bin.mean_rows), (4, 3, 7.0 / 3.0));
        assert_eq!(model.eos_share, 1.0);
    }
}
