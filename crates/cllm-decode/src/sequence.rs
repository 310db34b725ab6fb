//! A KV cache together with the tokens it holds.
//!
//! A cache by itself is numbers; knowing their tokens is what lets a chat turn, or the
//! next request with the same system prompt, keep the part it shares with the last one.
//! Because a row's result never depends on its companions, entries written by a decode
//! are as good, to the bit, as entries written by a prefill.

use crate::batch::Batch;
use crate::lm::{KvCache, Token};

/// One text in a model's memory. Invariant: `tokens.len() == cache.len()`, entry i of the
/// cache is that of `tokens[i]`.
#[derive(Debug, Clone)]
pub struct Sequence<C> {
    /// Keys and values.
    pub cache: C,
    /// The tokens they belong to.
    pub tokens: Vec<Token>,
}

impl<C: KvCache> Sequence<C> {
    /// An empty sequence in `cache`, which is emptied.
    pub fn new(mut cache: C) -> Self {
        cache.truncate(0);
        Self { cache, tokens: Vec::new() }
    }

    /// Number of tokens held.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Drops all tokens from `len` on; idempotent, like [`KvCache::truncate`].
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.cache.truncate(len);
    }

    /// Keeps what can be re-used for `prompt`: truncates to the longest common prefix, but
    /// to `prompt.len() - 1` at most, as the last token has to run to say what follows.
    /// Returns the length kept.
    pub fn align(&mut self, prompt: &[Token]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        self.truncate(common.min(prompt.len().saturating_sub(1)));
        self.len()
    }

    /// Appends rows of the last forward, `rows` counting from `first_row` of `batch`, the
    /// first row of this sequence in it. See [`KvCache::keep`].
    ///
    /// # Panics
    /// As [`KvCache::keep`] does.
    pub fn keep(&mut self, rows: &[usize], first_row: usize, batch: &Batch) {
        self.cache.keep(rows);
        self.tokens.extend(rows.iter().map(|r| batch.rows()[first_row + r].token));
    }
}
