//! A piece of attention: some queries of neighbouring rows that share a key head.
//!
//! Three passes: scores of all keys into a buffer, softmax over it, weighted values.
//! Slots that every row of the piece sees are walked once for all its queries, in chunks
//! that stay in the first-level cache while one register tile of queries after the other
//! uses them; what a row sees alone is done for its own queries.
#![expect(unsafe_code, reason = "hands pointers into checked slices to the tiles")]

use std::ops::Range;

use half::f16;

use super::span::{Side, Span, common};
use super::tile::{ScoreTile, Softmax, TILE, ValueTile};
use super::{HeadShape, Query};
use crate::coming::Cursor;
use crate::kv::{BLOCK, Data, Head};
use crate::lanes::{self, LANES, Lanes};
use crate::simd::{Element, Simd};

/// Runs `$job` with the constant `$q` equal to `$count`, which is 1 to 6.
macro_rules! by_count {
    ($count:expr, $q:ident => $job:expr) => {
        match $count {
            1 => {
                const $q: usize = 1;
                $job
            }
            2 => {
                const $q: usize = 2;
                $job
            }
            3 => {
                const $q: usize = 3;
                $job
            }
            4 => {
                const $q: usize = 4;
                $job
            }
            5 => {
                const $q: usize = 5;
                $job
            }
            _ => {
                const $q: usize = TILE;
                $job
            }
        }
    };
}

/// Runs `$job` with the constant `$b` equal to `$wide`, which is 1 or `S::WIDE`.
macro_rules! by_width {
    ($simd:ident, $wide:expr, $b:ident => $job:expr) => {
        if $simd::WIDE == 1 || $wide == 1 {
            const $b: usize = 1;
            $job
        } else {
            const $b: usize = 4;
            $job
        }
    };
}

/// Slots per chunk of a shared walk: 16 KB of f16 keys of 64 elements.
const CHUNK: usize = 128;

/// How far a shared walk of the keys goes beyond the slots that all rows see. Scores that
/// a row has no use for are dropped; up to here that is cheaper than tiles of one row.
const OVERHANG: usize = 64;

/// The memory a thread works in.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Scaled queries of the piece, transposed, `(head_dim, queries)`.
    q: Vec<f32>,
    /// Scores, then weights, by logical index, `(queries, stride)`.
    scores: Vec<Lanes>,
    /// `(queries, head_dim padded)`.
    out: Vec<Lanes>,
    totals: Vec<f32>,
    /// What is asked for in the meantime.
    pub(super) ahead: Cursor,
}

/// Some queries that share a key head of one store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) shape: HeadShape,
    /// Rows of one sequence.
    pub(super) rows: &'a [Query<'a>],
    pub(super) kv_head: usize,
    /// First query and their number; query i is head `i % group` of the key head, in row
    /// `i / group`.
    pub(super) first: usize,
    pub(super) queries: usize,
}

