//! Linear layers: `y = x W^T`, with W stored as the files store it, one output per row.
//!
//! This is the seam behind which storage formats and fast kernels live. A [`Linear`] is
//! packed once at load; [`Linear::apply`] and [`Linear::argmax`] take any number of rows
//! of f32 activations. Callers never see the format.
//!
//! Every output is one dot product in the canonical order of [`crate::lanes`], so it does
//! not depend on the tile its row or its column falls into: row invariance by
//! construction. Tiles only decide how often a weight is loaded: with R rows in flight,
//! once per R rows.

mod kernel;

use std::fmt;
use std::ops::Range;

use half::bf16;

use crate::isa::Isa;
use crate::pool::Pool;
use crate::shared::Shared;
use kernel::{COLUMNS, ROWS};

/// How the weights of a linear layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bytes a weight; the reference.
    F32,
    /// 2 bytes a weight, widened to f32 before it is used; exact for weights that were
    /// trained or published in bf16.
    Bf16,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A weight matrix of `outputs` rows and `inputs` columns, packed for multiplication.
#[derive(Debug)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

/// The largest of a set of logits: its index, its value, and whether a NaN was among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Index of the largest value, the lowest among equals.
    pub index: u32,
    /// The largest value; minus infinity if there is none.
    pub value: f32,
    /// Whether any value was NaN.
    pub nan: bool,
}

impl Best {
    /// The best of nothing.
    pub const NONE: Self = Self { index: 0, value: f32::NEG_INFINITY, nan: false };

    /// Takes in one more value. Indices must come in ascending order.
    #[inline(always)]
    pub fn offer(&mut self, index: u32, value: f32) {
        self.nan |= value.is_nan();
        if value > self.value {
            (self.index, self.value) = (index, value);
        }
    }
}

/// Receives a tile: its first row, its first output, and its values, row by row.
type Sink<'a> = dyn FnMut(usize, usize, &[&[f32]]) + 'a;
/// A [`Sink`] that several threads call.
type SharedSink<'a> = dyn Fn(usize, usize, &[&[f32]]) + Sync + 'a;
/// Writes the weights of the output with this index, shape `(inputs,)`.
type ReadOutput<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

impl Linear {
    /// An all-zero layer, to be filled by [`Linear::load`].
    pub fn zeros(outputs: usize, inputs: usize, format: Format) -> Self {
        let len = outputs * inputs;
        let weights = match format {
            Format::F32 => Weights::F32(vec![0.0; len]),
            Format::Bf16 => Weights::Bf16(vec![bf16::ZERO; len]),
        };
        Self { inputs, outputs, weights }
    }

    /// A layer from f32 weights, shape `(outputs, inputs)`.
    pub fn from_f32(outputs: usize, inputs: usize, weights: &[f32], format: Format) -> Self {
        assert_eq!(weights.len(), outputs * inputs);
        let mut linear = Self::zeros(outputs, inputs, format);
        linear.load(0..outputs, &mut Pool::single(), &|output, row| {
            row.copy_from_slice(&weights[output * inputs..][..inputs]);
        });
        linear
    }

    /// Fills the weights of `outputs`, in parallel: `read(i, row)` writes the weights of
    /// output i of that range into `row`, shape `(inputs,)`.
    pub fn load(&mut self, outputs: Range<usize>, pool: &mut Pool, read: &ReadOutput<'_>) {
        let k = self.inputs;
        let first = outputs.start;
        match &mut self.weights {
            Weights::F32(w) => {
                let shared = Shared::new(&mut w[first * k..outputs.end * k]);
                pool.run_ranges(outputs.len(), 1, &|range| {
                    for i in range {
                        // SAFETY: row i belongs to this thread's range alone.
                        #[expect(unsafe_code, reason = "threads fill rows of their own")]
                        read(i, unsafe { shared.slice(i * k, k) });
                    }
                });
            }
            Weights::Bf16(w) => {
                let shared = Shared::new(&mut w[first * k..outputs.end * k]);
                pool.run_ranges(outputs.len(), 1, &|range| {
                    let mut wide = vec![0.0; k];
                    for i in range {
                        read(i, &mut wide);
                        // SAFETY: row i belongs to this thread's range alone.
                        #[expect(unsafe_code, reason = "threads fill rows of their own")]
                        let row = unsafe { shared.slice(i * k, k) };
                        for (narrow, &v) in row.iter_mut().zip(&wide) {
                            *narrow = bf16::from_f32(v);
                        }
                    }
                });
            }
        }
    }

    /// Length of an input row, K.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of an output row, N.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes a forward streams through the processor for this layer.
    pub fn bytes(&self) -> usize {
        self.inputs
            * self.outputs
            * match self.weights {
                Weights::F32(_) => 4,
                Weights::Bf16(_) => 2,
            }
    }

