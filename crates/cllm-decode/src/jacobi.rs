//! Greedy Jacobi decoding (Santilli et al. 2023; Kou et al. 2024, arXiv 2403.00835).
//!
//! Greedy decoding asks for the fixed point of `y_i = argmax p(. | y_<i, x)`. Jacobi
//! iteration updates a block of unknowns at once, each from the last state of those
//! before it:
//!
//! ```text
//! rows      t    g_1  g_2 ... g_{n-1}      t: the last settled token, g: guesses
//! output    a_0  a_1  a_2 ... a_{n-1}      a_i: argmax after t g_1 .. g_i
//! ```
//!
//! `a_0` follows settled text only, so it is what autoregressive decoding would say. `a_i`
//! is too if every guess before it was right, `g_1..=g_i == a_0..a_{i-1}`. So with m - 1
//! right guesses in front, m tokens settle, their rows (`t` and the right guesses) become
//! cache entries, and every forward settles at least one token: never more forwards than
//! autoregressive decoding takes.
//!
//! Where we depart from the reference, which works block by block and restarts each:
//!
//! * Nothing confirms: a token settles in the forward that proves it, not one later.
//! * The window slides: the unfinished outputs `a_m ..` are the next guesses (that is the
//!   Jacobi update), and as many new guesses as tokens settled enter at its end. It is n
//!   rows wide until the answer's own end is nearer than that.
//!
//! The fixed point is unique, so none of this changes the answer, only the count of
//! forwards.

use crate::batch::{Batch, Want};
use crate::decoder::{Decoder, Verdict};
use crate::draft::Draft;
use crate::lm::{LmError, Output, Token};

/// The state of one Jacobi decode.
#[derive(Debug, Clone)]
pub struct Jacobi {
    n: usize,
    source: Draft,
    seed: u64,
    /// The guesses of the current iteration, `g_1 ..`.
    draft: Vec<Token>,
    /// The outputs of the last forward, `a_0 ..`; empty before the first.
    output: Vec<Token>,
    /// Row indices `0, 1, ..`, of which the first m are kept.
    keep: Vec<usize>,
    /// The m of the last forward; 0 once the next window has been made of it.
    settled: usize,
}

impl Jacobi {
    /// A decoder with a window of `n` rows: the last settled token and n - 1 guesses. With
    /// n = 1 it is autoregressive decoding. `seed` is for [`Draft::Context`].
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for n = 0.
    pub fn new(n: usize, draft: Draft, seed: u64) -> Result<Self, LmError> {
        if n == 0 {
            return Err(LmError::EmptyBlock);
        }
        let (source, settled) = (draft, 0);
        let (draft, output, keep) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { n, source, seed, draft, output, keep, settled })
    }

    /// Rows of the window.
    pub fn n(&self) -> usize {
        self.n
    }
}

impl Decoder for Jacobi {
    fn begin(&mut self) {
        self.draft.clear();
        self.settled = 0;
    }

    /// What any forward said beyond the settled tokens is a Jacobi update of its guesses.
    fn resume(&mut self, guesses: &[Token]) {
        self.begin();
        self.draft.extend_from_slice(guesses);
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        if self.settled > 0 {
            self.draft.clear();
            self.draft.extend_from_slice(&self.output[self.settled..]);
            self.settled = 0;
        }
        // Row i answers for the (i + 1)-th token to come: rows from `room` on are useless.
        let guesses = self.n.min(room) - 1;
        self.draft.truncate(guesses);
        while self.draft.len() < guesses {
            self.draft.push(self.source.guess(self.seed, text, &self.draft));
        }
        let (prefix, last) = (text.len() - 1, text[text.len() - 1]);
        let tokens = std::iter::once(last).chain(self.draft.iter().copied());
        batch.push_causal(sequence, prefix, tokens, |_| Want::Argmax);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        let rows = self.draft.len() + 1;
        self.output.clear();
        self.output.extend((first_row..first_row + rows).map(|row| output.argmax(row)));
        let right = self.draft.iter().zip(&self.output).take_while(|(g, a)| g == a).count();
        self.settled = right + 1;
        self.keep.extend(self.keep.len()..self.settled);
        Verdict {
            settled: &self.output[..self.settled],
            keep: &self.keep[..self.settled],
            draft: &self.draft,
            output: &self.output,
        }
    }
}
