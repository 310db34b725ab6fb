//! The first half of a feed-forward block: `silu(x G^T + b) * (x U^T + c)` (Shazeer 2020,
//! arXiv 2002.05202).
//!
//! Panels of gates and ups alternate, so whoever computes two of each holds a whole group
//! of results and writes it as activations for the next layer: gates and ups are never
//! stored, and one parallel step does it all.

use std::cell::RefCell;

use super::panel::PANEL;
use super::tile::{PAIR, PanelOutputs, Tile, TileOutputs};
use super::{Format, Integers, Linear, Source};
use crate::activation::silu_times;
use crate::activations::{Activations, GROUP, TILE_ROWS};
use crate::isa::Isa;
use crate::pool::Pool;

/// Halves of a group.
const COLUMNS: usize = GROUP / PANEL;

/// What a thread works in.
#[derive(Default)]
struct Scratch {
    /// A gate and an up panel for each half of a group; beyond the width they are zero.
    values: [[TileOutputs; PAIR]; COLUMNS],
    results: [[f32; GROUP]; TILE_ROWS],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Gate and up projections, packed as one matrix.
#[derive(Debug)]
pub struct SwiGlu {
    width: usize,
    /// Sixteen gates, sixteen ups, sixteen gates ...; zero beyond the width.
    linear: Linear,
}

impl SwiGlu {
    /// Projections from K inputs to F outputs each, packed in parallel. The source counts F gates
    /// and then F ups.
    pub fn load(
        width: usize,
        inputs: usize,
        format: Format,
        pool: &mut Pool,
        source: &Source<'_>,
    ) -> Self {
        let outputs = 2 * width.next_multiple_of(PANEL);
        let mut pack = |source: &Source<'_>| Linear::load(outputs, inputs, format, pool, source);
        let integers = |read: &dyn Fn(usize, Integers<'_>), output, row: Integers<'_>| match place(
            width, output,
        ) {
            Some(stored) => read(stored, row),
            None => {
                row.scales.fill(half::f16::ZERO);
                row.minima.fill(half::f16::ZERO);
            }
        };
        let floats = |read: &dyn Fn(usize, &mut [f32]), output, row: &mut [f32]| match place(
            width, output,
        ) {
            Some(stored) => read(stored, row),
            None => row.fill(0.0),
        };
        let linear = match source {
            Source::Float(read) => pack(&Source::Float(&|output, row| floats(read, output, row))),
            Source::Fine(read) => pack(&Source::Fine(&|output, row| floats(read, output, row))),
            Source::Integers(read) => {
                pack(&Source::Integers(&|output, row| integers(read, output, row)))
            }
            Source::Symmetric(read) => {
                pack(&Source::Symmetric(&|output, row| integers(read, output, row)))
            }
        };
        Self { width, linear }
    }

    /// The layer with biases, F of the gates and then F of the ups, or without.
    ///
    /// # Panics
    /// If there are not 2F.
    #[must_use]
    pub fn with_bias(mut self, bias: Option<Vec<f32>>) -> Self {
        let bias = bias.map(|bias| {
            assert_eq!(bias.len(), 2 * self.width, "length of the bias");
            let outputs = 0..self.linear.outputs();
            outputs.map(|o| place(self.width, o).map_or(0.0, |stored| bias[stored])).collect()
        });
        self.linear = self.linear.with_bias(bias);
        self
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.linear.format()
    }

    /// The packed weights.
    pub(crate) fn weights(&self) -> &[u8] {
        self.linear.weights()
    }

    /// Bytes a forward streams through the processor for this layer.
    pub fn bytes(&self) -> usize {
        self.linear.bytes()
    }

    /// Results of all rows of `x`, as `out`, shape `(R, F)`, for a layer of `format`.
    pub fn apply(
        &self,
        isa: Isa,
        pool: &mut Pool,
        x: &Activations,
        format: Format,
        out: &mut Activations,
    ) {
        if x.rows() == 0 {
            return out.reset(format, 0, self.width);
        }
        assert_eq!(x.inputs(), self.linear.inputs(), "elements of a layer");
        out.reset(format, x.rows(), self.width);
        let groups = out.groups();
        let out = out.writer();
        let panels = self.linear.outputs() / PANEL;
        pool.run_ranges(groups, 1, &|range| {
            SCRATCH.with_borrow_mut(|Scratch { values, results }| {
                // A single tile stays the same for all groups.
                let tiles = x.tiles().len();
                let make = |tile| Tile::new(isa, &self.linear.panels, x, tile);
                let mut tile = make(0);
                for group in range {
                    for index in 0..tiles {
                        if tiles > 1 {
                            tile = make(index);
                        }
                        for (c, values) in values.iter_mut().enumerate() {
                            let panel = PAIR * (COLUMNS * group + c);
                            if panel < panels {
                                tile.run(panel, PAIR * COLUMNS, values);
                                self.add_bias(panel, values.as_flattened_mut());
                            } else {
                                *values = Default::default();
                            }
                        }
                        let [[gate, up], [gate2, up2]] = &*values;
                        let results = &mut results[..tile.rows().len()];
                        silu_times(isa, [gate, gate2], [up, up2], results);
                        // SAFETY: each thread writes groups of its own.
                        #[expect(unsafe_code, reason = "threads write groups of their own")]
                        unsafe {
                            out.write_rows(isa, index, group, results);
                        }
                    }
                }
            });
        });
    }

    /// Adds the biases of a pair of panels, of which each has the same number of `rows`.
    fn add_bias(&self, panel: usize, rows: &mut [PanelOutputs]) {
        if let Some(bias) = &self.linear.bias {
            let bias = bias[panel * PANEL..].chunks_exact(PANEL);
            for (rows, bias) in rows.chunks_exact_mut(TILE_ROWS).zip(bias) {
                for row in rows {
                    row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
                }
            }
        }
    }
}

/// Where the source has the output that is packed at this place.
fn place(width: usize, output: usize) -> Option<usize> {
    let (pair, which, lane) = (output / (2 * PANEL), output / PANEL % 2, output % PANEL);
    let column = pair * PANEL + lane;
    (column < width).then_some(which * width + column)
}
