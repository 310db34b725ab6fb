//! Penalties: what the row's context has said, and how often.
//!
//! The context of a row is the text it sees: settled tokens in the cache, then the guesses
//! before it in the same forward, then itself. Each row has its own, so a penalty is exact
//! whatever the decoder: a guess counts in the rows that come after it and in no other.
//!
//! Settled text only grows, so its counts are kept from row to row; a row's guesses are
//! counted for it and taken back. A row costs its guesses and one step for each different
//! token of its context.

use std::collections::BTreeMap;

use super::Sampling;
use crate::lm::Token;

/// How often a token stands in a context.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    prompt: u32,
    answer: u32,
}

/// The counts of a text, of which the first `prompt_len` tokens are the prompt.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    prompt_len: usize,
    text: Vec<Token>,
    counts: BTreeMap<Token, Count>,
}

impl History {
    pub(super) fn new(prompt_len: usize) -> Self {
        Self { prompt_len, ..Self::default() }
    }

    /// Makes `text` followed by `more` the text counted. `text` and the last call's are
    /// beginnings of the same text, so only what differs in length is counted.
    pub(super) fn see(&mut self, text: &[Token], more: impl Iterator<Item = Token>) {
        // What the last call added after its text may differ.
        while self.text.len() > text.len() {
            self.pop();
        }
        debug_assert!(text.starts_with(&self.text), "settled text only grows");
        for &token in &text[self.text.len()..] {
            self.push(token);
        }
        more.for_each(|token| self.push(token));
    }

    /// Drops the tokens from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        while self.text.len() > len {
            self.pop();
        }
    }

    fn slot(&mut self, index: usize, token: Token) -> &mut u32 {
        let count = self.counts.entry(token).or_default();
        if index < self.prompt_len { &mut count.prompt } else { &mut count.answer }
    }

    fn push(&mut self, token: Token) {
        *self.slot(self.text.len(), token) += 1;
        self.text.push(token);
    }

    fn pop(&mut self) {
        if let Some(token) = self.text.pop() {
            *self.slot(self.text.len(), token) -= 1;
            if self.counts.get(&token).is_some_and(|c| c.prompt + c.answer == 0) {
                self.counts.remove(&token);
            }
        }
    }

    /// Applies the penalties to the logits, shape `(vocab,)`.
    pub(super) fn penalise(&self, sampling: &Sampling, logits: &mut [f32]) {
        for (&token, count) in &self.counts {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let repetition = sampling.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            if count.answer > 0 {
                *logit -=
                    sampling.presence_penalty + sampling.frequency_penalty * count.answer as f32;
            }
        }
    }
}
