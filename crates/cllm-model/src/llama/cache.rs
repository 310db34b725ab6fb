//! The KV cache of one sequence.
//!
//! Slots `0..len` hold the settled tokens, slot i position i. The rows of the last
//! forward lie behind them, in the order they had there, until the decoder says which of
//! them were right.

use cllm_decode::KvCache;
use cllm_kernels::{KvFormat, KvStore};

/// Keys and values of one sequence, one store per layer.
#[derive(Debug, Clone)]
pub struct LlamaCache {
    layers: Vec<KvStore>,
    len: usize,
    /// Positions of the pending rows; row i lies in slot `len + i`.
    pending: Vec<usize>,
}

impl LlamaCache {
    pub(super) fn new(layers: usize, format: KvFormat, kv_heads: usize, head_dim: usize) -> Self {
        let layers = (0..layers).map(|_| KvStore::new(format, kv_heads, head_dim)).collect();
        Self { layers, len: 0, pending: Vec::new() }
    }

    /// Makes room for the rows of a forward, by their positions, in place of those that
    /// were pending.
    pub(super) fn begin(&mut self, positions: impl Iterator<Item = usize>) {
        self.pending.clear();
        self.pending.extend(positions);
        let slots = self.len + self.pending.len();
        self.layers.iter_mut().for_each(|layer| layer.reserve(slots));
    }

    pub(super) fn layer(&self, layer: usize) -> &KvStore {
        &self.layers[layer]
    }

    pub(super) fn layer_mut(&mut self, layer: usize) -> &mut KvStore {
        &mut self.layers[layer]
    }
}

impl KvCache for LlamaCache {
    fn len(&self) -> usize {
        self.len
    }

    fn keep(&mut self, rows: &[usize]) {
        for (i, &row) in rows.iter().enumerate() {
            let to = self.len + i;
            assert_eq!(self.pending[row], to, "row {row} is appended at another position");
            // A leading run of rows is already where it belongs.
            if row != i {
                assert!(row > i, "rows are kept in ascending order");
                let from = self.len + row;
                self.layers.iter_mut().for_each(|layer| layer.copy(from, to));
            }
        }
        self.len += rows.len();
        self.pending.clear();
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_named_rows_and_forgets_the_others() {
        let mut cache = LlamaCache::new(2, KvFormat::F16, 1, 1);
        cache.begin([0, 1, 1, 2].into_iter());
        for layer in 0..2 {
            for slot in 0..4 {
                cache.layer_mut(layer).write(slot, &[slot as f32], &[10.0 + slot as f32]);
            }
        }
        cache.keep(&[0, 2, 3]);
        assert_eq!(cache.len(), 3);
        let mut want = KvStore::new(KvFormat::F16, 1, 1);
        want.reserve(4);
        for (slot, from) in [0.0, 2.0, 3.0, 3.0].into_iter().enumerate() {
            want.write(slot, &[from], &[10.0 + from]);
        }
        assert_eq!(format!("{:?}", cache.layer(1)), format!("{want:?}"));
    }

    #[test]
    fn truncate_is_absolute_and_idempotent() {
        let mut cache = LlamaCache::new(1, KvFormat::F16, 1, 1);
        cache.begin(0..5);
        cache.keep(&[0, 1, 2, 3, 4]);
        for (len, want) in [(9, 5), (3, 3), (3, 3), (4, 3), (0, 0)] {
            cache.truncate(len);
            assert_eq!(cache.len(), want);
        }
    }

    #[test]
    #[should_panic(expected = "another position")]
    fn a_row_of_another_position_cannot_be_kept() {
        let mut cache = LlamaCache::new(1, KvFormat::F16, 1, 1);
        cache.begin([0, 5].into_iter());
        cache.keep(&[0, 1]);
    }
}
