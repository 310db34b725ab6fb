//! Weights of four or eight bits times activations of eight.
//!
//! With integers `q` (weights) and `v` (activations) in groups of 32 along the inputs, the
//! output of a row is, groups ascending,
//!
//! ```text
//! y = fma(f32(sum q v), s * a, y)        s: the weights' scale, a: the activations'
//! y = fma(m, a * f32(sum v), y)          m: the weights' minimum, four bits only
//! ```
//!
//! The integer sums are exact, so any instruction set may compute them in any order; the
//! two lines above are the only rounding and are the same everywhere. A row's result has
//! the same bits on every path, in every tile.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod panel;
mod portable;

use crate::Isa;
use crate::quant::{ActivationRow, Activations};

pub(super) use panel::{Bits, PANEL, Panels, Quantized, pack};

/// The most rows that share one pass over a panel: their sums fill the registers of
/// AVX-512.
const TILE_ROWS: usize = 12;

/// Outputs of one panel for one row.
pub(super) type PanelOutputs = [f32; PANEL];

/// Computes panel `index` for all of `rows` and calls `sink(row, outputs)` for each,
/// ascending.
pub(super) fn panel(
    isa: Isa,
    panels: &Panels,
    index: usize,
    activations: &Activations,
    rows: std::ops::Range<usize>,
    sink: &mut dyn FnMut(usize, &PanelOutputs),
) {
    let panel = panels.panel(index);
    // Nearly equal tiles: 16 rows as 8 + 8, not as 12 + 4.
    let tiles = rows.len().div_ceil(TILE_ROWS);
    let mut first = rows.start;
    for tile in 0..tiles {
        let count = (rows.end - first).div_ceil(tiles - tile);
        let mut inputs = [activations.row(first); TILE_ROWS];
        for (i, input) in inputs.iter_mut().enumerate().take(count) {
            *input = activations.row(first + i);
        }
        let mut outputs = [[0.0; PANEL]; TILE_ROWS];
        run(isa, panels.bits(), panel, &inputs[..count], &mut outputs);
        for (i, outputs) in outputs.iter().enumerate().take(count) {
            sink(first + i, outputs);
        }
        first += count;
    }
}

/// One tile on the best path.
fn run(
    isa: Isa,
    bits: Bits,
    panel: panel::Panel<'_>,
    rows: &[ActivationRow<'_>],
    outputs: &mut [PanelOutputs; TILE_ROWS],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if isa.has_avx512() {
            return avx512::run(isa, bits, panel, rows, outputs);
        }
        if isa.has_avx2() {
            return avx2::run(isa, bits, panel, rows, outputs);
        }
    }
    let _ = isa;
    portable::run(bits, panel, rows, outputs);
}
