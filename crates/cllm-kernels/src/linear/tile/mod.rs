//! The inner loops: one panel of weights times one tile of rows.
//!
//! **Integers.** With weights `q`, activations `v` and groups of 32 along the inputs, the
//! output of a row is, groups ascending,
//!
//! ```text
//! y = fma(f32(sum q v), s * a, y)        s: the weights' scale, a: the activations'
//! y = fma(m, a * f32(sum v), y)          m: the weights' minimum
//! ```
//!
//! The integer sums are exact, so any instruction set may compute them in any order; the
//! two lines above are the only rounding and are the same everywhere.
//!
//! **bf16.** Pairs (2j, 2j + 1) of the inputs are added in ascending order as the AVX-512
//! instruction does it: `y = fma(x[2j+1], w[2j+1], y)`, then `y = fma(x[2j], w[2j], y)`.
//! Other paths do the same with two multiply-adds; only sums below the smallest normal
//! number (1e-38), which the instruction takes for zero, could tell them apart.
//!
//! **f32.** `y = fma(x[k], w[k], y)`, inputs ascending.
//!
//! So a row's result has the same bits on every path, in every tile.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float;
mod portable;

use super::Format;
use super::panel::{PANEL, Panels};
use crate::Isa;
use crate::activations::{Activations, Eight, GROUP, Store, TILE_ROWS};

/// Outputs of one panel for one row.
pub(super) type PanelOutputs = [f32; PANEL];

/// Room for the outputs of a tile.
pub(super) type TileOutputs = [PanelOutputs; TILE_ROWS];

/// Eight-bit activations of a tile, group by group, row by row.
#[derive(Debug, Clone, Copy)]
struct EightTile<'a> {
    rows: usize,
    values: &'a [[i8; GROUP]],
    scales: &'a [f32],
    shifts: &'a [f32],
    sums: &'a [i32],
}

impl<'a> EightTile<'a> {
    fn new(eight: &'a Eight, range: std::ops::Range<usize>, rows: usize) -> Self {
        Self {
            rows,
            values: &eight.values[range.clone()],
            scales: &eight.scales[range.clone()],
            shifts: &eight.shifts[range.clone()],
            sums: &eight.sums[range],
        }
    }
}

/// Weights to ask for while a tile is in work, so that they are in cache when their turn
/// comes. All tiles that pass over a panel share the panel that follows between them:
/// memory then works all the time, and not only during the first pass.
///
/// A tile of few rows does nothing but wait for weights, and the processor's own
/// prefetching is better at that (8 % here); with more rows it lags behind.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "used by SIMD paths"))]
struct Ahead {
    start: *const u8,
    /// Lines to ask for per group of the panel in work.
    lines: usize,
}

impl Ahead {
    /// The part of `tile`, one of `tiles`, in `count` panels from `next` on.
    fn new(panels: &Panels, next: usize, count: usize, (tile, tiles): (usize, usize)) -> Self {
        let bytes = count * panels.panel_bytes();
        let lines = (bytes / panels.groups() / 64).div_ceil(tiles);
        let skip = 64 * lines * panels.groups() * tile;
        if next >= panels.len() || skip >= bytes {
            return Self { start: std::ptr::null(), lines: 0 };
        }
        Self { start: panels.panel(next).as_ptr().wrapping_add(skip), lines }
    }

    /// Asks for what belongs to group `g`.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn fetch<const R: usize>(self, g: usize) {
        if R < 4 {
            return;
        }
        let from = self.start.wrapping_add(64 * self.lines * g);
        for line in 0..self.lines {
            // SAFETY: a prefetch never faults, whatever the address.
            #[expect(unsafe_code, reason = "a hint to the processor")]
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(64 * line).cast());
            }
        }
    }
}

/// Panels that are computed together.
pub(super) const PAIR: usize = 2;

/// Computes one or two consecutive panels, from `first` on, for a tile; the outputs of its
/// rows are the first of each of `outputs`. The panels from `first + stride` on will be next.
pub(super) fn run(
    isa: Isa,
    panels: &Panels,
    (first, stride): (usize, usize),
    activations: &Activations,
    tile: usize,
    outputs: &mut [TileOutputs],
) {
    let groups = activations.groups();
    assert_eq!(groups, panels.groups(), "inputs of the layer");
    let tiles = activations.tiles();
    let rows = tiles.rows(tile);
    let range = rows.start * groups..rows.end * groups;
    let part = (tile, tiles.len());
    #[cfg(target_arch = "x86_64")]
    if let (Store::Bf16(values), true) = (activations.store(), isa.has_avx512_bf16()) {
        assert_eq!(panels.format(), Format::Bf16, "activations are for");
        // A single tile waits for weights, and one run of memory is read faster than two.
        let pair = outputs.len() == PAIR && tiles.len() > 1;
        let step = if pair { PAIR } else { 1 };
        for (panel, outputs) in (first..).step_by(step).zip(outputs.chunks_mut(step)) {
            let weights = (panels.panel(panel), pair.then(|| panels.panel(panel + 1)));
            let ahead = Ahead::new(panels, panel + stride, step, part);
            let values = &values[range.clone()];
            avx512::run_bf16(isa, weights, ahead, values, rows.len(), outputs);
        }
        return;
    }
    for (panel, outputs) in (first..).zip(outputs) {
        let weights = panels.panel(panel);
        let ahead = Ahead::new(panels, panel + stride, 1, part);
        match (activations.store(), panels.format()) {
            (Store::F32(values), Format::F32) => {
                float::run_f32(isa, weights, &values[range.clone()], rows.len(), outputs);
            }
            (Store::Bf16(values), Format::Bf16) => {
                float::run_bf16(isa, weights, &values[range.clone()], rows.len(), outputs);
            }
            (Store::Eight(eight), format @ (Format::W8 | Format::W4)) => {
                let tile = EightTile::new(eight, range.clone(), rows.len());
                #[cfg(target_arch = "x86_64")]
                if isa.has_avx512() {
                    avx512::run_integers(isa, format, weights, ahead, tile, outputs);
                    continue;
                } else if isa.has_avx2() {
                    avx2::run(isa, format, weights, tile, outputs);
                    continue;
                }
                let _ = ahead;
                portable::run(format, weights, tile, outputs);
            }
            (_, format) => panic!("activations were made for another format than {format}"),
        }
    }
}
