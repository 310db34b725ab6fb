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
//! **bf16.** Pair j of the inputs, (2j, 2j + 1), is added to chain j mod 2 as the AVX-512
//! instruction does it: `c = fma(x[2j+1], w[2j+1], c)`, then `c = fma(x[2j], w[2j], c)`.
//! The output is the sum of both chains. Other paths do the same with two multiply-adds;
//! only sums below the smallest normal number (1e-38), which the instruction takes for
//! zero, could tell them apart.
//!
//! **f32.** Input k is added to chain k mod 2 by one multiply-add; the output is the sum
//! of both chains.
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
    /// The part of `tile`, one of `tiles`, in the panel `next`.
    fn new(panels: &Panels, next: usize, groups: usize, (tile, tiles): (usize, usize)) -> Self {
        let lines = (panels.panel_bytes() / groups / 64).div_ceil(tiles);
        let skip = 64 * lines * groups * tile;
        if next >= panels.len() || skip >= panels.panel_bytes() {
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

/// Computes a panel for a tile; the outputs of its rows are the first of `outputs`. Panel
/// `panel + stride` will be next.
pub(super) fn run(
    isa: Isa,
    panels: &Panels,
    (panel, stride): (usize, usize),
    activations: &Activations,
    tile: usize,
    outputs: &mut TileOutputs,
) {
    let weights = panels.panel(panel);
    let groups = activations.groups();
    assert_eq!(groups, panels.groups(), "inputs of the layer");
    let tiles = activations.tiles();
    let rows = tiles.rows(tile);
    let range = rows.start * groups..rows.end * groups;
    let ahead = Ahead::new(panels, panel + stride, groups, (tile, tiles.len()));
    match (activations.store(), panels.format()) {
        (Store::F32(values), Format::F32) => {
            float::run_f32(isa, weights, &values[range], rows.len(), outputs);
        }
        (Store::Bf16(values), Format::Bf16) => {
            let values = &values[range];
            #[cfg(target_arch = "x86_64")]
            if isa.has_avx512_bf16() {
                return avx512::run_bf16(isa, weights, ahead, values, rows.len(), outputs);
            }
            float::run_bf16(isa, weights, values, rows.len(), outputs);
        }
        (Store::Eight(eight), format @ (Format::W8 | Format::W4)) => {
            let tile = EightTile::new(eight, range, rows.len());
            #[cfg(target_arch = "x86_64")]
            {
                if isa.has_avx512() {
                    return avx512::run_integers(isa, format, weights, ahead, tile, outputs);
                }
                if isa.has_avx2() {
                    return avx2::run(isa, format, weights, tile, outputs);
                }
            }
            let _ = ahead;
            portable::run(format, weights, tile, outputs);
        }
        (_, format) => panic!("activations were made for another format than {format}"),
    }
}
