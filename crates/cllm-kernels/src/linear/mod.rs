//! Linear layers: `y = x W^T + b`.
//!
//! This is the seam behind which storage formats and fast kernels live. A [`Linear`] is
//! packed once at load; [`Linear::apply`], [`Linear::add_to`] and [`Linear::argmax`] take
//! any number of rows of [`Activations`]. Callers see the format only when they ask for
//! activations that fit it.
//!
//! Every output is computed in an order fixed by its row and column alone, so it does not
//! depend on the tile they fall into: row invariance by construction. Tiles only decide
//! how often a weight is loaded.

mod argmax;
mod load;
mod panel;
mod swiglu;
mod tile;

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use crate::activations::Activations;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::shared::Shared;
use panel::{PANEL, Panels};
use tile::{PAIR, PanelOutputs, Tile, TileOutputs};

pub use argmax::Best;
pub use load::{Integers, Source};
pub use swiglu::SwiGlu;

/// Pairs of panels that one tile of rows after the other passes over when there are many tiles, so
/// that activations are read from the second-level cache once for several panels.
const CHUNK: usize = 2;

/// More tiles than this are many: their work hides the reading of weights.
const FEW_TILES: usize = 4;

/// How the weights of a linear layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bytes a weight; the reference.
    F32,
    /// 2 bytes a weight, times activations in bf16, added up in f32.
    Bf16,
    /// 8 bits a weight, a scale and perhaps a minimum per 32, times 8-bit activations.
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
    /// Bytes of `outputs x inputs` weights in this format. Eight bits have `minima` if the file's
    /// integers do ([`Source::Integers`]).
    pub fn bytes(self, minima: bool, outputs: usize, inputs: usize) -> usize {
        panel::bytes_for(self, !minima, outputs, inputs)
    }
}

/// A weight matrix of `outputs` rows and `inputs` columns, packed for multiplication, and
/// perhaps a bias.
#[derive(Debug)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    panels: Panels,
    /// `(N,)`
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// A layer from f32 weights, shape `(outputs, inputs)`.
    pub fn from_f32(outputs: usize, inputs: usize, weights: &[f32], format: Format) -> Self {
        assert_eq!(weights.len(), outputs * inputs);
        let read = |output: usize, row: &mut [f32]| {
            row.copy_from_slice(&weights[output * inputs..][..inputs]);
        };
        Self::load(outputs, inputs, format, &mut Pool::single(), &Source::Float(&read))
    }

    /// The layer with a bias, shape `(N,)`, or without.
    ///
    /// # Panics
    /// If the bias has another length.
    #[must_use]
    pub fn with_bias(mut self, bias: Option<Vec<f32>>) -> Self {
        assert!(bias.as_ref().is_none_or(|bias| bias.len() == self.outputs), "length of the bias");
        self.bias = bias;
        self
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
        self.panels.format()
    }

    /// Bytes a forward streams through the processor for this layer.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// The packed weights.
    pub(crate) fn weights(&self) -> &[u8] {
        self.panels.all()
    }

    /// The weights of one output as f32: a row of an embedding that shares this matrix.
    pub fn read_output(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs);
        self.panels.read_output(output, row);
    }

    /// `out = x W^T + b`: `x` has shape `(R, K)`, `out` has shape `(R, N)`.
    pub fn apply(&self, isa: Isa, pool: &mut Pool, x: &Activations, out: &mut [f32]) {
        self.each(isa, pool, x, out, |place, value| *place = value);
    }

    /// `out += x W^T + b`: a block's contribution to the residual stream.
    pub fn add_to(&self, isa: Isa, pool: &mut Pool, x: &Activations, out: &mut [f32]) {
        self.each(isa, pool, x, out, |place, value| *place += value);
    }

    /// Computes all outputs and hands each to `put` with its place in `out`.
    fn each(
        &self,
        isa: Isa,
        pool: &mut Pool,
        x: &Activations,
        out: &mut [f32],
        put: impl Fn(&mut f32, f32) + Sync,
    ) {
        let n = self.outputs;
        assert_eq!((x.inputs(), out.len()), (self.inputs, x.rows() * n), "elements of a layer");
        let out = Shared::new(out);
        pool.run_ranges(n.div_ceil(PANEL), PAIR, &|panels| {
            self.panels(isa, x, panels, |panel, first, rows| {
                let output = panel * PANEL;
                let lanes = PANEL.min(n - output);
                for (i, values) in rows.iter().enumerate() {
                    // SAFETY: each thread visits panels of its own, each once.
                    #[expect(unsafe_code, reason = "threads write columns of their own")]
                    let places = unsafe { out.slice((first + i) * n + output, lanes) };
                    match &self.bias {
                        None => places.iter_mut().zip(values).for_each(|(p, &v)| put(p, v)),
                        Some(bias) => {
                            for ((p, v), b) in places.iter_mut().zip(values).zip(&bias[output..]) {
                                put(p, v + b);
                            }
                        }
                    }
                }
            });
        });
    }

    /// Computes a range of panels for all rows and hands over, for each panel and tile, the
    /// outputs of consecutive rows from a first one on. For one row, panels ascend.
    fn panels(
        &self,
        isa: Isa,
        x: &Activations,
        panels: Range<usize>,
        mut sink: impl FnMut(usize, usize, &[PanelOutputs]),
    ) {
        let tiles = x.tiles().len();
        let chunk = match tiles {
            1 => panels.len().next_multiple_of(PAIR),
            2..=FEW_TILES => PAIR,
            _ => PAIR * CHUNK,
        };
        OUTPUTS.with_borrow_mut(|outputs| {
            for first in panels.clone().step_by(chunk) {
                for tile in 0..tiles {
                    let tile = Tile::new(isa, &self.panels, x, tile);
                    let end = panels.end.min(first + chunk);
                    for pair in (first..end).step_by(PAIR) {
                        let outputs = &mut outputs[..PAIR.min(end - pair)];
                        tile.run(pair, if tiles == 1 { PAIR } else { chunk }, outputs);
                        for (panel, outputs) in (pair..).zip(outputs) {
                            sink(panel, tile.rows().start, &outputs[..tile.rows().len()]);
                        }
                    }
                }
            }
        });
    }
}

thread_local! {
    /// Where a pair of panels leaves its outputs.
    static OUTPUTS: RefCell<[TileOutputs; PAIR]> = RefCell::default();
}

#[cfg(test)]
mod tests;
