//! The seam between the driver and the decoders.
//!
//! A decoder is a state machine behind two calls: which rows next, and what did they
//! show. It never sees a model, a cache, a limit or a stop token, and each way of
//! decoding (a sliding window, branches with an n-gram pool, several blocks in flight, a
//! tree) is one file behind this trait.
//!
//! Choosing a token is not a decoder's business either: it reads [`Output::argmax`].
//! [Sampling](crate::sampling) happens in the driver, between forward and absorb: it asks for
//! logits instead, and overwrites the argmax of each row with the token drawn for what that row
//! sees. That is a deterministic map as greedy choice is, so every decoder stays exact
//! unchanged.
//!
//! To add a decoder: a file with the rows as a [`Tree`](crate::tree::Tree), unless it is a
//! window, and a variant in [`spec`](crate::spec); then a line in the strategy `ways` of
//! `tests/equal_ar/`, which holds it to everything said here.

use crate::batch::Batch;
use crate::lm::{Output, Token};

/// A way of extending a text by several tokens a forward, with the result that one token
/// a forward would have.
pub trait Decoder {
    /// Forgets everything: the next `propose` is the first of a new request.
    fn begin(&mut self);

    /// Another decoder extended the text in between, so guesses under way are in the wrong place.
    /// `guesses` is what its forward said of the tokens to come, of use or not.
    fn resume(&mut self, guesses: &[Token]) {
        let _ = guesses;
        self.begin();
    }

    /// Pushes the rows of the next iteration, at least one, all for `sequence`.
    ///
    /// `text` is all settled tokens, prompt included; the cache holds all but the last.
    /// `room`, at least 1, is how many more tokens the answer may get: a row that could
    /// only speak about later ones is useless, and may lie beyond the context. With
    /// `room` 1 that leaves the one row that autoregressive decoding has.
    ///
    /// The forward may fail. Then `propose` comes again, maybe with less room, without
    /// an `absorb` in between.
    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch);

    /// What the forward of the rows it pushed cost, draws of tokens included: said before
    /// `absorb` if they travelled alone and the model has a [clock](crate::CausalLm::now), in
    /// that clock's unit. It may change which rows come next.
    fn took(&mut self, cost: f64) {
        let _ = cost;
    }

    /// Reads what the rows it pushed (from `first_row` on) gave.
    fn absorb(&mut self, first_row: usize, batch: &Batch, output: &Output) -> Verdict<'_>;
}

/// What an iteration showed.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'a> {
    /// The next tokens of the text, at least one.
    pub settled: &'a [Token],
    /// As many rows, counted from the decoder's first: `keep[0]` carried the last token
    /// of the text, `keep[i]` carried `settled[i - 1]`, each seeing all before it. See
    /// [`KvCache::keep`](crate::KvCache::keep).
    pub keep: &'a [usize],
    /// For the observer: see [`Iteration::draft`](crate::Iteration::draft).
    pub draft: &'a [Token],
    /// For the observer: see [`Iteration::output`](crate::Iteration::output).
    pub output: &'a [Token],
}

impl<D: Decoder + ?Sized> Decoder for &mut D {
    fn begin(&mut self) {
        (**self).begin();
    }

    fn resume(&mut self, guesses: &[Token]) {
        (**self).resume(guesses);
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        (**self).propose(text, room, sequence, batch);
    }

    fn took(&mut self, cost: f64) {
        (**self).took(cost);
    }

    fn absorb(&mut self, first_row: usize, batch: &Batch, output: &Output) -> Verdict<'_> {
        (**self).absorb(first_row, batch, output)
    }
}

impl<D: Decoder + ?Sized> Decoder for Box<D> {
    fn begin(&mut self) {
        (**self).begin();
    }

    fn resume(&mut self, guesses: &[Token]) {
        (**self).resume(guesses);
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        (**self).propose(text, room, sequence, batch);
    }

    fn took(&mut self, cost: f64) {
        (**self).took(cost);
    }

    fn absorb(&mut self, first_row: usize, batch: &Batch, output: &Output) -> Verdict<'_> {
        (**self).absorb(first_row, batch, output)
    }
}
