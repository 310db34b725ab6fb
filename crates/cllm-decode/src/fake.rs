//! Small deterministic models that punish mistakes, for tests.
//!
//! A [`Fake`] has no weights, but it honours the whole contract of [`CausalLm`]. An entry of
//! its cache is a token with a *state*, a hash of the token and of all states its row
//! saw; so, as in a real network, an entry remembers the text it was computed in. A
//! decoder that shows a row the wrong span, keeps a row that saw a wrong guess, or asks
//! at a wrong position gets an error, a panic or another answer, never the right one by
//! luck of a forgiving model.
//!
//! [`Fake::next`] is the same model as a pure function of the text, in a form that knows
//! no rows and no caches: what tests compare with.

use crate::batch::{Batch, Want};
use crate::counter::hash;
use crate::fixed_point::TriangularSystem;
use crate::lm::{CausalLm, KvCache, LmError, Output, Token, argmax};

/// What a fake says after a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A hash of everything before: no guess is right but by luck, and a wrong token
    /// anywhere changes all that follows. With a small vocabulary luck is common.
    ContextHash(u64),
    /// A hash of the last `order` tokens: right again as soon as the last few are, so
    /// tokens settle behind wrong ones.
    Markov {
        /// Tokens looked at.
        order: usize,
        /// Seed of the hash.
        seed: u64,
    },
    /// The last token plus one, modulo `period`: guesses from the text are mostly wrong,
    /// and states of the Jacobi iteration chase each other.
    Cycle(Token),
    /// The token `distance` back: n-gram drafts are right once the text repeats.
    Copy(usize),
    /// Always this token.
    Constant(Token),
    /// A hash of everything before, but this token half of the time: an end of text
    /// everywhere, in the middle of every block.
    Half {
        /// The frequent token.
        token: Token,
        /// Seed of the hash.
        seed: u64,
    },
    /// Each place has a token of its own, said after `percent` of all tokens; after the others
    /// comes a hash of place and token. Guesses get better with each iteration
    /// they go through, as those of a consistency model do.
    Ripening {
        /// Share of the tokens after which a place says its own, from 0 to 100.
        percent: u8,
        /// Seed of the hash.
        seed: u64,
    },
}

/// A fake model.
#[derive(Debug, Clone)]
pub struct Fake {
    /// What it says.
    pub kind: Kind,
    /// Vocabulary size, at least 1.
    pub vocab: usize,
    /// Context length.
    pub context: usize,
    /// The position whose logits are NaN, if any.
    pub nan_at: Option<usize>,
    /// Forwards run so far.
    pub forwards: usize,
    /// What a forward costs, by its number and its rows; without it the model has no clock.
    pub costs: Option<fn(usize, usize) -> f64>,
    /// What the forwards so far cost.
    pub time: f64,
}

impl Fake {
    /// A model without a flaw.
    pub fn new(kind: Kind, vocab: usize, context: usize) -> Self {
        Self { kind, vocab, context, nan_at: None, forwards: 0, costs: None, time: 0.0 }
    }

    /// The token after `text`, which is not empty.
    pub fn next(&self, text: &[Token]) -> Token {
        self.choose(text, state_of(text))
    }

    /// The logits after `text`, which is not empty; shape `(vocab,)`.
    pub fn logits(&self, text: &[Token]) -> Vec<f32> {
        let mut logits = vec![0.0; self.vocab];
        fill(&mut logits, state_of(text), self.next(text));
        logits
    }

    /// What `tokens`, the visible tokens in order, and `state`, that of the last of them,
    /// lead to.
    fn choose(&self, tokens: &[Token], state: u64) -> Token {
        let any = |word: u64| (word % self.vocab as u64) as Token;
        match self.kind {
            Kind::ContextHash(seed) => any(hash(seed, state)),
            Kind::Markov { order, seed } => {
                let last = &tokens[tokens.len().saturating_sub(order)..];
                any(last.iter().fold(seed, |word, &t| hash(word, u64::from(t))))
            }
            Kind::Cycle(period) => any(u64::from((tokens[tokens.len() - 1] + 1) % period)),
            Kind::Copy(distance) => tokens[tokens.len().saturating_sub(distance.max(1))],
            Kind::Constant(token) => any(u64::from(token)),
            Kind::Half { token, seed } => {
                let word = hash(seed, state);
                if word >> 63 == 0 { any(u64::from(token)) } else { any(word) }
            }
            Kind::Ripening { percent, seed } => {
                let own = hash(seed, tokens.len() as u64);
                let word = hash(own, u64::from(tokens[tokens.len() - 1]));
                any(if word % 100 < u64::from(percent) { own } else { word })
            }
        }
    }
}

