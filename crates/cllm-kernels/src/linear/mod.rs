//! Linear layers: `y = x W^T`.
//!
//! This is the seam behind which storage formats and fast kernels live. A [`Linear`] is
//! packed once at load; [`Linear::apply`] and [`Linear::argmax`] take any number of rows
//! of f32 activations. Callers never see the format.
//!
//! Every output is computed in an order fixed by its row and column alone, so it does not
//! depend on the tile they fall into: row invariance by construction. Tiles only decide
//! how often a weight is loaded: with R rows in flight, once per R rows.

mod float;
mod packed;

use std::fmt;
use std::ops::Range;

use half::{bf16, f16};

use crate::isa::Isa;
use crate::pool::Pool;
use crate::quant::Activations;
use crate::shared::Shared;
use packed::{Bits, PANEL, Panels, Quantized};

/// Rows that pass over all of a thread's weights together. Their activations stay in the
/// second-level cache; the weights of a layer come from there or the third.
const ROW_BLOCK: usize = 96;

/// How the weights of a linear layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bytes a weight; the reference.
    F32,
    /// 2 bytes a weight, widened to f32 before it is used; exact for weights that were
    /// trained or published in bf16.
    Bf16,
    /// 8 bits a weight and a scale per 32, times 8-bit activations.
    W8,
    /// 4 bits a weight, a scale and a minimum per 32, times 8-bit activations.
    W4,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::W8 => "w8",
            Self::W4 => "w4",
        })
    }
}

impl Format {
    /// Bytes of `outputs x inputs` weights in this format.
    pub fn bytes(self, outputs: usize, inputs: usize) -> usize {
        match self {
            Self::F32 => 4 * outputs * inputs,
            Self::Bf16 => 2 * outputs * inputs,
            Self::W8 => Panels::bytes_for(Bits::Eight, outputs, inputs),
            Self::W4 => Panels::bytes_for(Bits::Four, outputs, inputs),
        }
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
    Packed(Panels),
}

/// The weights of one output in four bits, as a file stores them: `w = q * scale + minimum`.
#[derive(Debug)]
pub struct FourBits<'a> {
    /// 0 to 15, shape `(K,)`.
    pub values: &'a mut [i8],
    /// Shape `(K / 32,)`.
    pub scales: &'a mut [f16],
    /// Shape `(K / 32,)`.
    pub minima: &'a mut [f16],
}

/// Where the weights of a layer come from; called from several threads.
pub enum Source<'a> {
    /// Writes the weights of the output with this index, shape `(K,)`.
    Float(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
    /// Writes the four-bit weights of the output with this index; for [`Format::W4`].
    FourBits(&'a (dyn Fn(usize, FourBits<'_>) + Sync)),
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

/// Receives outputs: a row, the first output, and values from there on.
type Sink<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;

impl Linear {
    /// An all-zero layer, to be filled by [`Linear::load`].
    pub fn zeros(outputs: usize, inputs: usize, format: Format) -> Self {
        let len = outputs * inputs;
        let weights = match format {
            Format::F32 => Weights::F32(vec![0.0; len]),
            Format::Bf16 => Weights::Bf16(vec![bf16::ZERO; len]),
            Format::W8 => Weights::Packed(Panels::zeros(Bits::Eight, outputs, inputs)),
            Format::W4 => Weights::Packed(Panels::zeros(Bits::Four, outputs, inputs)),
        };
        Self { inputs, outputs, weights }
    }

    /// A layer from f32 weights, shape `(outputs, inputs)`.
    pub fn from_f32(outputs: usize, inputs: usize, weights: &[f32], format: Format) -> Self {
        assert_eq!(weights.len(), outputs * inputs);
        let mut linear = Self::zeros(outputs, inputs, format);
        let read = |output: usize, row: &mut [f32]| {
            row.copy_from_slice(&weights[output * inputs..][..inputs]);
        };
        linear.load(&mut Pool::single(), &Source::Float(&read));
        linear
    }

