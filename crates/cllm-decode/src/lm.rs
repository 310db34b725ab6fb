//! The seam between decoders and models.
//!
//! A decoder fills a [`Batch`], a model runs it, the decoder reads the [`Output`] and
//! says which rows turned out to be real text: [`KvCache::keep`]. A forward by itself
//! never changes what a cache holds, so a guess that came to nothing leaves no trace and
//! a failed forward needs no repair.

use crate::batch::{AdapterId, Batch};

/// A token id, an index into the vocabulary.
pub type Token = u32;

/// A causal language model: logits at a row depend only on what the row may see.
///
/// `&mut self` because a model owns scratch memory and threads; weights are shared
/// behind it.
pub trait CausalLm {
    /// The keys and values of one sequence.
    type Cache: KvCache;

    /// Number of tokens in the vocabulary; logits have this length.
    fn vocab_size(&self) -> usize;

    /// Number of positions the model can address.
    fn context_length(&self) -> usize;

    /// An empty cache for one sequence.
    fn new_cache(&self) -> Self::Cache;

    /// Computes the rows of `batch`; row r belongs to `caches[batch.rows()[r].sequence]`.
    ///
    /// Keys and values of the rows are left *pending* in their caches until
    /// [`KvCache::keep`] or the next forward. What each row asked for is written to
    /// `output`, whose earlier content is dropped.
    ///
    /// # Errors
    /// [`LmError::BadBatch`] and its like for rows that make no sense,
    /// [`LmError::NotFinite`] when the network produced NaN or infinity. The caches are
    /// then as before.
    fn forward(
        &mut self,
        batch: &Batch,
        caches: &mut [&mut Self::Cache],
        output: &mut Output,
    ) -> Result<(), LmError>;

    /// The time since some moment, in the unit of the [`CostModel`](crate::CostModel)s made for
    /// this model: milliseconds unless they are made up. A model without a clock, as
    /// here, leaves a decoder that chooses by cost with what it was told.
    fn now(&self) -> Option<f64> {
        None
    }
}

impl<L: CausalLm> CausalLm for &mut L {
    type Cache = L::Cache;

    fn vocab_size(&self) -> usize {
        (**self).vocab_size()
    }

    fn context_length(&self) -> usize {
        (**self).context_length()
    }

    fn new_cache(&self) -> Self::Cache {
        (**self).new_cache()
    }

    fn forward(
        &mut self,
        batch: &Batch,
        caches: &mut [&mut Self::Cache],
        output: &mut Output,
    ) -> Result<(), LmError> {
        (**self).forward(batch, caches, output)
    }

    fn now(&self) -> Option<f64> {
        (**self).now()
    }
}

/// The keys and values of the settled tokens of one sequence. Entry i belongs to
/// position i.
pub trait KvCache {
    /// Number of entries.
    fn len(&self) -> usize;

    /// Whether there is no entry.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends pending rows of the last forward: `rows` counts among the rows of *this*
    /// sequence in that forward, ascending, and each must stand at the position it is
    /// appended to. All other pending rows are dropped.
    ///
    /// # Panics
    /// If a row was not in the last forward or stands at another position: a mistake of
    /// the decoder, never of its input.
    fn keep(&mut self, rows: &[usize]);

    /// Drops all entries from `len` on, and whatever is pending. Absolute and
    /// idempotent: a `len` at or beyond the end drops no entry.
    fn truncate(&mut self, len: usize);
}

/// What a forward returned. Reusable: a forward overwrites it and keeps the allocations.
#[derive(Debug, Default, Clone)]
pub struct Output {
    argmax: Vec<Option<Token>>,
    logits: Vec<f32>,
    /// Start of each row's logits in `logits`, or `usize::MAX`.
    starts: Vec<usize>,
    vocab: usize,
}

impl Output {
    /// An empty output.
    pub fn new() -> Self {
        Self::default()
    }

