//! Guesses that are right as often as one likes: what an engine would do with a model of a
//! given acceptance, without that model.
//!
//! The answer is known beforehand, from autoregressive decoding. Each guess is its token, or
//! with probability 1 - p another one, by a coin for (seed, place) that is thrown once: the
//! same place is wrong in every forward until it settles. The answer is still decoded and
//! verified as always, so what is measured is real but for where guesses come from. With p
//! the rate at which a guess is right, a forward of n rows settles
//! `1 + p + p^2 + .. + p^(n-1)` tokens in the mean.

use crate::batch::Batch;
use crate::chain::Chain;
use crate::counter;
use crate::decoder::{Decoder, Verdict};
use crate::lm::{LmError, Output, Token};

/// The state of one decode.
#[derive(Debug, Clone)]
pub struct Oracle {
    n: usize,
    p: f64,
    seed: u64,
    answer: Vec<Token>,
    vocab: usize,
    /// Length of the text when the answer began; known at the first `propose`.
    prompt_len: Option<usize>,
    chain: Chain,
}

impl Oracle {
    /// n rows with guesses from `answer`, right with probability `p`.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for n = 0.
    pub fn new(
        answer: Vec<Token>,
        n: usize,
        p: f64,
        seed: u64,
        vocab: usize,
    ) -> Result<Self, LmError> {
        if n == 0 {
            return Err(LmError::EmptyBlock);
        }
        Ok(Self { n, p, seed, answer, vocab, prompt_len: None, chain: Chain::default() })
    }

    fn guess(&self, place: usize) -> Option<Token> {
        let token = *self.answer.get(place)?;
        let coin = counter::hash(self.seed, place as u64) as f64 / u64::MAX as f64;
        let wrong = (token + 1) % self.vocab as Token;
        Some(if coin < self.p { token } else { wrong })
    }
}

impl Decoder for Oracle {
    fn begin(&mut self) {
        self.prompt_len = None;
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        // A decoder is first asked when the prompt's forward has given one token.
        let prompt_len = *self.prompt_len.get_or_insert(text.len() - 1);
        let place = text.len() - prompt_len;
        let guesses = (place..).map_while(|place| self.guess(place)).take(self.n.min(room) - 1);
        self.chain.draft = guesses.collect();
        self.chain.push(text, sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        let settled = self.chain.read(first_row, output);
        self.chain.verdict(settled)
    }
}
