//! What to decode and when to stop; what came out.
//!
//! When an answer ends is decided here and nowhere else, so that it cannot depend on the
//! decoder. A token ends the answer, and belongs to it, when it is a stop token, when
//! the observer breaks, when it is the last of `max_new_tokens`, or when it takes the
//! last position of the context: the first of these that holds is the [`Finish`].
//!
//! Stop *strings* are not here: they need the text, so they are an
//! [`Observer`] that breaks.

use std::ops::ControlFlow;

use crate::lm::{CausalLm, LmError, Token};
use crate::observe::{Observer, Phase};
use crate::sampling::{Logprobs, Sampler, Sampling};

/// What to decode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The tokens to continue; at least one.
    pub prompt: Vec<Token>,
    /// The most tokens the answer may have. 0 gives an empty answer without a forward.
    pub max_new_tokens: usize,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<Token>,
    /// How tokens are chosen; greedily by default.
    pub sampling: Sampling,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// Its last token is a stop token.
    StopToken,
    /// It has `max_new_tokens` tokens.
    MaxNewTokens,
    /// Prompt and answer fill the context.
    Context,
    /// The observer ended it: a stop string, a cancelled request.
    Observer,
}

/// What an answer cost. A *forward* is counted if rows of this answer travelled in it; one
/// that failed and was run again with fewer rows counts too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Forwards that read the prompt. The last one gives the first token.
    pub prefill_forwards: usize,
    /// Prompt tokens they read; less than the prompt if a cached part was re-used.
    pub prefill_rows: usize,
    /// Forwards after the prefill.
    pub decode_forwards: usize,
    /// Their rows.
    pub decode_rows: usize,
    /// Tokens they settled: all of the answer but the first.
    pub decode_tokens: usize,
}

impl Stats {
    /// Tokens settled per decode forward, the guaranteed one included: exactly 1 for
    /// autoregressive decoding. `None` if there was no decode forward.
    ///
    /// To pool requests, [`add`](Self::add) their statistics; never average averages.
    pub fn mean_acceptance_length(&self) -> Option<f64> {
        (self.decode_forwards > 0).then(|| self.decode_tokens as f64 / self.decode_forwards as f64)
    }

    /// Counts a forward of `rows` rows that settled `settled` tokens.
    pub(crate) fn count(&mut self, phase: Phase, rows: usize, settled: usize) {
        match phase {
            Phase::Prefill => {
                self.prefill_forwards += 1;
                self.prefill_rows += rows;
            }
            Phase::Decode => {
                self.decode_forwards += 1;
                self.decode_rows += rows;
                self.decode_tokens += settled;
            }
        }
    }

    /// Adds the counts of another answer.
    pub fn add(&mut self, other: &Self) {
        self.prefill_forwards += other.prefill_forwards;
        self.prefill_rows += other.prefill_rows;
        self.decode_forwards += other.decode_forwards;
        self.decode_rows += other.decode_rows;
        self.decode_tokens += other.decode_tokens;
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The tokens after the prompt; the stop token, if one ended it, is the last of them.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish: Finish,
    /// What it cost.
    pub stats: Stats,
}

/// An answer while it grows.
#[derive(Debug)]
pub(crate) struct Growing {
    /// The tokens so far.
    pub(crate) tokens: Vec<Token>,
    /// Set once the answer has ended.
    pub(crate) finish: Option<Finish>,
    /// What it has cost so far.
    pub(crate) stats: Stats,
    max_new_tokens: usize,
    /// Positions after the prompt.
    space: usize,
}

impl Growing {
    /// Checks a request against the model's context and vocabulary, so that a bad one is
    /// turned away before it travels with others.
    pub(crate) fn new(request: &Request, lm: &impl CausalLm) -> Result<Self, LmError> {
        let (prompt, context, vocab) = (request.prompt.len(), lm.context_length(), lm.vocab_size());
        if prompt == 0 {
            return Err(LmError::EmptyPrompt);
        }
        if prompt >= context {
            return Err(LmError::PromptTooLong { prompt, context });
        }
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= vocab) {
            return Err(LmError::UnknownToken { token, vocab });
        }
        request.sampling.validate(vocab)?;
        Ok(Self {
            tokens: Vec::new(),
            finish: (request.max_new_tokens == 0).then_some(Finish::MaxNewTokens),
            stats: Stats::default(),
            max_new_tokens: request.max_new_tokens,
            space: context - prompt,
        })
    }

    /// How many more tokens the answer may get.
    pub(crate) fn room(&self) -> usize {
        self.max_new_tokens.min(self.space) - self.tokens.len()
    }

    /// The sampler of a request; `None` if the model's argmax is all that is asked.
    pub(crate) fn sampler(request: &Request) -> Option<Sampler> {
        let Request { prompt, sampling, .. } = request;
        (!sampling.is_off()).then(|| Sampler::new(sampling.clone(), prompt.len()))
    }

    /// Adds settled tokens, in order, until one of them ends the answer. Returns how many
    /// were added.
    pub(crate) fn settle(
        &mut self,
        tokens: &[Token],
        stop_tokens: &[Token],
        observer: &mut (impl Observer + ?Sized),
    ) -> usize {
        self.settle_with(tokens, stop_tokens, observer, |_| None)
    }

    /// As [`settle`](Self::settle), and tells the observer what `logprobs` has to say of the
    /// token with this index among `tokens`.
    pub(crate) fn settle_with(
        &mut self,
        tokens: &[Token],
        stop_tokens: &[Token],
        observer: &mut (impl Observer + ?Sized),
        logprobs: impl Fn(usize) -> Option<Logprobs>,
    ) -> usize {
        let before = self.tokens.len();
        for (i, &token) in tokens.iter().enumerate() {
            if self.finish.is_some() {
                break;
            }
            self.tokens.push(token);
            if let Some(logprobs) = logprobs(i) {
                observer.logprobs(&logprobs);
            }
            let flow = observer.token(token);
            self.finish = if stop_tokens.contains(&token) {
                Some(Finish::StopToken)
            } else if flow == ControlFlow::Break(()) {
                Some(Finish::Observer)
            } else if self.tokens.len() == self.max_new_tokens {
                Some(Finish::MaxNewTokens)
            } else if self.tokens.len() == self.space {
                Some(Finish::Context)
            } else {
                None
            };
        }
        self.tokens.len() - before
    }

    /// The answer, if it has ended.
    pub(crate) fn into_answer(self) -> Option<Answer> {
        let Self { tokens, finish, stats, .. } = self;
        finish.map(|finish| Answer { tokens, finish, stats })
    }
}
