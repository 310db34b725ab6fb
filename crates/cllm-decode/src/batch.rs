//! What one forward computes: rows of one or several sequences.
//!
//! A *row* is one token at one position. What it attends to, its *span*, is
//!
//! 1. the first [`Row::prefix`] entries of its sequence's KV cache, then
//! 2. its *peers*: named earlier rows of this same forward, in ascending order, then
//! 3. itself.
//!
//! That one rule covers every layout the project needs: autoregressive decoding is one
//! row with no peers; a Jacobi block or a prefill chunk is n rows where row i has peers
//! `0..i`; lookahead branches, token trees and the packed noisy blocks of trajectory
//! collection name the rows they may see. Rows of several sequences travel together by
//! naming different caches.
//!
//! **The law**: the result of a row depends on its tokens, positions and span only, to
//! the last bit; never on which other rows are present, on their number, or on whether
//! a key it sees comes from the cache or from a row of this forward.

use std::ops::Range;

use crate::lm::{LmError, Token};

/// A low-rank adapter known to the model, added to the rows that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdapterId(pub u16);

/// What a forward returns for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nothing: the row is there for its keys and values (prefill).
    Nothing,
    /// The token with the highest logit; the lowest id among equals.
    Argmax,
    /// All logits, and the argmax with them.
    Logits,
}

/// One token at one position, with what it may see and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Index into the caches given to the forward.
    pub sequence: usize,
    /// The token that enters the network here.
    pub token: Token,
    /// Its position in the text, from 0. Several rows may share one.
    pub position: usize,
    /// How many entries of its sequence's KV cache it attends to, from the first.
    pub prefix: usize,
    /// What to return.
    pub want: Want,
    /// The adapter to add, if any.
    pub adapter: Option<AdapterId>,
}

/// The rows of one forward. Reusable: `clear` keeps the allocations.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    rows: Vec<Row>,
    /// The peers of all rows, one after another, as ranges of row indices.
    peers: Vec<Range<usize>>,
    /// `peers[ends[i - 1]..ends[i]]` are the peers of row i.
    ends: Vec<usize>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.peers.clear();
        self.ends.clear();
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, in the order they were pushed.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The earlier rows that row `i` attends to, as ascending disjoint ranges of row
    /// indices. Row `i` itself is not among them: it always sees itself, last.
    pub fn peers(&self, i: usize) -> &[Range<usize>] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.peers[start..self.ends[i]]
    }

    /// Asks for all logits of those of `rows` that ask for the argmax.
    pub fn want_logits(&mut self, rows: Range<usize>) {
        for row in &mut self.rows[rows] {
            if row.want == Want::Argmax {
                row.want = Want::Logits;
            }
        }
    }

    /// The tokens of the rows that row `i` sees, its own last: what stands after the first
    /// [`prefix`](Row::prefix) tokens in the text that it is computed for.
    pub fn tokens(&self, i: usize) -> impl Iterator<Item = Token> + Clone + '_ {
        let peers = self.peers(i).iter().flat_map(|peers| &self.rows[peers.clone()]);
        peers.chain(std::iter::once(&self.rows[i])).map(|row| row.token)
    }

    /// The number of keys row `i` attends to: prefix, peers and itself.
    pub fn span_len(&self, i: usize) -> usize {
        self.rows[i].prefix + self.peers(i).iter().map(Range::len).sum::<usize>() + 1
    }

    /// Adds a row that sees `peers` (ranges of earlier row indices) and returns its index.
    pub fn push(&mut self, row: Row, peers: &[Range<usize>]) -> usize {
        self.rows.push(row);
        self.peers.extend(peers.iter().filter(|r| !r.is_empty()).cloned());
        self.ends.push(self.peers.len());
        self.rows.len() - 1
    }

    /// Adds `tokens` as consecutive rows after the first `prefix` cache entries of
    /// `sequence`, each seeing all before it: a prefill chunk or a Jacobi block. `want`
    /// maps the index within `tokens` to what is asked. Returns the rows' indices.
    pub fn push_causal(
        &mut self,
        sequence: usize,
        prefix: usize,
        tokens: impl IntoIterator<Item = Token>,
        mut want: impl FnMut(usize) -> Want,
    ) -> Range<usize> {
        let first = self.rows.len();
        for (i, token) in tokens.into_iter().enumerate() {
            let row =
                Row { sequence, token, position: prefix + i, prefix, want: want(i), adapter: None };
            #[expect(
                clippy::single_range_in_vec_init,
                reason = "one range of peers is meant, not its elements"
            )]
            self.push(row, &[first..first + i]);
        }
        first..self.rows.len()
    }

    /// Checks what every model relies on: sequences exist, prefixes lie in their caches,
    /// peers are ascending, disjoint, earlier and of the same sequence, tokens lie in the
    /// vocabulary and positions in the context. `cached` holds each sequence's cache length.
    ///
    /// Models call this first, so that an inconsistent batch is an error and not a
    /// wrong answer.
    pub fn validate(&self, cached: &[usize], vocab: usize, context: usize) -> Result<(), LmError> {
        let bad = |row: usize, what: String| Err(LmError::BadBatch { row, what });
        // First row of the run of rows of one sequence that row i is in. Peers that begin
        // there or later need no look at each: a prefill chunk is checked in linear time.
        let mut run = 0;
        for (i, row) in self.rows.iter().enumerate() {
            if self.rows[run].sequence != row.sequence {
                run = i;
            }
            let Some(&len) = cached.get(row.sequence) else {
                return bad(
                    i,
                    format!("sequence {} of {} caches given", row.sequence, cached.len()),
                );
            };
            if row.prefix > len {
                return bad(i, format!("prefix {} of a cache that holds {len}", row.prefix));
            }
            if row.token as usize >= vocab {
                return Err(LmError::UnknownToken { token: row.token, vocab });
            }
            if row.position >= context {
                return Err(LmError::ContextFull { position: row.position, context });
            }
            let mut next = 0;
            for peers in self.peers(i) {
                if peers.start < next || peers.end > i {
                    return bad(i, format!("peers {peers:?} out of order or not before it"));
                }
                let mut outside = peers.start..peers.end.min(run);
                if outside.any(|p| self.rows[p].sequence != row.sequence) {
                    return bad(i, format!("peers {peers:?} belong to another sequence"));
                }
                next = peers.end;
            }
        }
        Ok(())
    }
}