    /// Fills all weights, in parallel.
    ///
    /// # Panics
    /// If the source is [`Source::FourBits`] and the format is not [`Format::W4`].
    pub fn load(&mut self, pool: &mut Pool, source: &Source<'_>) {
        let (k, outputs) = (self.inputs, self.outputs);
        match (&mut self.weights, source) {
            (Weights::F32(w), Source::Float(read)) => {
                pool.for_each_chunk(w, LOAD_ROWS * k, &|piece, rows| {
                    for (i, row) in rows.chunks_exact_mut(k).enumerate() {
                        read(piece * LOAD_ROWS + i, row);
                    }
                });
            }
            (Weights::Bf16(w), Source::Float(read)) => {
                pool.for_each_chunk(w, LOAD_ROWS * k, &|piece, rows| {
                    let mut wide = vec![0.0; k];
                    for (i, row) in rows.chunks_exact_mut(k).enumerate() {
                        read(piece * LOAD_ROWS + i, &mut wide);
                        for (narrow, &v) in row.iter_mut().zip(&wide) {
                            *narrow = bf16::from_f32(v);
                        }
                    }
                });
            }
            (Weights::Packed(panels), source) => {
                let (bits, groups) = (panels.bits(), panels.groups());
                let bytes = panels.panel_bytes();
                pool.for_each_chunk(panels.bytes_mut(), bytes, &|panel, bytes| {
                    let mut row = vec![0.0; k];
                    let mut quantized = Quantized::new(groups);
                    for lane in 0..PANEL.min(outputs - panel * PANEL) {
                        match source {
                            Source::Float(read) => {
                                read(panel * PANEL + lane, &mut row);
                                quantized.fill(bits, &row);
                            }
                            Source::FourBits(read) => {
                                assert_eq!(bits, Bits::Four, "four-bit weights fit w4 only");
                                let four = FourBits {
                                    values: &mut quantized.values[..k],
                                    scales: &mut quantized.scales,
                                    minima: &mut quantized.minima,
                                };
                                read(panel * PANEL + lane, four);
                            }
                        }
                        packed::pack(bits, bytes, lane, &quantized);
                    }
                });
            }
            _ => panic!("four-bit weights fit w4 only"),
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

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        match &self.weights {
            Weights::F32(_) => Format::F32,
            Weights::Bf16(_) => Format::Bf16,
            Weights::Packed(panels) if panels.bits() == Bits::Four => Format::W4,
            Weights::Packed(_) => Format::W8,
        }
    }

    /// Bytes a forward streams through the processor for this layer.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::F32(w) => 4 * w.len(),
            Weights::Bf16(w) => 2 * w.len(),
            Weights::Packed(panels) => panels.bytes(),
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
            Weights::Packed(panels) => panels.read_output(output, row),
        }
    }

    /// `out = x W^T`: `x` has shape `(R, K)`, `out` has shape `(R, N)`.
    pub fn apply(&self, isa: Isa, pool: &mut Pool, x: &[f32], out: &mut [f32]) {
        let (k, n) = (self.inputs, self.outputs);
        let rows = x.len() / k;
        assert_eq!((x.len(), out.len()), (rows * k, rows * n));
        let input = self.prepare(isa, x);
        let out = Shared::new(out);
        pool.run_ranges(n, PANEL, &|outputs| {
            self.range(isa, &input, outputs, &mut |row, output, values| {
                // SAFETY: each thread visits outputs of its own range, each once.
                #[expect(unsafe_code, reason = "threads write columns of their own")]
                let place = unsafe { out.slice(row * n + output, values.len()) };
                place.copy_from_slice(values);
            });
        });
    }

    /// The largest output of each row of `x`, shape `(R, K)`, without storing the others:
    /// the LM head of greedy decoding. `best` has length R.
    pub fn argmax(&self, isa: Isa, pool: &mut Pool, x: &[f32], best: &mut [Best]) {
        let rows = x.len() / self.inputs;
        assert_eq!((x.len(), best.len()), (rows * self.inputs, rows));
        let input = self.prepare(isa, x);
        // One result per range of outputs and row; ranges ascend.
        let ranges = pool.ranges(self.outputs, PANEL);
        let mut partial = vec![Best::NONE; ranges.len() * rows];
        let shared = Shared::new(&mut partial);
        pool.run(ranges.len(), &|i| {
            // SAFETY: each range has its own `rows` entries.
            #[expect(unsafe_code, reason = "threads write results of their own")]
            let best = unsafe { shared.slice(i * rows, rows) };
            self.range(isa, &input, ranges.get(i), &mut |row, output, values| {
                for (c, &value) in values.iter().enumerate() {
                    best[row].offer((output + c) as u32, value);
                }
            });
        });
        for (row, best) in best.iter_mut().enumerate() {
            *best = Best::NONE;
            for part in partial.chunks_exact(rows).map(|best| best[row]) {
                best.nan |= part.nan;
                if part.value > best.value {
                    (best.index, best.value) = (part.index, part.value);
                }
            }
        }
    }

    /// The activations as the kernels of this format take them.
    fn prepare<'a>(&self, isa: Isa, x: &'a [f32]) -> Input<'a> {
        match &self.weights {
            Weights::F32(_) | Weights::Bf16(_) => Input::Float(x),
            Weights::Packed(_) => {
                let mut activations = Activations::default();
                activations.quantize(isa, x, self.inputs);
                Input::Eight(activations)
            }
        }
    }

    /// Computes a range of outputs, beginning on a panel, for all rows. For one row,
    /// outputs ascend.
    fn range(&self, isa: Isa, input: &Input<'_>, outputs: Range<usize>, sink: &mut Sink<'_>) {
        match (&self.weights, input) {
            (Weights::F32(w), Input::Float(x)) => {
                float::range_f32(isa, x, w, self.inputs, outputs, sink);
            }
            (Weights::Bf16(w), Input::Float(x)) => {
                float::range_bf16(isa, x, w, self.inputs, outputs, sink);
            }
            (Weights::Packed(panels), Input::Eight(activations)) => {
                for first in (0..activations.rows()).step_by(ROW_BLOCK) {
                    let rows = first..(first + ROW_BLOCK).min(activations.rows());
                    for panel in outputs.start / PANEL..outputs.end.div_ceil(PANEL) {
                        let output = panel * PANEL;
                        let lanes = PANEL.min(self.outputs - output);
                        packed::panel(
                            isa,
                            panels,
                            panel,
                            activations,
                            rows.clone(),
                            &mut |row, values| {
                                sink(row, output, &values[..lanes]);
                            },
                        );
                    }
                }
            }
            _ => unreachable!("`prepare` made the input for this format"),
        }
    }
}

/// Rows per piece while loading: some ten microseconds of work.
const LOAD_ROWS: usize = 16;

/// Activations, prepared for a format.
enum Input<'a> {
    /// `(R, K)`
    Float(&'a [f32]),
    Eight(Activations),
}

#[cfg(test)]
mod tests;
