//! What a forward must do at the least, and how near to it a measured time comes.
//!
//! A forward reads every weight once, and once the keys and values its rows attend to; at
//! the speed of memory that takes
//!
//! ```text
//! t_min = (weights + sequences * context * kv) / bandwidth
//! ```
//!
//! The share of a time that this explains is the *roofline* (Williams, Waterman and
//! Patterson 2009). Few rows are bound by memory and come near to 100 %; many rows are
//! bound by arithmetic and do not, so operations a second stand beside it. Their peak
//! differs by format and instruction and is not measured here. Caches are left out: a
//! model that fits into the last-level cache can exceed 100 %.

use cllm_model::ModelConfig;
use serde::Serialize;

/// What one forward of a loaded model costs at the least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Weights as stored, in bytes.
    pub(super) weight_bytes: usize,
    /// Keys and values of one position, in bytes.
    pub(super) kv_bytes: usize,
    /// Weights of the layers' matrices, as a count.
    pub(super) layer_weights: usize,
    /// Weights of the LM head, as a count.
    pub(super) head_weights: usize,
    /// Layers times query heads times width of a head: products for one key, and as many
    /// for one value.
    pub(super) attention_width: usize,
}

/// Bytes and operations of one forward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Work {
    /// Bytes read, in units of 10^6.
    pub(super) megabytes: f64,
    /// Multiplications and additions, in units of 10^9.
    pub(super) giga_operations: f64,
}

impl Cost {
    /// The counts that follow from the shapes.
    pub(super) fn new(config: &ModelConfig, weight_bytes: usize, kv_bytes: usize) -> Self {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let heads = config.num_heads * config.head_dim;
        let kv = config.num_kv_heads * config.head_dim;
        Self {
            weight_bytes,
            kv_bytes,
            layer_weights: config.num_layers * (d * (heads + 2 * kv) + heads * d + 3 * d * f),
            head_weights: config.vocab_size * d,
            attention_width: config.num_layers * heads,
        }
    }

    /// The work of `sequences` times `rows` rows after `context` cached tokens each, of
    /// which `heads` rows a sequence reach the LM head.
    pub(super) fn work(&self, context: usize, sequences: usize, rows: usize, heads: usize) -> Work {
        let real = |n: usize| n as f64;
        let bytes = real(self.weight_bytes) + real(sequences) * real(context) * real(self.kv_bytes);
        // Row i of a causal block sees the context, i rows before it and itself.
        let keys = real(rows) * (real(context) + (real(rows) + 1.0) / 2.0);
        let products = real(rows) * real(self.layer_weights)
            + real(heads) * real(self.head_weights)
            + 2.0 * keys * real(self.attention_width);
        Work { megabytes: bytes / 1e6, giga_operations: 2.0 * real(sequences) * products / 1e9 }
    }
}

impl Work {
    /// Share of `milliseconds` that reading takes at `bandwidth` bytes a second.
    pub(super) fn roofline(&self, bandwidth: f64, milliseconds: f64) -> f64 {
        self.megabytes * 1e9 / bandwidth / milliseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost {
        weight_bytes: 8_000_000,
        kv_bytes: 1000,
        layer_weights: 5_000_000,
        head_weights: 1_000_000,
        attention_width: 100,
    };

    #[test]
    fn weights_are_read_once_and_caches_once_a_sequence() {
        let megabytes = |context, sequences, rows| COST.work(context, sequences, rows, 1).megabytes;
        assert_eq!(megabytes(0, 1, 1), 8.0);
        assert_eq!(megabytes(1000, 1, 1), 9.0);
        assert_eq!(megabytes(1000, 1, 16), 9.0);
        assert_eq!(megabytes(1000, 4, 2), 12.0);
    }

    #[test]
    fn operations_grow_with_rows_and_keys() {
        let operations = |context, sequences, rows, heads| {
            1e9 * COST.work(context, sequences, rows, heads).giga_operations
        };
        // One row: 6,000,000 weights, and itself as key and value of 100 numbers each.
        assert_eq!(operations(0, 1, 1, 1), 2.0 * (6e6 + 200.0));
        // Two rows see 10 + 1 and 10 + 2 keys.
        assert_eq!(operations(10, 1, 2, 2), 2.0 * (12e6 + 200.0 * 23.0));
        assert_eq!(operations(10, 1, 2, 1), 2.0 * (11e6 + 200.0 * 23.0));
        assert_eq!(operations(10, 3, 2, 2), 3.0 * operations(10, 1, 2, 2));
    }

    #[test]
    fn the_roofline_is_the_share_that_memory_explains() {
        // 8 MB at 4 GB/s are 2 ms.
        assert_eq!(COST.work(0, 1, 1, 1).roofline(4e9, 2.0), 1.0);
        assert_eq!(COST.work(0, 1, 1, 1).roofline(4e9, 8.0), 0.25);
    }
}
