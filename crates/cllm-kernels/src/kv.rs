//! Keys and values of one layer and one sequence.
//!
//! A store is an array of slots. Which slots are settled, which belong to the running
//! forward and which are free is the model's business; the store only knows how a slot
//! is laid out, so that the layout can change together with the attention that reads it.
//!
//! Each head has two arrays of its own, because attention reads one head at a time and
//! memory is read fastest in long runs. Keys are transposed in blocks of 16 slots, so that
//! one vector load brings the same element of 16 keys, and 16 scores are made without a
//! horizontal sum; values are rows, because their weighted sum runs over slots:
//!
//! ```text
//! keys    [block][head_dim][16 slots]
//! values  [slot][head_dim, padded to a multiple of 16]
//! ```
//!
//! Elements are f16 or f32 ([`KvFormat`]). Half precision halves what a long context
//! costs in memory and in bandwidth; f32 keeps a reference computation exact. Conversion
//! rounds to nearest even. A magnitude above 65,504 becomes an infinity in f16, and the
//! logits that depend on it are then not finite, which the model reports.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::linear::Format;
use crate::shared::Shared;

/// Slots per block, and elements per vector.
pub(crate) const BLOCK: usize = 16;

/// The element type of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 4 bytes an element; the reference.
    F32,
    /// 2 bytes an element, IEEE half precision, widened to f32 before it is used.
    F16,
}

impl KvFormat {
    /// What goes with weights of a format: f32 beside f32, where all is to be exact, and
    /// f16 beside every format that rounds.
    pub fn beside(weights: Format) -> Self {
        if weights == Format::F32 { Self::F32 } else { Self::F16 }
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

/// Keys and values by slot.
#[derive(Debug, Clone)]
pub struct KvStore {
    kv_heads: usize,
    head_dim: usize,
    blocks: usize,
    data: Data,
}

/// Keys and values in one of the element types.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    F32(Vec<Head<f32>>),
    F16(Vec<Head<f16>>),
}

/// The heads of a store, for several threads.
pub(crate) enum SharedHeads<'a> {
    F32(Shared<'a, Head<f32>>),
    F16(Shared<'a, Head<f16>>),
}

impl SharedHeads<'_> {
    /// Writes one head of a slot, `(head_dim,)` each, as [`KvStore::write`] does.
    ///
    /// # Safety
    /// No other thread touches this head at the same time.
    #[expect(unsafe_code, reason = "the caller promises disjoint places")]
    pub(crate) unsafe fn write(&self, head: usize, slot: usize, key: &[f32], value: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(heads) => heads.slice(head, 1)[0].write(slot, (key, value)),
                Self::F16(heads) => heads.slice(head, 1)[0].write(slot, (key, value)),
            }
        }
    }
}

/// The two arrays of the module's picture.
#[derive(Debug, Clone)]
pub(crate) struct Head<T> {
    pub(crate) keys: Vec<Sixteen<T>>,
    pub(crate) values: Vec<Sixteen<T>>,
}

/// One vector of elements. Aligned so that a vector of f16 never crosses a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Sixteen<T>(pub(crate) [T; BLOCK]);

impl KvStore {
    /// An empty store for slots of `kv_heads` keys and values of `head_dim` elements.
    pub fn new(format: KvFormat, kv_heads: usize, head_dim: usize) -> Self {
        let data = match format {
            KvFormat::F32 => Data::F32(Head::empty(kv_heads)),
            KvFormat::F16 => Data::F16(Head::empty(kv_heads)),
        };
        Self { kv_heads, head_dim, blocks: 0, data }
    }

    /// Makes sure that slots `0..slots` exist; keeps what they hold.
    pub fn reserve(&mut self, slots: usize) {
        let blocks = slots.div_ceil(BLOCK);
        if blocks > self.blocks {
            self.blocks = blocks;
            let keys = blocks * self.head_dim;
            let values = blocks * BLOCK * self.head_dim.div_ceil(BLOCK);
            match &mut self.data {
                Data::F32(heads) => heads.iter_mut().for_each(|h| h.grow(keys, values, 0.0)),
                Data::F16(heads) => heads.iter_mut().for_each(|h| h.grow(keys, values, f16::ZERO)),
            }
        }
    }