    /// For models: empties the output for `rows` rows over `vocab` tokens.
    pub fn reset(&mut self, rows: usize, vocab: usize) {
        self.argmax.clear();
        self.argmax.resize(rows, None);
        self.starts.clear();
        self.starts.resize(rows, usize::MAX);
        self.logits.clear();
        self.vocab = vocab;
    }

    /// For models: sets the argmax of a row.
    pub fn set_argmax(&mut self, row: usize, token: Token) {
        self.argmax[row] = Some(token);
    }

    /// For models: makes room for the logits of a row, shape `(vocab,)`, to be filled.
    pub fn logits_mut(&mut self, row: usize) -> &mut [f32] {
        if self.starts[row] == usize::MAX {
            self.starts[row] = self.logits.len();
            self.logits.resize(self.logits.len() + self.vocab, 0.0);
        }
        let start = self.starts[row];
        &mut self.logits[start..start + self.vocab]
    }

    /// The most likely token at a row.
    ///
    /// # Panics
    /// If the row did not ask for it.
    pub fn argmax(&self, row: usize) -> Token {
        self.argmax[row].expect("the row asked for Argmax or Logits")
    }

    /// The logits at a row, shape `(vocab,)`.
    ///
    /// # Panics
    /// If the row did not ask for them.
    pub fn logits(&self, row: usize) -> &[f32] {
        let start = self.starts[row];
        assert_ne!(start, usize::MAX, "the row asked for Logits");
        &self.logits[start..start + self.vocab]
    }
}

/// The index of the largest value, the lowest among equals; `None` if any value is NaN or
/// the largest is not finite.
pub fn argmax(logits: &[f32]) -> Option<Token> {
    // Sixteen maxima at a time, so that the compiler uses vectors; then where the largest is.
    let (chunks, rest) = logits.as_chunks::<16>();
    let mut most = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (most, &v) in most.iter_mut().zip(chunk) {
            *most = if v > *most { v } else { *most };
        }
    }
    let value = most.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let nan = logits.iter().fold(false, |nan, v| nan | v.is_nan());
    if nan || !value.is_finite() {
        return None;
    }
    logits.iter().position(|&v| v == value).map(|i| i as Token)
}

/// Why a model could not run a batch, or a request cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LmError {
    /// A row of the batch contradicts the caches or the other rows.
    #[error("row {row} of the batch: {what}")]
    BadBatch {
        /// Index of the row.
        row: usize,
        /// What was expected and found.
        what: String,
    },
    /// A token that is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab} tokens")]
    UnknownToken {
        /// The token.
        token: Token,
        /// Vocabulary size.
        vocab: usize,
    },
    /// A position at or beyond the end of the context.
    #[error("position {position} is beyond the context of {context} tokens")]
    ContextFull {
        /// The position.
        position: usize,
        /// Context length.
        context: usize,
    },
    /// A row named an adapter the model does not have.
    #[error("adapter {} is not loaded", .0.0)]
    UnknownAdapter(AdapterId),
    /// The network produced NaN or infinity: broken weights, or an overflow.
    #[error("the logits at position {position} are not finite: the weights hold NaN or overflow")]
    NotFinite {
        /// Position of the row.
        position: usize,
    },
    /// A setting of [`Sampling`](crate::Sampling) out of its range.
    #[error("{name} {value}: expected {expected}")]
    BadSampling {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A cost model without a cost for one row, or with costs that are none.
    #[error("costs of a forward: {what}")]
    BadCost {
        /// What was expected and found.
        what: String,
    },
    /// A decoder was asked for blocks of no token.
    #[error("block length 0: expected at least 1")]
    EmptyBlock,
    /// A decoder that guesses with a second model, without one.
    #[error("decoder draft-model: no draft model was given")]
    NoDraftModel,
    /// The prompt has no token.
    #[error("the prompt is empty: expected at least one token")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt} tokens; the context of {context} leaves no room for an answer"
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt: usize,
        /// Context length.
        context: usize,
    },
}