/// The state of the last token of `text`.
fn state_of(text: &[Token]) -> u64 {
    let (mut seen, mut state) = (0, 0);
    for &token in text {
        state = hash(seen, u64::from(token));
        seen = hash(seen, state);
    }
    state
}

/// Logits after a row with `state`: noise, and `next` above all.
fn fill(logits: &mut [f32], state: u64, next: Token) {
    for (token, logit) in logits.iter_mut().enumerate() {
        *logit = hash(state, token as u64) as f32 / u64::MAX as f32;
    }
    logits[next as usize] += 1.5;
}

/// What a row leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    token: Token,
    state: u64,
}

impl Entry {
    /// A row with `token` that saw `entries`.
    fn after<'a>(entries: impl IntoIterator<Item = &'a Self>, token: Token) -> Self {
        let seen = entries.into_iter().fold(0, |seen, entry| hash(seen, entry.state));
        Self { token, state: hash(seen, u64::from(token)) }
    }
}

/// The cache of a [`Fake`].
#[derive(Debug, Clone, Default)]
pub struct FakeCache {
    entries: Vec<Entry>,
    pending: Vec<Entry>,
}

impl FakeCache {
    /// The tokens held.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.entries.iter().map(|entry| entry.token)
    }
}

impl KvCache for FakeCache {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn keep(&mut self, rows: &[usize]) {
        assert!(rows.is_sorted_by(|a, b| a < b), "keep: rows {rows:?} are not ascending");
        let pending = std::mem::take(&mut self.pending);
        for &row in rows {
            assert!(row < pending.len(), "keep: row {row} of {} pending", pending.len());
            let entry = pending[row];
            let expected = Entry::after(&self.entries, entry.token);
            assert_eq!(
                entry,
                expected,
                "keep: row {row} saw another text than the {} entries before it",
                self.entries.len()
            );
            self.entries.push(entry);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
        self.pending.clear();
    }
}

impl CausalLm for Fake {
    type Cache = FakeCache;

    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn new_cache(&self) -> FakeCache {
        FakeCache::default()
    }

    fn forward(
        &mut self,
        batch: &Batch,
        caches: &mut [&mut FakeCache],
        output: &mut Output,
    ) -> Result<(), LmError> {
        let lens: Vec<usize> = caches.iter().map(|cache| cache.len()).collect();
        batch.validate(&lens, self.vocab, self.context)?;
        if let Some(costs) = self.costs {
            self.time += costs(self.forwards, batch.len());
        }
        self.forwards += 1;
        output.reset(batch.len(), self.vocab);
        let mut rows: Vec<Entry> = Vec::with_capacity(batch.len());
        for (i, row) in batch.rows().iter().enumerate() {
            if let Some(adapter) = row.adapter {
                return Err(LmError::UnknownAdapter(adapter));
            }
            let mut visible = caches[row.sequence].entries[..row.prefix].to_vec();
            for peers in batch.peers(i) {
                visible.extend_from_slice(&rows[peers.clone()]);
            }
            if visible.len() != row.position {
                let what = format!("position {} sees {} tokens", row.position, visible.len());
                return Err(LmError::BadBatch { row: i, what });
            }
            let entry = Entry::after(&visible, row.token);
            visible.push(entry);
            rows.push(entry);
            if row.want == Want::Nothing {
                continue;
            }
            if self.nan_at == Some(row.position) {
                return Err(LmError::NotFinite { position: row.position });
            }
            let tokens: Vec<Token> = visible.iter().map(|entry| entry.token).collect();
            let next = self.choose(&tokens, entry.state);
            if row.want == Want::Logits {
                let logits = output.logits_mut(i);
                fill(logits, entry.state, next);
                debug_assert_eq!(argmax(logits), Some(next));
            }
            output.set_argmax(i, next);
        }
        for cache in caches.iter_mut() {
            cache.pending.clear();
        }
        for (row, entry) in batch.rows().iter().zip(rows) {
            caches[row.sequence].pending.push(entry);
        }
        Ok(())
    }

    fn now(&self) -> Option<f64> {
        self.costs.map(|_| self.time)
    }
}

/// The answer of a fake as a triangular system: unknown i is the i-th token after
/// `prompt`, and equation i says that it is what the model says after those before it.
#[derive(Debug, Clone)]
pub struct AnswerSystem<'a> {
    /// The model.
    pub fake: &'a Fake,
    /// What the answer follows; not empty.
    pub prompt: &'a [Token],
}

impl TriangularSystem for AnswerSystem<'_> {
    type Value = Token;

    fn evaluate(&self, before: &[Token]) -> Token {
        self.fake.next(&[self.prompt, before].concat())
    }
}