    /// Writes a slot: rotated keys and values, shape `(kv_heads, head_dim)` each.
    ///
    /// # Panics
    /// If the slot does not exist or a shape differs.
    pub fn write(&mut self, slot: usize, key: &[f32], value: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        assert_eq!((key.len(), value.len()), (width, width), "elements of a slot");
        self.check(slot);
        let pairs = key.chunks_exact(self.head_dim).zip(value.chunks_exact(self.head_dim));
        match &mut self.data {
            Data::F32(heads) => heads.iter_mut().zip(pairs).for_each(|(h, kv)| h.write(slot, kv)),
            Data::F16(heads) => heads.iter_mut().zip(pairs).for_each(|(h, kv)| h.write(slot, kv)),
        }
    }

    /// For writing heads from several threads.
    pub(crate) fn shared(&mut self) -> SharedHeads<'_> {
        match &mut self.data {
            Data::F32(heads) => SharedHeads::F32(Shared::new(heads)),
            Data::F16(heads) => SharedHeads::F16(Shared::new(heads)),
        }
    }

    /// Copies slot `from` over slot `to`.
    ///
    /// # Panics
    /// If one of them does not exist.
    pub fn copy(&mut self, from: usize, to: usize) {
        self.check(from);
        self.check(to);
        let head_dim = self.head_dim;
        match &mut self.data {
            Data::F32(heads) => heads.iter_mut().for_each(|h| h.copy(head_dim, from, to)),
            Data::F16(heads) => heads.iter_mut().for_each(|h| h.copy(head_dim, from, to)),
        }
    }

    /// Bytes that one slot takes.
    pub fn slot_bytes(format: KvFormat, kv_heads: usize, head_dim: usize) -> usize {
        let element = match format {
            KvFormat::F32 => size_of::<f32>(),
            KvFormat::F16 => size_of::<f16>(),
        };
        kv_heads * (head_dim + head_dim.next_multiple_of(BLOCK)) * element
    }

    /// `(kv_heads, head_dim)`.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.kv_heads, self.head_dim)
    }

    /// Slots that exist.
    pub(crate) fn slots(&self) -> usize {
        self.blocks * BLOCK
    }

    pub(crate) fn data(&self) -> &Data {
        &self.data
    }

    fn check(&self, slot: usize) {
        assert!(slot < self.slots(), "slot {slot} of {}", self.slots());
    }
}

impl<T: Stored> Head<T> {
    fn empty(heads: usize) -> Vec<Self> {
        (0..heads).map(|_| Self { keys: Vec::new(), values: Vec::new() }).collect()
    }

    fn grow(&mut self, keys: usize, values: usize, zero: T) {
        self.keys.resize(keys, Sixteen([zero; BLOCK]));
        self.values.resize(values, Sixteen([zero; BLOCK]));
    }

    fn write(&mut self, slot: usize, (key, value): (&[f32], &[f32])) {
        let (block, lane) = (slot / BLOCK, slot % BLOCK);
        let columns = self.keys[block * key.len()..][..key.len()].chunks_mut(BLOCK);
        for (columns, key) in columns.zip(key.chunks(BLOCK)) {
            let narrow = T::narrow(key);
            for (column, &element) in columns.iter_mut().zip(&narrow) {
                column.0[lane] = element;
            }
        }
        let vectors = value.len().div_ceil(BLOCK);
        let row = &mut self.values[slot * vectors..][..vectors];
        for (vector, value) in row.iter_mut().zip(value.chunks(BLOCK)) {
            vector.0 = T::narrow(value);
        }
    }

    fn copy(&mut self, head_dim: usize, from: usize, to: usize) {
        let first = |slot: usize| slot / BLOCK * head_dim;
        for d in 0..head_dim {
            let element = self.keys[first(from) + d].0[from % BLOCK];
            self.keys[first(to) + d].0[to % BLOCK] = element;
        }
        let vectors = head_dim.div_ceil(BLOCK);
        self.values.copy_within(from * vectors..(from + 1) * vectors, to * vectors);
    }
}