    /// The weights of one output as f32: a row of an embedding that shares this matrix.
    pub fn read_output(&self, output: usize, row: &mut [f32]) {
        let range = output * self.inputs..(output + 1) * self.inputs;
        match &self.weights {
            Weights::F32(w) => row.copy_from_slice(&w[range]),
            Weights::Bf16(w) => {
                for (wide, narrow) in row.iter_mut().zip(&w[range]) {
                    *wide = narrow.to_f32();
                }
            }
        }
    }

    /// `out = x W^T`: `x` has shape `(R, K)`, `out` has shape `(R, N)`.
    pub fn apply(&self, isa: Isa, pool: &mut Pool, x: &[f32], out: &mut [f32]) {
        let (k, n) = (self.inputs, self.outputs);
        let rows = x.len() / k;
        assert_eq!((x.len(), out.len()), (rows * k, rows * n));
        let out = Shared::new(out);
        self.tiles(isa, pool, x, &|row, output, tile| {
            for (r, values) in tile.iter().enumerate() {
                // SAFETY: each thread visits outputs of its own range, each tile once.
                #[expect(unsafe_code, reason = "threads write columns of their own")]
                unsafe { out.slice((row + r) * n + output, values.len()) }.copy_from_slice(values);
            }
        });
    }

    /// The largest output of each row of `x`, shape `(R, K)`, without storing the others:
    /// the LM head of greedy decoding. `best` has length R.
    pub fn argmax(&self, isa: Isa, pool: &mut Pool, x: &[f32], best: &mut [Best]) {
        let rows = x.len() / self.inputs;
        assert_eq!((x.len(), best.len()), (rows * self.inputs, rows));
        let threads = pool.threads();
        // One result per thread and row; a thread's outputs ascend, and so do the threads'.
        let mut partial = vec![Best::NONE; threads * rows];
        let shared = Shared::new(&mut partial);
        let share = self.outputs.div_ceil(COLUMNS).div_ceil(threads) * COLUMNS;
        pool.run(&|thread| {
            let outputs =
                (thread * share).min(self.outputs)..((thread + 1) * share).min(self.outputs);
            // SAFETY: each thread has its own `rows` entries.
            #[expect(unsafe_code, reason = "threads write results of their own")]
            let best = unsafe { shared.slice(thread * rows, rows) };
            self.range(isa, x, outputs, &mut |row, output, tile: &[&[f32]]| {
                for (r, values) in tile.iter().enumerate() {
                    for (c, &value) in values.iter().enumerate() {
                        best[row + r].offer((output + c) as u32, value);
                    }
                }
            });
        });
        for (row, best) in best.iter_mut().enumerate() {
            *best = Best::NONE;
            for thread in 0..threads {
                let part = partial[thread * rows + row];
                best.nan |= part.nan;
                if part.value > best.value {
                    (best.index, best.value) = (part.index, part.value);
                }
            }
        }
    }

    /// Runs all tiles on all threads, outputs split between them.
    fn tiles(&self, isa: Isa, pool: &mut Pool, x: &[f32], sink: &SharedSink<'_>) {
        pool.run_ranges(self.outputs, COLUMNS, &|outputs| {
            self.range(isa, x, outputs, &mut |row, output, tile| sink(row, output, tile));
        });
    }

    /// Runs all tiles of a range of outputs. `sink(row, output, tile)` gets the values of
    /// `tile.len()` rows from `row` on and a few outputs from `output` on; for one row,
    /// outputs ascend.
    fn range(&self, isa: Isa, x: &[f32], outputs: Range<usize>, sink: &mut Sink<'_>) {
        let k = self.inputs;
        let mut values = [[0.0; COLUMNS]; ROWS];
        // All rows pass a handful of outputs while these lie in the first-level cache.
        for output in outputs.clone().step_by(COLUMNS) {
            let columns = COLUMNS.min(outputs.end - output);
            let weights = output * k..(output + columns) * k;
            for (tile, x) in x.chunks(ROWS * k).enumerate() {
                let rows = x.len() / k;
                match &self.weights {
                    Weights::F32(w) => {
                        kernel::tile_f32(isa, x, &w[weights.clone()], k, &mut values)
                    }
                    Weights::Bf16(w) => {
                        kernel::tile_bf16(isa, x, &w[weights.clone()], k, &mut values)
                    }
                }
                let mut tile_rows: [&[f32]; ROWS] = [&[]; ROWS];
                for (slot, row) in tile_rows.iter_mut().zip(&values[..rows]) {
                    *slot = &row[..columns];
                }
                sink(tile * ROWS, output, &tile_rows[..rows]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
