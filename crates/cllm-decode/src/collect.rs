//! Collecting trajectories, wide: all blocks of all prompts at once.
//!
//! Under greedy decoding the fixed point of a block is the answer that one token a forward
//! gives (see [`trajectory`](crate::trajectory)). So the serial work, a block waiting for
//! the one before it, can be had for the price of an answer:
//!
//! 1. The greedy answer, one token a forward, many prompts in each forward. Its keys
//!    and values stay in the cache.
//! 2. Every block of the answer then iterates on its own. Its rows see the prompt, the
//!    *settled* tokens before the block, which is what the block-by-block way shows them,
//!    and the block's own rows before them; never a row of another block.
//!
//! A block needs few rows: the tokens before its first wrong one are in the cache, the
//! first wrong one is known to become right, the last has nothing in the block to say. A
//! block whose first wrong position is w so costs `n - 1 - w` rows, and none to learn that
//! it is done. Prompts at any stage share each forward and leave as they are done.
//!
//! A row's result does not depend on the other rows, so trajectories are the same for any
//! width and any company. [`naive`](crate::naive) is the definition that tests compare with.
//!
//! The answer may also be given (a data set's own). The teacher is then the model that says it
//! and, elsewhere, its own argmax: the same iteration with another fixed point.

use crate::batch::{Batch, Want};
use crate::counter;
use crate::decoder::{Decoder, Verdict};
use crate::draft::Draft;
use crate::jacobi::Jacobi;
use crate::lm::{CausalLm, KvCache, LmError, Output, Token};
use crate::request::{Finish, Growing, Request};
use crate::trajectory::{Measures, Trajectory};
use crate::window::Windows;

/// Which states are collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum States {
    /// Those of the answer's blocks, each from its first guess to its fixed point.
    #[default]
    Blocks,
    /// Those of the window of n rows that slides along the answer as [`Jacobi`] decodes it:
    /// see [`window`](crate::window). A given answer is not decoded: it has blocks.
    Window,
}

/// How trajectories are collected. Only `block`, `states`, `draft` and `seed` change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// n, the length of a block, of which the last one of an answer may be shorter; or the
    /// rows of the window.
    pub block: usize,
    /// Which states.
    pub states: States,
    /// Where the first guesses come from.
    pub draft: Draft,
    /// Seed of the first guesses.
    pub seed: u64,
    /// The most rows a forward has (0 counts as 1).
    pub rows: usize,
    /// The most prompts under way, each with a KV cache (0 counts as 1).
    pub prompts: usize,
}

/// A prompt to collect for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Names it to the [`Sink`], and varies the first guesses from prompt to prompt.
    pub id: u64,
    /// The prompt, the limit of the answer and its stop tokens.
    pub request: Request,
    /// The answer, if it is not the teacher's greedy one.
    pub given: Option<Vec<Token>>,
}

/// An answer with the trajectories of its blocks or windows, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The [`Job::id`].
    pub id: u64,
    /// The prompt.
    pub prompt: Vec<Token>,
    /// The answer; joined, the fixed points of its blocks.
    pub answer: Vec<Token>,
    /// One trajectory a block; or one, of one state, for each window with a wrong guess.
    pub trajectories: Vec<Trajectory>,
    /// What they say about decoding.
    pub measures: Measures,
}

/// Where results go.
pub trait Sink {
    /// The answer to prompt `id` is known: is it worth collecting for? If not, the prompt
    /// is over. `finish` is `None` for a given answer.
    fn answered(&mut self, id: u64, answer: &[Token], finish: Option<Finish>) -> bool {
        let _ = (id, answer, finish);
        true
    }

    /// A prompt is done. They come in no particular order.
    fn collected(&mut self, collected: Collected);
}

/// What collection has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Forwards.
    pub forwards: usize,
    /// Rows that read prompts and given answers.
    pub prompt_rows: usize,
    /// Rows that extended answers.
    pub answer_rows: usize,
    /// Rows of blocks.
    pub block_rows: usize,
}

/// The seed of a prompt's first guesses.
pub(crate) fn job_seed(settings: &Settings, id: u64) -> u64 {
    counter::hash(settings.seed, id)
}

/// The trajectories of an answer's blocks with their measures.
pub(crate) fn of_blocks(blocks: impl Iterator<Item = Trajectory>) -> (Vec<Trajectory>, Measures) {
    let trajectories: Vec<_> = blocks.collect();
    let mut measures = Measures::default();
    trajectories.iter().for_each(|trajectory| measures.add(&trajectory.measures()));
    (trajectories, measures)
}

