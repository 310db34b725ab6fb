//! Prompt lookup decoding (Saxena 2023; transformers' `prompt_lookup_num_tokens`): the
//! guesses are what followed the last few tokens where they stood before, in prompt or
//! answer. It needs no model, no training and no state worth naming, and is the peer that
//! everything else has to beat. Where nothing matches a forward has one row, and costs what
//! autoregressive decoding costs.

use crate::batch::Batch;
use crate::chain::Chain;
use crate::decoder::{Decoder, Verdict};
use crate::lm::{LmError, Output, Token};
use crate::lookup::Lookup;

/// The state of one decode.
#[derive(Debug, Clone)]
pub struct PromptLookup {
    tokens: usize,
    lookup: Lookup,
    chain: Chain,
}

impl PromptLookup {
    /// Guesses up to `tokens` tokens after the longest match of up to `ngram` tokens.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] if either is 0.
    pub fn new(ngram: usize, tokens: usize) -> Result<Self, LmError> {
        if ngram == 0 || tokens == 0 {
            return Err(LmError::EmptyBlock);
        }
        Ok(Self { tokens, lookup: Lookup::new(ngram), chain: Chain::default() })
    }
}

impl Decoder for PromptLookup {
    fn begin(&mut self) {
        self.lookup.clear();
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        self.chain.draft.clear();
        if let Some(found) = self.lookup.find(text) {
            let guesses = self.tokens.min(room - 1);
            let end = text.len().min(found.at + guesses);
            self.chain.draft.extend_from_slice(&text[found.at..end]);
        }
        self.chain.push(text, sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        let settled = self.chain.read(first_row, output);
        self.chain.verdict(settled)
    }
}