impl Piece<'_> {
    /// Computes the piece; calls `write(row, head, output)` for each query.
    ///
    /// # Safety
    /// The machine has the instruction set of `S`; all slots of the spans exist in the
    /// store, which has the piece's shape, as do the queries.
    pub(super) unsafe fn run<S: Simd>(
        self,
        scratch: &mut Scratch,
        write: impl FnMut(usize, usize, &[f32]),
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rows[0].kv.data() {
                Data::F32(heads) => self.attend::<S, f32>(&heads[self.kv_head], scratch, write),
                Data::F16(heads) => self.attend::<S, f16>(&heads[self.kv_head], scratch, write),
            }
        }
    }

    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// The row of a query, counted from the piece's first query, and its head.
    fn place(&self, query: usize) -> (usize, usize) {
        let (i, group) = (self.first + query, self.group());
        (i / group, self.kv_head * group + i % group)
    }

    /// The rows of the piece, each with the queries it has in it.
    fn members(&self) -> impl Iterator<Item = (Span<'_>, Range<usize>)> {
        let (group, end) = (self.group(), self.first + self.queries);
        (self.first / group..end.div_ceil(group)).map(move |row| {
            let queries = (row * group).max(self.first)..((row + 1) * group).min(end);
            (Span::new(self.rows[row].span), queries.start - self.first..queries.end - self.first)
        })
    }

    /// # Safety
    /// As for [`Piece::run`]; `head` is the piece's, in the rows' store.
    unsafe fn attend<S: Simd, E: Element>(
        self,
        head: &Head<E>,
        scratch: &mut Scratch,
        mut write: impl FnMut(usize, usize, &[f32]),
    ) {
        let head_dim = self.shape.head_dim;
        let vectors = head_dim.div_ceil(LANES);
        let longest = self.members().map(|(span, _)| span.len()).max().unwrap_or(0);
        // An odd number of cache lines, lest equal indices of all queries fall into the
        // same set of the cache.
        let stride = longest.div_ceil(LANES) | 1;
        self.pack_queries(&mut scratch.q);
        scratch.scores.resize(self.queries * stride, Lanes::ZERO);
        scratch.out.clear();
        scratch.out.resize(self.queries * vectors, Lanes::ZERO);
        scratch.totals.resize(self.queries, 0.0);

        // SAFETY: the scratch has the shapes stated at its fields, and the rest is the
        // caller's promise.
        unsafe {
            let Scratch { q, scores, ahead, .. } = &mut *scratch;
            self.scores::<S, E>(head, q, ahead, stride, scores);
            for (span, queries) in self.members() {
                let len = span.len();
                for query in queries {
                    let scores = &mut scratch.scores[query * stride..][..len.div_ceil(LANES)];
                    lanes::flat_mut(scores)[len..].fill(f32::NEG_INFINITY);
                    S::run(Softmax { scores, total: &mut scratch.totals[query] });
                }
            }
            let Scratch { scores, out, ahead, .. } = &mut *scratch;
            self.values::<S, E>(head, ahead, stride, scores, out);
        }
        for (query, (out, total)) in
            scratch.out.chunks_exact_mut(vectors).zip(&scratch.totals).enumerate()
        {
            let out = &mut lanes::flat_mut(out)[..head_dim];
            out.iter_mut().for_each(|o| *o /= total);
            let (row, head) = self.place(query);
            write(row, head, out);
        }
    }

    /// Scales and transposes the queries.
    fn pack_queries(&self, packed: &mut Vec<f32>) {
        let head_dim = self.shape.head_dim;
        let scale = 1.0 / (head_dim as f32).sqrt();
        packed.resize(self.queries * head_dim, 0.0);
        for query in 0..self.queries {
            let (row, head) = self.place(query);
            let q = &self.rows[row].q[head * head_dim..][..head_dim];
            for (to, &q) in packed[query..].iter_mut().step_by(self.queries).zip(q) {
                *to = q * scale;
            }
        }
    }

    /// Fills `scores` for the whole span of every row.
    ///
    /// # Safety
    /// As for [`Piece::attend`].
    unsafe fn scores<S: Simd, E: Element>(
        &self,
        head: &Head<E>,
        q: &[f32],
        ahead: &mut Cursor,
        stride: usize,
        scores: &mut [Lanes],
    ) {
        let shared = common(self.members().map(|(span, _)| span));
        // With the first slots that only some of the rows see.
        let end = self.members().map(|(span, _)| span.longest().end).max().unwrap_or(0);
        let wide = shared.start..end.min(shared.end + OVERHANG);
        let mut places = [Place::default(); super::PIECE];
        for (span, queries) in self.members() {
            let own = if shared.is_empty() {
                0..0
            } else {
                shared.start..span.longest().end.min(wide.end)
            };
            // SAFETY: the caller's promise; `places` are within a query's scores.
            span.around(&own, |_, slots, logical| unsafe {
                places[queries.clone()].fill(Place { logical, end: slots.end });
                let tile = (q, stride, &places[..], &mut *scores);
                self.score_slots::<S, E>(head, ahead, slots, queries.clone(), tile);
            });
        }
        if shared.is_empty() {
            return;
        }
        for (span, queries) in self.members() {
            let logical = span.start() + shared.start - span.longest().start;
            places[queries].fill(Place { logical, end: span.longest().end.min(wide.end) });
        }
        let mut start = wide.start;
        while start < wide.end {
            let end = wide.end.min((start / CHUNK + 1) * CHUNK);
            // SAFETY: as above.
            unsafe {
                let tile = (q, stride, &places[..], &mut *scores);
                self.score_slots::<S, E>(head, ahead, start..end, 0..self.queries, tile);
            }
            for place in &mut places[..self.queries] {
                place.logical += end - start;
            }
            start = end;
        }
    }

    /// Scores of `slots` for `queries`; `places` says where they go in `scores`.
    ///
    /// # Safety
    /// As for [`Piece::attend`].
    unsafe fn score_slots<S: Simd, E: Element>(
        &self,
        head: &Head<E>,
        ahead: &mut Cursor,
        slots: Range<usize>,
        queries: Range<usize>,
        (q, stride, places, scores): (&[f32], usize, &[Place], &mut [Lanes]),
    ) {
        let head_dim = self.shape.head_dim;
        let last = slots.end.div_ceil(BLOCK);
        let keys = head.keys.as_ptr().cast::<E>();
        let mut spill = [[Lanes::ZERO; 4]; TILE];
        let mut first = queries.start;
        while first < queries.end {
            let count = TILE.min(queries.end - first);
            let places = &places[first..first + count];
            let mut block = slots.start / BLOCK;
            while block < last {
                let wide = if last - block >= S::WIDE { S::WIDE } else { 1 };
                let (from, to) = (block * BLOCK, (block + wide) * BLOCK);
                let whole = from >= slots.start && places.iter().all(|p| to <= p.end);
                let mut out = [std::ptr::null_mut::<f32>(); TILE];
                for (i, (out, place)) in out.iter_mut().zip(places).enumerate() {
                    *out = if whole {
                        let at = place.logical + from - slots.start;
                        let row = &mut scores[(first + i) * stride..][..stride];
                        lanes::flat_mut(row)[at..at + wide * BLOCK].as_mut_ptr()
                    } else {
                        lanes::flat_mut(&mut spill[i]).as_mut_ptr()
                    };
                }
                // SAFETY: `q` has `head_dim` rows of `queries`; the blocks exist; each
                // `out` has room for `wide` vectors.
                unsafe {
                    let q = q.as_ptr().add(first);
                    let k = keys.add(block * head_dim * BLOCK);
                    by_count!(count, Q => by_width!(S, wide, B => S::run(ScoreTile::<E, Q, B> {
                        q, q_step: self.queries, head_dim, k, k_step: head_dim * BLOCK,
                        ask: ahead.take(head_dim),
                        out: std::array::from_fn(|i| out[i]),
                    })));
                }
                if !whole {
                    for (i, place) in places.iter().enumerate() {
                        let seen = slots.start.max(from)..place.end.min(to).min(slots.end);
                        if !seen.is_empty() {
                            let at = place.logical + seen.start - slots.start;
                            let row = &mut scores[(first + i) * stride..][..stride];
                            lanes::flat_mut(row)[at..at + seen.len()].copy_from_slice(
                                &lanes::flat(&spill[i])[seen.start - from..seen.end - from],
                            );
                        }
                    }
                }
                block += wide;
            }
            first += count;
        }
    }

    /// Adds the weighted values of every row's span to `out`, in logical order.
    ///
    /// # Safety
    /// As for [`Piece::attend`].
    unsafe fn values<S: Simd, E: Element>(
        &self,
        head: &Head<E>,
        ahead: &mut Cursor,
        stride: usize,
        weights: &[Lanes],
        out: &mut [Lanes],
    ) {
        let shared = common(self.members().map(|(span, _)| span));
        let mut logical = [0; super::PIECE];
        let mut alone = |out: &mut [Lanes], ahead: &mut Cursor, wanted: Side| {
            for (span, queries) in self.members() {
                // SAFETY: the caller's promise.
                span.around(&shared, |side, slots, first| unsafe {
                    if side == wanted {
                        logical[queries.clone()].fill(first);
                        let tile = (weights, stride, &logical[..], &mut *out);
                        self.value_slots::<S, E>(head, ahead, slots, queries.clone(), tile);
                    }
                });
            }
        };
        alone(out, ahead, Side::Before);
        let mut places = [0; super::PIECE];
        for (span, queries) in self.members() {
            places[queries].fill(span.start() + shared.start.saturating_sub(span.longest().start));
        }
        let mut start = shared.start;
        while start < shared.end {
            let end = shared.end.min((start / CHUNK + 1) * CHUNK);
            // SAFETY: the caller's promise.
            unsafe {
                let tile = (weights, stride, &places[..], &mut *out);
                self.value_slots::<S, E>(head, ahead, start..end, 0..self.queries, tile);
            }
            places[..self.queries].iter_mut().for_each(|place| *place += end - start);
            start = end;
        }
        alone(out, ahead, Side::After);
    }

    /// Adds the weighted values of `slots` to the outputs of `queries`; the weights begin
    /// at index `logical` of each query.
    ///
    /// # Safety
    /// As for [`Piece::attend`].
    unsafe fn value_slots<S: Simd, E: Element>(
        &self,
        head: &Head<E>,
        ahead: &mut Cursor,
        slots: Range<usize>,
        queries: Range<usize>,
        (weights, stride, logical, out): (&[Lanes], usize, &[usize], &mut [Lanes]),
    ) {
        let vectors = self.shape.head_dim.div_ceil(LANES);
        let base = head.values.as_ptr().cast::<E>();
        let mut first = queries.start;
        while first < queries.end {
            let count = TILE.min(queries.end - first);
            let mut from = [std::ptr::null::<f32>(); TILE];
            for (i, from) in from.iter_mut().take(count).enumerate() {
                let (query, at) = (first + i, logical[first + i]);
                let row = lanes::flat(&weights[query * stride..][..stride]);
                *from = row[at..at + slots.len()].as_ptr();
            }
            let mut column = 0;
            while column < vectors {
                let wide = if vectors - column >= S::WIDE { S::WIDE } else { 1 };
                let mut to = [std::ptr::null_mut::<f32>(); TILE];
                for (i, to) in to.iter_mut().take(count).enumerate() {
                    let row = &mut out[(first + i) * vectors..][..vectors];
                    *to = row[column..column + wide].as_mut_ptr().cast();
                }
                // SAFETY: the slots exist, so their blocks do; weights and outputs were
                // sliced to the lengths the tile uses.
                unsafe {
                    let v = base.add((slots.start * vectors + column) * LANES);
                    by_count!(count, Q => by_width!(S, wide, B => S::run(ValueTile::<E, Q, B> {
                        weights: std::array::from_fn(|i| from[i]),
                        v, v_step: vectors * LANES,
                        slots: slots.len(),
                        ask: ahead.take(slots.len()),
                        out: std::array::from_fn(|i| to[i]),
                    })));
                }
                column += wide;
            }
            first += count;
        }
    }
}

/// Where the scores of a walk go: the logical index of its first slot, and the slot
/// before which the row stops seeing.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    logical: usize,
    end: usize,
}