/// The first state of the `len` unknowns after `text`.
pub(crate) fn first_guess(draft: Draft, seed: u64, text: &[Token], len: usize) -> Vec<Token> {
    let mut guesses = Vec::with_capacity(len);
    while guesses.len() < len {
        guesses.push(draft.guess(seed, text, &guesses));
    }
    guesses
}

/// A block on its way to the fixed point.
#[derive(Debug)]
struct Block {
    trajectory: Trajectory,
    /// The current state.
    state: Vec<Token>,
    /// Its first wrong position; `None` at the fixed point.
    wrong: Option<usize>,
}

impl Block {
    fn new(start: usize, fixed: &[Token], guess: Vec<Token>) -> Self {
        let trajectory = Trajectory::new(start, fixed.to_vec());
        let mut block = Self { trajectory, state: guess, wrong: None };
        block.arrive();
        block
    }

    /// Takes note of the current state. Where only the last token is wrong the next state
    /// is known without a forward.
    fn arrive(&mut self) {
        self.wrong = self.trajectory.push(&self.state);
        if self.wrong.is_some() && self.wrong == self.state.len().checked_sub(1) {
            self.wrong = None;
        }
    }

    /// The tokens whose rows the next iteration needs.
    fn rows(&self) -> &[Token] {
        self.wrong.map_or(&[], |wrong| &self.state[wrong..self.state.len() - 1])
    }

    /// The next state: the first wrong position becomes right, and position i + 1 what row
    /// i, of which `output(0)` is the first, says.
    fn update(&mut self, output: impl Fn(usize) -> Token) {
        if let Some(wrong) = self.wrong {
            self.state[wrong] = self.trajectory.fixed_point()[wrong];
            let rest = &mut self.state[wrong + 1..];
            rest.iter_mut().enumerate().for_each(|(row, token)| *token = output(row));
            self.arrive();
        }
    }
}

/// A prompt under way.
#[derive(Debug)]
struct Active<C> {
    id: u64,
    seed: u64,
    cache: C,
    /// The prompt and the answer so far.
    text: Vec<Token>,
    prompt_len: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The answer grows.
    Answering { answer: Growing, stop_tokens: Vec<Token>, windows: Option<Windows> },
    /// A given answer is read into the cache.
    Reading,
    /// Its blocks iterate.
    Iterating(Vec<Block>),
    /// Its windows are known.
    Done(Vec<Trajectory>, Measures),
    /// Turned down by the sink.
    Dropped,
}

impl<C: KvCache> Active<C> {
    /// Rows it needs to know more of its answer.
    fn unread(&self) -> usize {
        match self.stage {
            Stage::Answering { .. } => self.text.len() - self.cache.len(),
            // What the last token leads to is not part of the answer.
            Stage::Reading => self.text.len().saturating_sub(self.cache.len() + 1),
            Stage::Iterating(_) | Stage::Done(..) | Stage::Dropped => 0,
        }
    }

    fn is_done(&self) -> bool {
        match &self.stage {
            Stage::Answering { .. } | Stage::Reading => false,
            Stage::Iterating(blocks) => blocks.iter().all(|block| block.rows().is_empty()),
            Stage::Done(..) | Stage::Dropped => true,
        }
    }

    /// From the answer to its blocks.
    fn cut(&mut self, settings: &Settings, finish: Option<Finish>, sink: &mut impl Sink) {
        let (_, answer) = self.text.split_at(self.prompt_len);
        if !sink.answered(self.id, answer, finish) {
            self.stage = Stage::Dropped;
            return;
        }
        if let Stage::Answering { windows: Some(windows), .. } = &self.stage {
            let (trajectories, measures) = windows.trajectories(answer);
            self.stage = Stage::Done(trajectories, measures);
            return;
        }
        let blocks = answer.chunks(settings.block).enumerate().map(|(b, fixed)| {
            let start = b * settings.block;
            let before = &self.text[..self.prompt_len + start];
            Block::new(start, fixed, first_guess(settings.draft, self.seed, before, fixed.len()))
        });
        self.stage = Stage::Iterating(blocks.collect());
    }
}

/// What rows of a forward are for.
#[derive(Debug)]
enum Use {
    /// `rows` tokens of its unread text.
    Read { active: usize, rows: usize },
    /// A window after its text.
    Extend { active: usize, rows: usize },
    /// An iteration of a block.
    Iterate { active: usize, block: usize },
}