/// An element type of a store.
pub(crate) trait Stored: Copy {
    /// Up to 16 floats rounded to this type, the rest zero.
    fn narrow(x: &[f32]) -> [Self; BLOCK];
}

impl Stored for f32 {
    fn narrow(x: &[f32]) -> [Self; BLOCK] {
        let mut out = [0.0; BLOCK];
        out[..x.len()].copy_from_slice(x);
        out
    }
}

impl Stored for f16 {
    fn narrow(x: &[f32]) -> [Self; BLOCK] {
        let mut out = [Self::ZERO; BLOCK];
        // Uses the machine's instruction where there is one.
        out[..x.len()].convert_from_f32_slice(x);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and value of a slot, read through the layout as the module states it.
    fn read(kv: &KvStore, slot: usize) -> (Vec<f32>, Vec<f32>) {
        let (heads, dim) = kv.shape();
        let padded = dim.next_multiple_of(16);
        let element = |value: bool, head: usize, index: usize| match (kv.data(), value) {
            (Data::F32(h), false) => h[head].keys[index / 16].0[index % 16],
            (Data::F32(h), true) => h[head].values[index / 16].0[index % 16],
            (Data::F16(h), false) => h[head].keys[index / 16].0[index % 16].to_f32(),
            (Data::F16(h), true) => h[head].values[index / 16].0[index % 16].to_f32(),
        };
        let all = (0..heads).flat_map(|h| (0..dim).map(move |d| (h, d)));
        all.map(|(h, d)| {
            let key = element(false, h, (slot / 16 * dim + d) * 16 + slot % 16);
            (key, element(true, h, slot * padded + d))
        })
        .unzip()
    }

    #[test]
    fn slots_are_written_copied_and_kept_when_the_store_grows() {
        for format in [KvFormat::F32, KvFormat::F16] {
            for (heads, dim) in [(1, 1), (2, 16), (3, 20), (1, 64)] {
                let width = heads * dim;
                // Integers below 2048 are exact in f16.
                let slot = |s: usize| -> (Vec<f32>, Vec<f32>) {
                    let at = |i: usize| ((s * 31 + i * 7) % 1024) as f32;
                    ((0..width).map(at).collect(), (0..width).map(|i| -1.0 - at(i)).collect())
                };
                let mut kv = KvStore::new(format, heads, dim);
                kv.reserve(20);
                for s in 0..20 {
                    kv.write(s, &slot(s).0, &slot(s).1);
                }
                kv.copy(19, 2);
                kv.copy(5, 17);
                kv.reserve(100);
                kv.reserve(1);
                for s in 0..20 {
                    let from = [(2, 19), (17, 5)].iter().find(|c| c.0 == s).map_or(s, |c| c.1);
                    assert_eq!(read(&kv, s), slot(from), "slot {s}, {format}, {heads} x {dim}");
                }
                assert_eq!(kv.slots(), 112);
                let bytes: usize = match kv.data() {
                    Data::F32(h) => h.iter().map(|h| (h.keys.len() + h.values.len()) * 64).sum(),
                    Data::F16(h) => h.iter().map(|h| (h.keys.len() + h.values.len()) * 32).sum(),
                };
                assert_eq!(bytes, 112 * KvStore::slot_bytes(format, heads, dim));
            }
        }
    }

    #[test]
    fn half_precision_rounds_to_nearest_even() {
        // All exponents, ties, subnormals, the largest numbers, infinities.
        let mut bits = 0u32;
        while bits < 0xff80_0000 {
            let x = f32::from_bits(bits);
            if !x.is_nan() {
                let want = f16::from_f32_const(x);
                assert_eq!(f16::narrow(&[x])[0].to_bits(), want.to_bits(), "{x:e}");
            }
            bits += 0x800;
        }
        assert_eq!(f16::narrow(&[65_520.0])[0], f16::INFINITY);
        assert_eq!(f16::narrow(&[1.0 + 1.0 / 2048.0])[0], f16::ONE);
    }
}
