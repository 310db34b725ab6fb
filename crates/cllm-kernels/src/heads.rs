//! Between the projection to queries, keys and values and attention: norms of heads, rotation,
//! and the cache.
//!
//! Threads share heads, not rows: keys of neighbouring slots lie in one cache line
//! ([`crate::kv`]), which would otherwise go back and forth between them.

use crate::attention::HeadShape;
use crate::isa::Isa;
use crate::kv::KvStore;
use crate::norm::rms_norm_in_place;
use crate::pool::Pool;
use crate::rope::{RopeTable, rotate};
use crate::shared::Shared;

/// Elements below which a parallel step costs more than it saves.
const SERIAL: usize = 2048;

/// What heads pass through.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// How a row is divided: H query heads, and as many keys as values.
    pub shape: HeadShape,
    /// Gains of an RMSNorm of each query and each key head, shape `(head_dim,)`, as in Qwen3.
    pub norms: Option<[&'a [f32]; 2]>,
    /// Of that norm.
    pub eps: f32,
    /// Sines and cosines of every row's position, if queries and keys are turned.
    pub rope: Option<&'a RopeTable>,
}

/// Where a row stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its position, for the rotation.
    pub position: usize,
    /// Which of the stores, and which slot there, its key and value go to.
    pub store: usize,
    /// See `store`.
    pub slot: usize,
}

impl Heads<'_> {
    /// Norms and turns the queries of `qkv`, shape `(R, (H + 2 H_kv) head_dim)`, in place, and
    /// writes its keys, normed and turned, and its values to the stores.
    ///
    /// # Panics
    /// If a shape differs, a slot does not exist or two rows have the same.
    pub fn place(
        self,
        isa: Isa,
        pool: &mut Pool,
        qkv: &mut [f32],
        places: &[Place],
        stores: &mut [&mut KvStore],
    ) {
        let HeadShape { heads, kv_heads, head_dim } = self.shape;
        let (width, elements) = ((heads + 2 * kv_heads) * head_dim, qkv.len());
        assert_eq!(elements, places.len() * width, "elements of queries, keys and values");
        for (i, place) in places.iter().enumerate() {
            let store = &stores[place.store];
            assert_eq!(store.shape(), (kv_heads, head_dim), "shape of the keys");
            assert!(place.slot < store.slots(), "slot {} of {}", place.slot, store.slots());
            let same = |other: &Place| (other.store, other.slot) == (place.store, place.slot);
            debug_assert!(!places[..i].iter().any(same), "{place:?} twice");
        }
        let stores: Vec<_> = stores.iter_mut().map(|store| store.shared()).collect();
        let qkv = Shared::new(qkv);
        let part = |head: usize| {
            for (row, place) in places.iter().enumerate() {
                // SAFETY: head h of every row, and of every store, belongs to this call.
                #[expect(unsafe_code, reason = "threads write heads of their own")]
                unsafe {
                    let at = |head: usize| qkv.slice(row * width + head * head_dim, head_dim);
                    self.turn(isa, at(head), place.position, usize::from(head >= heads));
                    if head >= heads {
                        let (key, value) = (at(head), at(head + kv_heads));
                        stores[place.store].write(head - heads, place.slot, key, value);
                    }
                }
            }
        };
        if elements < SERIAL {
            (0..heads + kv_heads).for_each(part);
        } else {
            // Keys first: they take longest.
            let all = heads + kv_heads;
            pool.run(all, &|i| part(all - 1 - i));
        }
    }

    /// A head of a row; `kind` 0 is a query, 1 a key.
    fn turn(&self, isa: Isa, head: &mut [f32], position: usize, kind: usize) {
        if let Some(gains) = self.norms {
            rms_norm_in_place(isa, head, gains[kind], self.eps);
        }
        if let Some(rope) = self.rope {
            let (cos, sin) = rope.at(position);
            rotate(isa, head, cos, sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvFormat;

    #[test]
    fn threads_and_rows_change_nothing() {
        let shape = HeadShape { heads: 4, kv_heads: 2, head_dim: 32 };
        let width = (4 + 2 * 2) * 32;
        let gains: [Vec<f32>; 2] =
            std::array::from_fn(|kind| (0..32).map(|i| 1.0 + (i * kind) as f32 / 64.0).collect());
        let mut rope = RopeTable::new((0..16).map(|i| 0.5f32.powi(i)).collect());
        rope.reserve(100);
        let rows = 20;
        let before: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.37).sin()).collect();
        let place = |row: usize| Place { position: 3 * row, store: row % 2, slot: row / 2 };
        let places: Vec<Place> = (0..rows).map(place).collect();
        for (normed, turned) in [(false, false), (true, false), (false, true), (true, true)] {
            let heads = Heads {
                shape,
                norms: normed.then(|| [&gains[0][..], &gains[1][..]]),
                eps: 1e-5,
                rope: turned.then_some(&rope),
            };
            // The definition: row by row, with functions that have tests of their own.
            let (mut want, mut want_kv) = (before.clone(), [(), ()].map(|()| store(rows)));
            for (row, place) in want.chunks_exact_mut(width).zip(&places) {
                let (q, kv) = row.split_at_mut(4 * 32);
                let (k, v) = kv.split_at_mut(2 * 32);
                for (x, gain) in [(q, &gains[0]), (&mut *k, &gains[1])] {
                    if normed {
                        rms_norm_in_place(Isa::PORTABLE, x, gain, 1e-5);
                    }
                    if turned {
                        let (cos, sin) = rope.at(place.position);
                        rotate(Isa::PORTABLE, x, cos, sin);
                    }
                }
                want_kv[place.store].write(place.slot, k, v);
            }
            for (isa, threads) in Isa::available().into_iter().zip([1, 2, 3, 2, 3]) {
                let mut pool = Pool::new(threads).unwrap();
                for step in [1, 7, rows] {
                    let (mut found, mut kv) = (before.clone(), [(), ()].map(|()| store(rows)));
                    for (qkv, places) in found.chunks_mut(step * width).zip(places.chunks(step)) {
                        let [a, b] = &mut kv;
                        heads.place(isa, &mut pool, qkv, places, &mut [a, b]);
                    }
                    assert_eq!(found, want, "{isa}, {step} rows");
                    assert_eq!(format!("{kv:?}"), format!("{want_kv:?}"), "{isa}, {step} rows");
                }
            }
        }
    }

    fn store(slots: usize) -> KvStore {
        let mut kv = KvStore::new(KvFormat::F16, 2, 32);
        kv.reserve(slots);
        kv
    }
}