/// Collects: give it jobs while it [has room](Self::has_room), and [step](Self::step)
/// until it [is idle](Self::is_idle).
#[derive(Debug)]
pub struct Collector<C> {
    settings: Settings,
    active: Vec<Active<C>>,
    /// Caches of prompts that are done, to be used again.
    spare: Vec<C>,
    batch: Batch,
    output: Output,
    cost: Cost,
}

impl<C: KvCache> Collector<C> {
    /// A collector without a job.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for blocks of no token.
    pub fn new(settings: Settings) -> Result<Self, LmError> {
        if settings.block == 0 {
            return Err(LmError::EmptyBlock);
        }
        let (active, spare) = (Vec::new(), Vec::new());
        let (batch, output, cost) = (Batch::new(), Output::new(), Cost::default());
        Ok(Self { settings, active, spare, batch, output, cost })
    }

    /// Whether another job may be pushed.
    pub fn has_room(&self) -> bool {
        self.active.len() < self.settings.prompts.max(1)
    }

    /// Whether every job is done.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    /// What it has cost so far.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Takes a job.
    ///
    /// # Errors
    /// [`LmError::EmptyPrompt`], [`LmError::PromptTooLong`], [`LmError::ContextFull`] for a
    /// given answer that the context has no room for, [`LmError::UnknownToken`].
    pub fn push<L: CausalLm<Cache = C>>(&mut self, lm: &L, job: Job) -> Result<(), LmError> {
        let Job { id, request, given } = job;
        let answer = Growing::new(&request, lm)?;
        request.sampling.require_greedy()?;
        let Request { prompt: mut text, stop_tokens, .. } = request;
        let prompt_len = text.len();
        let stage = match given {
            None => Stage::Answering { answer, stop_tokens, windows: self.windows(id)? },
            Some(given) => {
                let (context, vocab) = (lm.context_length(), lm.vocab_size());
                if let Some(&token) = given.iter().find(|&&token| token as usize >= vocab) {
                    return Err(LmError::UnknownToken { token, vocab });
                }
                text.extend(given);
                if text.len() > context {
                    return Err(LmError::ContextFull { position: text.len() - 1, context });
                }
                Stage::Reading
            }
        };
        let mut cache = self.spare.pop().unwrap_or_else(|| lm.new_cache());
        cache.truncate(0);
        let seed = job_seed(&self.settings, id);
        self.active.push(Active { id, seed, cache, text, prompt_len, stage });
        Ok(())
    }

    /// What the answer to `id` is decoded with, if the windows are wanted.
    fn windows(&self, id: u64) -> Result<Option<Windows>, LmError> {
        let Settings { block, states, draft, .. } = self.settings;
        match states {
            States::Blocks => Ok(None),
            States::Window => {
                let decoder = Jacobi::new(block, draft, job_seed(&self.settings, id))?;
                Ok(Some(Windows::new(decoder)))
            }
        }
    }

    /// Runs one forward and hands what is done to `sink`.
    ///
    /// # Errors
    /// What the model reports, [`LmError::NotFinite`] included: where the model overflows
    /// on a guess, that block has no trajectory.
    pub fn step<L: CausalLm<Cache = C>>(
        &mut self,
        lm: &mut L,
        sink: &mut impl Sink,
    ) -> Result<(), LmError> {
        // Answers that need no forward: none at all, or given and read.
        self.cut(sink);
        let uses = self.fill();
        if !uses.is_empty() {
            let mut caches: Vec<&mut C> = self.active.iter_mut().map(|a| &mut a.cache).collect();
            lm.forward(&self.batch, &mut caches, &mut self.output)?;
            self.cost.forwards += 1;
            self.absorb(&uses);
            self.cut(sink);
        }
        self.hand_over(sink);
        Ok(())
    }

