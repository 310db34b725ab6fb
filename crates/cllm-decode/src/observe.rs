//! Watching a decode: tokens as they settle, iterations as they run.
//!
//! What an observer is told is pure: no text, no clock. A printer adds the text, a trace
//! adds the time, both outside this crate.

use std::ops::ControlFlow;

use crate::lm::Token;
use crate::sampling::Logprobs;

/// Whether a forward read the prompt or extended the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It read prompt tokens.
    Prefill,
    /// It extended the answer.
    Decode,
}

/// One forward, as one answer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iteration<'a> {
    /// Prefill or decode.
    pub phase: Phase,
    /// Index in the answer of the first unknown token.
    pub start: usize,
    /// The guesses that went in for the unknowns from `start` on.
    pub draft: &'a [Token],
    /// What the model says for the unknowns from `start` on, one token per row that was
    /// asked: `output[i]` is right if `draft[..i] == output[..i]`.
    pub output: &'a [Token],
    /// Tokens this forward added to the answer; those after a stop are not counted.
    pub settled: usize,
    /// Rows of this answer in the forward.
    pub rows: usize,
}

/// Is told what a decode does. Every method has a default that ignores it.
pub trait Observer {
    /// A token has settled; they come in order, each once. `Break` ends the answer *with*
    /// this token.
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        let _ = token;
        ControlFlow::Continue(())
    }

    /// How likely the token that is told next was; only if the request asks for it.
    fn logprobs(&mut self, logprobs: &Logprobs) {
        let _ = logprobs;
    }

    /// A forward has run; comes after its tokens.
    fn iteration(&mut self, iteration: &Iteration<'_>) {
        let _ = iteration;
    }
}

/// Watches nothing.
impl Observer for () {}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        (**self).token(token)
    }

    fn logprobs(&mut self, logprobs: &Logprobs) {
        (**self).logprobs(logprobs);
    }

    fn iteration(&mut self, iteration: &Iteration<'_>) {
        (**self).iteration(iteration);
    }
}

impl<O: Observer + ?Sized> Observer for Box<O> {
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        (**self).token(token)
    }

    fn logprobs(&mut self, logprobs: &Logprobs) {
        (**self).logprobs(logprobs);
    }

    fn iteration(&mut self, iteration: &Iteration<'_>) {
        (**self).iteration(iteration);
    }
}

/// An [`Iteration`] that owns its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedIteration {
    /// See [`Iteration::phase`].
    pub phase: Phase,
    /// See [`Iteration::start`].
    pub start: usize,
    /// See [`Iteration::draft`].
    pub draft: Vec<Token>,
    /// See [`Iteration::output`].
    pub output: Vec<Token>,
    /// See [`Iteration::settled`].
    pub settled: usize,
    /// See [`Iteration::rows`].
    pub rows: usize,
}

impl From<&Iteration<'_>> for RecordedIteration {
    fn from(it: &Iteration<'_>) -> Self {
        Self {
            phase: it.phase,
            start: it.start,
            draft: it.draft.to_vec(),
            output: it.output.to_vec(),
            settled: it.settled,
            rows: it.rows,
        }
    }
}

/// Collects every iteration: the pure part of a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorder {
    /// What ran, in order.
    pub iterations: Vec<RecordedIteration>,
}

impl Observer for Recorder {
    fn iteration(&mut self, iteration: &Iteration<'_>) {
        self.iterations.push(iteration.into());
    }
}
