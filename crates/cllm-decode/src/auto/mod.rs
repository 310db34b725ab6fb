//! Choosing who guesses and how much, forward by forward: as many rows as pay, and none where
//! nothing does.
//!
//! Rows are guesses, guesses are right at a rate that changes within an answer, and a row costs
//! time. `Auto` wraps a decoder that pushes as many rows as it is given room for, has
//! [prompt lookup](crate::prompt_lookup), in the text and in earlier answers, beside it, and takes
//! of these the one, with the number n of rows, that maximises
//!
//! ```text
//! expected tokens    1 + s_1 + s_2 + .. + s_{n-1}
//! --------------- =  ----------------------------      s_k = c_1 c_2 .. c_k
//!      cost                     T(n)
//! ```
//!
//! T is the machine's [`CostModel`], corrected by what forwards take, `live`; c_k, the probability that guess k is right if those
//! before it are, is what forwards have shown lately. Lookup has such rates by place, `rates`, for
//! each length of match (`lookup`), because a long match is a better reason than a short one.
//! A window's guesses have them by age, `ages`: they get better with each iteration they have been
//! through, so that a wide window, where they wait longer for their turn, is better than a
//! narrow one shows.
//!
//! n = 1 teaches nothing at all, and a narrow window nothing of old guesses. So `Auto` *probes*:
//! a few wide forwards, after a pause that doubles with each probe after which so many rows are
//! not what pays most. Where nothing pays, a match is tried as a cheaper probe, with pauses of
//! its own.
//!
//! **What it may cost** is not left to estimates. Account is kept of time spent over the
//! autoregressive way, `sum T(rows) / T(1) - settled`, and a forward of several rows runs only
//! if, should it settle a single token, that stays below 3 % of the autoregressive time plus the
//! cost of four forwards. Gains count against it, but no more than sixteen forwards of
//! them: a good beginning does not pay for a bad end. The four are lent once: what a request has
//! not paid back when it ends the next one has less of, lest short answers lose them every time.
//!
//! Costs are those of a forward that carries this request alone. Among others a row costs less
//! than it is thought to, so choices are then on the careful side.
//!
//! What one request has shown of the rates is where the next one begins: answers are often
//! shorter than learning takes. It counts little against what that request shows itself.
//!
//! What was answered before changes how many forwards an answer takes, never its text.
//!
//! Deterministic with a model that has no clock: the same requests give the same choices. With one
//! they are the machine's, and the tokens are still the same.

mod ages;
mod backoff;
mod governor;
mod live;
mod lookup;
mod rates;

use crate::batch::Batch;
use crate::cost::CostModel;
use crate::decoder::{Decoder, Verdict};
use crate::lm::{LmError, Output, Token};
use crate::prompt_lookup::PromptLookup;
use governor::{Governor, Source};

/// A decoder that gives `D` as much room as pays. `D` is one that pushes at most as many rows
/// as it has room, in one chain, like [`Jacobi`](crate::Jacobi); with branches, rows are
/// taken for guesses that were wrong, and too few are given. After a forward of lookup
/// it goes on from what that said ([`Decoder::resume`]).
#[derive(Debug, Clone)]
pub struct Auto<D> {
    inner: D,
    lookup: PromptLookup,
    governor: Governor,
    /// Of the forward under way.
    source: Source,
    rows: usize,
}

impl<D: Decoder> Auto<D> {
    /// Wraps `inner`, giving it at most `n` rows. With `n` 1 decoding is autoregressive.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for n = 0.
    pub fn new(inner: D, n: usize, costs: CostModel) -> Result<Self, LmError> {
        if n == 0 {
            return Err(LmError::EmptyBlock);
        }
        let lookup = PromptLookup::new(lookup::KEY, n - 1);
        let governor = Governor::new(n, costs);
        Ok(Self { inner, lookup, governor, source: Source::Inner, rows: 0 })
    }

    /// Guesses from earlier answers too, of which it remembers about `capacity` tokens; 0 for none.
    #[must_use]
    pub fn remember(mut self, capacity: usize) -> Self {
        self.lookup = self.lookup.remember(capacity);
        self
    }
}

impl<D: Decoder> Decoder for Auto<D> {
    fn begin(&mut self) {
        self.inner.begin();
        self.lookup.begin();
        self.governor.begin();
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        let first = batch.len();
        let (source, rows) = self.governor.choose(room, self.lookup.matched(text));
        match source {
            Source::Inner => self.inner.propose(text, rows, sequence, batch),
            Source::Lookup(found) => {
                self.lookup.propose_from(found.place, text, rows, sequence, batch);
            }
        }
        self.source = source;
        self.rows = batch.len() - first;
    }

    fn took(&mut self, cost: f64) {
        self.governor.took(self.rows, cost);
    }

    fn absorb(&mut self, first_row: usize, batch: &Batch, output: &Output) -> Verdict<'_> {
        let verdict = match self.source {
            Source::Inner => {
                let verdict = self.inner.absorb(first_row, batch, output);
                self.lookup.settled(verdict.settled);
                verdict
            }
            Source::Lookup(_) => {
                let verdict = self.lookup.absorb(first_row, batch, output);
                self.inner.resume(&verdict.output[verdict.settled.len()..]);
                verdict
            }
        };
        self.governor.learn(self.source, self.rows, verdict.settled.len());
        verdict
    }
}
