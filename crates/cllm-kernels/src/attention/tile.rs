//! The inner loops: a few queries against a few vectors of keys or values, in registers.
//!
//! Every lane of a tile is one chain of fused multiply-adds that starts at zero (or at
//! what the output holds) and runs in ascending order. No lane sees another, so a result
//! does not depend on the tile it is computed in.
#![expect(unsafe_code, reason = "raw loads and stores in the inner loops")]

use crate::coming::Ask;
use crate::kv::BLOCK;
use crate::lanes::Lanes;
use crate::math::exp_not_positive;
use crate::simd::{Element, Job, Simd};

/// Queries that a register tile holds: with four vectors of keys, 24 accumulators of the
/// 32 registers of AVX-512; with one vector (two registers), 12 of the 16 of AVX2.
pub(super) const TILE: usize = 6;

/// How many elements ahead values are prefetched: 4 KB of f16.
const AHEAD: usize = 2048;

/// Scores of `Q` queries against `B` blocks of 16 keys: `out[i][16 b + lane] = sum over d
/// of q[d][i] k[b][d][lane]`, d ascending.
pub(super) struct ScoreTile<E, const Q: usize, const B: usize> {
    /// Scaled queries, transposed: element d of query i is `q[d * q_step + i]`.
    pub(super) q: *const f32,
    pub(super) q_step: usize,
    pub(super) head_dim: usize,
    /// The first block of keys, `(head_dim, 16)`; the next ones every `k_step` elements.
    pub(super) k: *const E,
    pub(super) k_step: usize,
    /// Room for `16 B` scores of each query.
    pub(super) out: [*mut f32; Q],
    /// A line for each element.
    pub(super) ask: Ask,
}

impl<E: Element, const Q: usize, const B: usize> Job for ScoreTile<E, Q, B> {
    /// # Safety
    /// The pointers are valid for the shapes stated at the fields.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: d < head_dim, i < Q and b < B stay within the stated shapes.
        unsafe {
            let mut acc = [[S::splat(0.0); B]; Q];
            for d in 0..self.head_dim {
                S::prefetch_later(self.ask.start.wrapping_add(d * self.ask.step));
                let mut k = [S::splat(0.0); B];
                for (b, k) in k.iter_mut().enumerate() {
                    let from = self.k.add(b * self.k_step + d * BLOCK);
                    *k = E::load::<S>(from);
                    S::prefetch(from.wrapping_add(B * self.k_step));
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let q = S::splat(*self.q.add(d * self.q_step + i));
                    for (acc, &k) in acc.iter_mut().zip(&k) {
                        *acc = S::mul_add(q, k, *acc);
                    }
                }
            }
            for (acc, &out) in acc.iter().zip(&self.out) {
                for (b, &acc) in acc.iter().enumerate() {
                    S::store(out.add(b * BLOCK), acc);
                }
            }
        }
    }
}

/// Weighted values of a run of slots, added to `B` vectors of the outputs of `Q` queries:
/// `out[i] += sum over j of weights[i][j] v[first + j]`, j ascending.
pub(super) struct ValueTile<E, const Q: usize, const B: usize> {
    /// One weight per slot, for each query.
    pub(super) weights: [*const f32; Q],
    /// The value of the first slot, of which the tile reads `16 B` elements; the next
    /// ones every `v_step` elements.
    pub(super) v: *const E,
    pub(super) v_step: usize,
    pub(super) slots: usize,
    pub(super) out: [*mut f32; Q],
    /// A line for each slot.
    pub(super) ask: Ask,
}

impl<E: Element, const Q: usize, const B: usize> Job for ValueTile<E, Q, B> {
    /// # Safety
    /// The pointers are valid for the shapes stated at the fields.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: slots, queries and columns stay within the stated shapes.
        unsafe {
            let mut acc = [[S::splat(0.0); B]; Q];
            for (acc, &out) in acc.iter_mut().zip(&self.out) {
                for (b, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load(out.add(b * BLOCK));
                }
            }
            let mut row = self.v;
            for j in 0..self.slots {
                S::prefetch_later(self.ask.start.wrapping_add(j * self.ask.step));
                let mut v = [S::splat(0.0); B];
                for (b, v) in v.iter_mut().enumerate() {
                    let from = row.add(b * BLOCK);
                    *v = E::load::<S>(from);
                    S::prefetch(from.wrapping_add(AHEAD));
                }
                for (acc, &weights) in acc.iter_mut().zip(&self.weights) {
                    let weight = S::splat(*weights.add(j));
                    for (acc, &v) in acc.iter_mut().zip(&v) {
                        *acc = S::mul_add(weight, v, *acc);
                    }
                }
                row = row.wrapping_add(self.v_step);
            }
            for (acc, &out) in acc.iter().zip(&self.out) {
                for (b, &acc) in acc.iter().enumerate() {
                    S::store(out.add(b * BLOCK), acc);
                }
            }
        }
    }
}

/// Turns scores into weights, `exp(score - max)`, and leaves their sum in `total`. The
/// scores are filled up with minus infinity, which weighs nothing.
pub(super) struct Softmax<'a> {
    pub(super) scores: &'a mut [Lanes],
    pub(super) total: &'a mut f32,
}

impl Job for Softmax<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // A plain comparison is one instruction where `f32::max` is four. It differs for
        // NaN, which makes the total NaN either way.
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        let mut max = [f32::NEG_INFINITY; BLOCK];
        for scores in self.scores.iter() {
            for (max, &score) in max.iter_mut().zip(&scores.0) {
                *max = larger(score, *max);
            }
        }
        let max = max.into_iter().fold(f32::NEG_INFINITY, larger);
        let mut total = Lanes::ZERO;
        for scores in self.scores.iter_mut() {
            for (score, total) in scores.0.iter_mut().zip(&mut total.0) {
                *score = exp_not_positive(*score - max);
                *total += *score;
            }
        }
        *self.total = total.sum();
    }
}