    /// Fills the batch: answers first, as all else waits for them, one row each or a window; then
    /// prompts, so that answers never run short of company; then blocks, the oldest first.
    fn fill(&mut self) -> Vec<Use> {
        self.batch.clear();
        let limit = self.settings.rows.max(1);
        let mut uses = Vec::new();
        for decoding in [true, false] {
            for (index, active) in self.active.iter_mut().enumerate() {
                let unread = active.unread();
                if let (true, 1, Stage::Answering { answer, windows: Some(windows), .. }) =
                    (decoding, unread, &mut active.stage)
                    && !answer.tokens.is_empty()
                {
                    // A window wider than the limit travels alone.
                    let first = self.batch.len();
                    if first == 0 || first + windows.decoder.n() <= limit {
                        let room = answer.room();
                        windows.decoder.propose(&active.text, room, index, &mut self.batch);
                        let rows = self.batch.len() - first;
                        uses.push(Use::Extend { active: index, rows });
                        self.cost.answer_rows += rows;
                    }
                    continue;
                }
                let rows = unread.min(limit.saturating_sub(self.batch.len()));
                if rows == 0 || (unread == 1) != decoding {
                    continue;
                }
                let (first, answering) =
                    (active.cache.len(), matches!(active.stage, Stage::Answering { .. }));
                let tokens = active.text[first..first + rows].iter().copied();
                self.batch.push_causal(index, first, tokens, |i| {
                    if answering && i + 1 == unread { Want::Argmax } else { Want::Nothing }
                });
                uses.push(Use::Read { active: index, rows });
                let reads = first < active.prompt_len || !answering;
                *(if reads { &mut self.cost.prompt_rows } else { &mut self.cost.answer_rows }) +=
                    rows;
            }
        }
        for (index, active) in self.active.iter().enumerate() {
            let Stage::Iterating(blocks) = &active.stage else { continue };
            for (b, block) in blocks.iter().enumerate() {
                let rows = block.rows();
                // A block longer than the limit travels alone.
                let fits = self.batch.is_empty() || self.batch.len() + rows.len() <= limit;
                if let (false, true, Some(wrong)) = (rows.is_empty(), fits, block.wrong) {
                    let prefix = active.prompt_len + block.trajectory.start() + wrong;
                    self.batch.push_causal(index, prefix, rows.iter().copied(), |_| Want::Argmax);
                    uses.push(Use::Iterate { active: index, block: b });
                    self.cost.block_rows += rows.len();
                }
            }
        }
        uses
    }

    /// Reads the forward; `uses` in the order of the rows.
    fn absorb(&mut self, uses: &[Use]) {
        let mut row = 0;
        for purpose in uses {
            match *purpose {
                Use::Read { active, rows } => {
                    let active = &mut self.active[active];
                    let asked = active.unread() == rows;
                    active.cache.keep(&(0..rows).collect::<Vec<_>>());
                    if let (true, Stage::Answering { answer, stop_tokens, .. }) =
                        (asked, &mut active.stage)
                    {
                        let token = self.output.argmax(row + rows - 1);
                        answer.settle(&[token], stop_tokens, &mut ());
                        active.text.push(token);
                    }
                    row += rows;
                }
                Use::Extend { active, rows } => {
                    let Active { cache, text, stage, .. } = &mut self.active[active];
                    if let Stage::Answering { answer, stop_tokens, windows: Some(windows) } = stage
                    {
                        let (start, Windows { decoder, seen }) = (answer.tokens.len(), windows);
                        let Verdict { settled, keep, draft, .. } =
                            decoder.absorb(row, &self.batch, &self.output);
                        let count = answer.settle(settled, stop_tokens, &mut ());
                        text.extend_from_slice(&settled[..count]);
                        cache.keep(&keep[..count]);
                        seen.push((start, draft.to_vec()));
                    }
                    row += rows;
                }
                Use::Iterate { active, block } => {
                    let Stage::Iterating(blocks) = &mut self.active[active].stage else { continue };
                    let rows = blocks[block].rows().len();
                    blocks[block].update(|i| self.output.argmax(row + i));
                    row += rows;
                }
            }
        }
    }

    /// Cuts the answers that are complete into blocks.
    fn cut(&mut self, sink: &mut impl Sink) {
        for active in &mut self.active {
            match &active.stage {
                Stage::Answering { answer, .. } if answer.finish.is_some() => {
                    let finish = answer.finish;
                    active.cut(&self.settings, finish, sink);
                }
                Stage::Reading if active.unread() == 0 => active.cut(&self.settings, None, sink),
                _ => {}
            }
        }
    }

    /// Hands over the prompts that are done and keeps their caches.
    fn hand_over(&mut self, sink: &mut impl Sink) {
        let mut at = 0;
        while at < self.active.len() {
            if !self.active[at].is_done() {
                at += 1;
                continue;
            }
            let Active { id, cache, mut text, prompt_len, stage, .. } = self.active.remove(at);
            self.spare.push(cache);
            let (trajectories, measures) = match stage {
                Stage::Iterating(blocks) => of_blocks(blocks.into_iter().map(|b| b.trajectory)),
                Stage::Done(trajectories, measures) => (trajectories, measures),
                _ => continue,
            };
            let answer = text.split_off(prompt_len);
            sink.collected(Collected { id, prompt: text, answer, trajectories, measures });
        }
    }
}
