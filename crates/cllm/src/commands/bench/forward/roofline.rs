//! What a forward must do at the least, and how near to it a measured time comes.
//!
//! A forward reads every weight once, and once the keys and values its rows attend to; at
//! the speed of memory that takes
//!
//! ```text
//! t_memory = (weights + sequences * context * kv) / bandwidth
//! ```
//!
//! and multiplying takes at least `t_arithmetic = operations / peak`, where the peak is what
//! a layer in cache reaches in the format of the weights ([`crate::arithmetic`]). Neither
//! can be beaten, so `t_min = max(t_memory, t_arithmetic)`, and its share of the measured
//! time is the *roofline* (Williams, Waterman and Patterson 2009). Few rows are bound by
//! memory, many by arithmetic.
//!
//! It is a bound, not a model. Reading and multiplying are taken to overlap entirely.
//! Attention counts at the peak of the weights' format, though it always computes in f32,
//! so long contexts stay further below 100 % than they deserve. Caches are left out: a
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

/// What the machine can do at the most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ceilings {
    /// Speed of memory, in bytes a second.
    pub(super) bandwidth: f64,
    /// Multiplications and additions a second, in the format at hand.
    pub(super) peak: f64,
}

/// Which of the ceilings a forward meets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Bound {
    /// Reading takes longer.
    Memory,
    /// Multiplying takes longer.
    Arithmetic,
}

impl Bound {
    /// As in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Arithmetic => "arithmetic",
        }
    }
}

impl Work {
    /// The milliseconds that the work takes at the least, and what they go into.
    pub(super) fn least(&self, ceilings: Ceilings) -> (f64, Bound) {
        let reading = 1e9 * self.megabytes / ceilings.bandwidth;
        let multiplying = 1e12 * self.giga_operations / ceilings.peak;
        if reading >= multiplying {
            (reading, Bound::Memory)
        } else {
            (multiplying, Bound::Arithmetic)
        }
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
    fn the_least_time_is_that_of_the_longer_task() {
        // 8 MB and 12 million operations a row, and a few for the row itself.
        let work = |rows| COST.work(0, 1, rows, rows);
        let least = |rows, peak| work(rows).least(Ceilings { bandwidth: 4e9, peak });
        assert_eq!(least(1, 1e12), (2.0, Bound::Memory));
        let (ms, bound) = least(1, 1e9);
        assert_eq!((ms.round(), bound), (12.0, Bound::Arithmetic));
        assert_eq!(least(16, 1e12), (2.0, Bound::Memory));
        assert_eq!(least(16, 1e10).1, Bound::Arithmetic);
    }
}
