//! Guesses in a row, the common part of most decoders: one run of rows, each seeing all
//! before it.
//!
//! ```text
//! rows      t    g_1  g_2 ... g_k      t: the last settled token, g: guesses
//! output    a_0  a_1  a_2 ... a_k      a_i: the token after t g_1 .. g_i
//! ```
//!
//! `a_0` follows settled text only, so it settles; `a_i` does if every guess before it was
//! right, `g_1..=g_i == a_0..a_{i-1}`. Decoders differ in where guesses come from.

use crate::batch::{Batch, Want};
use crate::decoder::Verdict;
use crate::lm::{Output, Token};

/// The guesses of an iteration, and what became of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    /// `g_1 ..`, to be filled before [`push`](Self::push).
    pub(crate) draft: Vec<Token>,
    /// `a_0 ..` of the last forward.
    pub(crate) output: Vec<Token>,
    /// Row indices `0, 1, ..`, of which the first ones are kept.
    keep: Vec<usize>,
}

impl Chain {
    /// Pushes the rows of the last settled token and the guesses.
    pub(crate) fn push(&self, text: &[Token], sequence: usize, batch: &mut Batch) {
        let (prefix, last) = (text.len() - 1, text[text.len() - 1]);
        let tokens = std::iter::once(last).chain(self.draft.iter().copied());
        batch.push_causal(sequence, prefix, tokens, |_| Want::Argmax);
    }

    /// Reads what the rows from `first_row` on gave. Returns how many tokens settle, at
    /// least one.
    pub(crate) fn read(&mut self, first_row: usize, output: &Output) -> usize {
        let rows = self.draft.len() + 1;
        self.output.clear();
        self.output.extend((first_row..first_row + rows).map(|row| output.argmax(row)));
        let right = self.draft.iter().zip(&self.output).take_while(|(g, a)| g == a).count();
        self.keep.extend(self.keep.len()..right + 1);
        right + 1
    }

    /// What to tell the driver of an iteration that settled so many.
    pub(crate) fn verdict(&self, settled: usize) -> Verdict<'_> {
        Verdict {
            settled: &self.output[..settled],
            keep: &self.keep[..settled],
            draft: &self.draft,
            output: &self.output,
        }
    }
}
