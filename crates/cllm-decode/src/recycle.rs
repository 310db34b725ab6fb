//! Jacobi decoding with a pool: discarded guesses come back as candidates.
//!
//! The window slides as in [`jacobi`](crate::jacobi). Beside it, in the same forward, run up
//! to `candidates` branches from the [`Pool`]: runs of tokens that followed the last settled
//! token elsewhere, in the prompt, in the answer, or in guesses that were thrown away
//! (rejection recycling, Jacobi Forcing, arXiv 2512.14681).
//!
//! ```text
//! rows      t   g_1 g_2 .. g_{n-1}   c_1 c_2 ..   d_1 d_2 ..
//! sees      the text, then t and the guesses or candidates before it on its own branch
//! ```
//!
//! Whichever of window and branches is right for longest settles, with the token after it.
//! The window goes on from its own outputs: they stand at absolute places, so those beyond
//! what settled are still the Jacobi update. Where they end the pool goes on, then the
//! context.
//!
//! Jacobi Forcing keeps K blocks in flight and starts the next one when 85 % of the current
//! one has settled. A window that slides is that without the wait: a place enters as soon as
//! one settles, so there is no block whose end must be bridged.

use std::ops::Range;

use crate::batch::{Batch, Row, Want};
use crate::chain::Chain;
use crate::decoder::{Decoder, Verdict};
use crate::draft::Draft;
use crate::lm::{LmError, Output, Token};
use crate::pool::Pool;

/// Tokens kept for each key of the pool; more than are tried, as the window's own
/// beginning is skipped.
const PER_TOKEN: usize = 8;

/// The state of one decode.
#[derive(Debug, Clone)]
pub struct JacobiPool {
    n: usize,
    candidates: usize,
    seed: u64,
    pool: Pool,
    chain: Chain,
    /// The candidates of this forward.
    branches: Vec<Vec<Token>>,
    /// What settled, of the branch that won.
    settled: Vec<Token>,
    keep: Vec<usize>,
    /// How many tokens the last forward settled; 0 once the next window has been made.
    advanced: usize,
}

impl JacobiPool {
    /// A window of `n` rows and up to `candidates` branches of `length` rows each.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] if n or `length` is 0.
    pub fn new(n: usize, candidates: usize, length: usize, seed: u64) -> Result<Self, LmError> {
        if n == 0 || length == 0 {
            return Err(LmError::EmptyBlock);
        }
        Ok(Self {
            n,
            candidates,
            seed,
            pool: Pool::new(length, PER_TOKEN),
            chain: Chain::default(),
            branches: Vec::new(),
            settled: Vec::new(),
            keep: Vec::new(),
            advanced: 0,
        })
    }

    /// The next guess of the window.
    fn guess(&self, text: &[Token]) -> Token {
        let draft = &self.chain.draft;
        let last = draft.last().copied().unwrap_or(text[text.len() - 1]);
        match self.pool.after(last).next() {
            Some(continuation) => continuation[0],
            None => Draft::Context.guess(self.seed, text, draft),
        }
    }

    /// The rows of branch `b`, counted from the decoder's first.
    fn rows(&self, b: usize) -> Range<usize> {
        let before: usize = self.branches[..b].iter().map(Vec::len).sum();
        let start = self.chain.draft.len() + 1 + before;
        start..start + self.branches[b].len()
    }
}

impl Decoder for JacobiPool {
    fn begin(&mut self) {
        self.pool.clear();
        self.chain.draft.clear();
        self.advanced = 0;
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        self.pool.read(text);
        if self.advanced > 0 {
            let Chain { draft, output, .. } = &mut self.chain;
            draft.clear();
            draft.extend(output.iter().skip(self.advanced));
            self.advanced = 0;
        }
        let guesses = self.n.min(room) - 1;
        self.chain.draft.truncate(guesses);
        while self.chain.draft.len() < guesses {
            let guess = self.guess(text);
            self.chain.draft.push(guess);
        }
        let (prefix, last) = (text.len() - 1, text[text.len() - 1]);
        // A branch that the window begins with would say nothing new.
        let draft = &self.chain.draft;
        let new = self.pool.after(last).map(|tokens| &tokens[..tokens.len().min(room - 1)]);
        let new = new.filter(|tokens| !tokens.is_empty() && !draft.starts_with(tokens));
        self.branches = new.take(self.candidates).map(<[Token]>::to_vec).collect();

        let first = batch.len();
        self.chain.push(text, sequence, batch);
        for branch in &self.branches {
            let start = batch.len();
            for (i, &token) in branch.iter().enumerate() {
                let (position, want) = (prefix + 1 + i, Want::Argmax);
                let row = Row { sequence, token, position, prefix, want, adapter: None };
                batch.push(row, &[first..first + 1, start..start + i]);
            }
        }
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        let mut advanced = self.chain.read(first_row, output);
        let mut winner = None;
        for (b, branch) in self.branches.iter().enumerate() {
            let rows = self.rows(b);
            // The row before each of its tokens says what should stand there.
            let before = std::iter::once(0).chain(rows.clone());
            let said = before.map(|row| output.argmax(first_row + row));
            let right = branch.iter().zip(said).take_while(|(c, a)| **c == *a).count();
            if right + 1 > advanced {
                (advanced, winner) = (right + 1, Some((b, right)));
            }
        }
        // Whatever the window said, right or wrong, may be said again.
        self.pool.feed(&self.chain.output);
        self.advanced = advanced;
        let Some((b, right)) = winner else { return self.chain.verdict(advanced) };
        let rows = self.rows(b);
        self.settled.clear();
        self.settled.extend_from_slice(&self.branches[b][..right]);
        self.settled.push(output.argmax(first_row + rows.start + right - 1));
        self.keep.clear();
        self.keep.push(0);
        self.keep.extend(rows.take(right));
        // The observer is shown the branch that won.
        Verdict {
            settled: &self.settled,
            keep: &self.keep,
            draft: &self.branches[b][..right],
            output: &self.settled,
        }
    }
}
