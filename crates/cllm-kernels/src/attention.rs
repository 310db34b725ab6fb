//! Attention of rows over the keys each may see.
//!
//! The keys of a row form one logical list: cache prefix, peers, itself. They are named
//! by ranges of *slots* in the sequence's key and value arrays, where the rows of the
//! running forward lie behind the settled ones. Every operation is ordered by the index
//! in the logical list, so it makes no difference whether a key was settled long ago or
//! stands in this same forward: prefill in any chunks gives the same bits.

use std::cell::RefCell;
use std::ops::Range;

use crate::isa::{Isa, multiversion};
use crate::kv::KvStore;
use crate::lanes::{dot, sum};
use crate::math::exp;
use crate::pool::Pool;

/// How a row of queries, keys or values is divided into heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads, H; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads in turn.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

/// One row's queries and what they look at.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Rotated queries, shape `(H, head_dim)`.
    pub q: &'a [f32],
    /// The keys and values of its sequence in this layer.
    pub kv: &'a KvStore,
    /// The slots it sees, in logical order.
    pub span: &'a [Range<usize>],
}

/// Attention of all rows: `out = softmax(q K^T / sqrt(head_dim)) V` per head; `out` has
/// shape `(R, H, head_dim)`.
pub fn attention(isa: Isa, pool: &mut Pool, shape: HeadShape, rows: &[Query<'_>], out: &mut [f32]) {
    let HeadShape { heads, kv_heads, head_dim } = shape;
    assert_eq!(out.len(), rows.len() * heads * head_dim);
    let group = heads / kv_heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    // One piece is the query heads of one row that share a key head.
    pool.for_each_chunk(out, group * head_dim, &|i, out| {
        let (row, kv_head) = (&rows[i / kv_heads], i % kv_heads);
        let head = HeadView {
            keys: row.kv.keys(),
            values: row.kv.values(),
            width: kv_heads * head_dim,
            offset: kv_head * head_dim,
        };
        let queries = row.q[kv_head * group * head_dim..].chunks_exact(head_dim);
        SCORES.with_borrow_mut(|scores| {
            for (q, out) in queries.zip(out.chunks_exact_mut(head_dim)) {
                attend(isa, q, head, row.span, scale, scores, out);
            }
        });
    });
}

thread_local! {
    /// Scratch: the scores of the head in work, one per key.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// One key head of a store: it occupies `offset..offset + head_dim` of each slot.
#[derive(Debug, Clone, Copy)]
struct HeadView<'a> {
    /// `(slots, width)`, row-major.
    keys: &'a [f32],
    values: &'a [f32],
    width: usize,
    offset: usize,
}

impl HeadView<'_> {
    #[inline(always)]
    fn key(&self, slot: usize, head_dim: usize) -> &[f32] {
        &self.keys[slot * self.width + self.offset..][..head_dim]
    }

    #[inline(always)]
    fn value(&self, slot: usize, head_dim: usize) -> &[f32] {
        &self.values[slot * self.width + self.offset..][..head_dim]
    }
}

multiversion! {
    /// `out = softmax(scale q K^T) V` over the slots in `span`, in that order. `q` and
    /// `out` have shape `(head_dim,)`; `scores` is scratch.
    fn attend(
        q: &[f32],
        head: HeadView<'_>,
        span: &[Range<usize>],
        scale: f32,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        scores.clear();
        for slot in span.iter().cloned().flatten() {
            scores.push(dot(q, head.key(slot, q.len())) * scale);
        }
        // The maximum does not depend on the order it is taken in.
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for score in scores.iter_mut() {
            *score = exp(*score - max);
        }
        let total = sum(scores);
        out.fill(0.0);
        for (slot, &weight) in span.iter().cloned().flatten().zip(scores.iter()) {
            for (o, &v) in out.iter_mut().zip(head.value(slot, q.len())) {
                *o = weight.mul_add(v, *o);
            }
        }
        for o in out.iter_mut() {
            *o /= total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_formula_and_ignores_slots_outside_the_span() {
        let (slots, width, offset, head_dim) = (40, 24, 8, 8);
        let data = |phase: f32| -> Vec<f32> {
            (0..slots * width).map(|i| (i as f32 * 0.77 + phase).sin()).collect()
        };
        let (k, mut v) = (data(0.0), data(1.0));
        v[5 * width..6 * width].fill(f32::NAN); // slot 5 is not in the span
        let q: Vec<f32> = (0..head_dim).map(|i| (i as f32).cos()).collect();
        let span = [0..5, 6..9, 30..37, 39..40];
        let mut first = None;
        for isa in Isa::available() {
            let mut out = vec![0.0; head_dim];
            let head = HeadView { keys: &k, values: &v, width, offset };
            attend(isa, &q, head, &span, 0.5, &mut Vec::new(), &mut out);
            let at = |data: &[f32], s: usize, d: usize| f64::from(data[s * width + offset + d]);
            let weights: Vec<(usize, f64)> = span
                .iter()
                .cloned()
                .flatten()
                .map(|s| {
                    let score: f64 = (0..head_dim).map(|d| f64::from(q[d]) * at(&k, s, d)).sum();
                    (s, (score * 0.5).exp())
                })
                .collect();
            let total: f64 = weights.iter().map(|w| w.1).sum();
            for (d, &o) in out.iter().enumerate() {
                let want: f64 = weights.iter().map(|&(s, w)| w / total * at(&v, s, d)).sum();
                assert!((f64::from(o) - want).abs() < 1e-5);
            }
            assert_eq!(*first.get_or_insert_with(|| out.clone()), out, "{isa}");
        }
    }

    #[test]
    fn depends_on_the_logical_order_only() {
        // The same keys in other slots: as if settled in the cache or pending behind it.
        let (width, head_dim) = (4, 4);
        let rows: Vec<[f32; 4]> =
            (0..9).map(|i| std::array::from_fn(|d| (i as f32 * 1.1 + d as f32).sin())).collect();
        let dense: Vec<f32> = rows.iter().flatten().copied().collect();
        let mut spread = vec![f32::NAN; 20 * width];
        let slots = [0, 1, 2, 3, 10, 11, 12, 17, 19];
        for (row, slot) in rows.iter().zip(slots) {
            spread[slot * width..][..width].copy_from_slice(row);
        }
        let q = [0.3, -0.2, 0.9, 0.1];
        for isa in Isa::available() {
            let run = |data: &[f32], span: &[Range<usize>]| {
                let head = HeadView { keys: data, values: data, width, offset: 0 };
                let mut out = [0.0; 4];
                attend(isa, &q, head, span, 0.5, &mut Vec::new(), &mut out[..head_dim]);
                out.map(f32::to_bits)
            };
            #[expect(clippy::single_range_in_vec_init, reason = "a span of one range")]
            let one = run(&dense, &[0..9]);
            assert_eq!(one, run(&spread, &[0..4, 10..13, 17..18, 19..20]));
        }
    }
}
