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
//! If all minima of a matrix are `-128 s`, as in Q8_0, it is one line and not two,
//!
//! ```text
//! y = fma(f32(sum (q - 128) v), s * a, y)
//! ```
//!
//! The integer sums are exact, so any instruction set may compute them in any order; these
//! lines are the only rounding and are the same everywhere.
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

use std::ops::Range;

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
    /// Of the weights: see [`Panels::symmetric`].
    symmetric: bool,
    values: &'a [[i8; GROUP]],
    scales: &'a [f32],
    shifts: &'a [f32],
    offsets: &'a [i32],
}

impl<'a> EightTile<'a> {
    fn new(eight: &'a Eight, range: Range<usize>, rows: usize, symmetric: bool) -> Self {
        Self {
            rows,
            symmetric,
            values: &eight.values[range.clone()],
            scales: &eight.scales[range.clone()],
            shifts: &eight.shifts[range.clone()],
            offsets: &eight.offsets[range],
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
    #[cfg(all(test, target_arch = "x86_64"))]
    const NOTHING: Self = Self { start: std::ptr::null(), lines: 0 };

    /// The part of `tile`, one of `tiles`, in `count` panels from `next` on.
    fn new(panels: &Panels, next: usize, count: usize, (tile, tiles): (usize, usize)) -> Self {
        let lines = count * panels.group_lines();
        let bytes = count * panels.panel_bytes();
        let lines = if tiles == 1 { lines } else { lines.div_ceil(tiles) };
        let skip = 64 * lines * panels.groups() * tile;
        if next >= panels.len() || skip >= bytes {
            return Self { start: std::ptr::null(), lines: 0 };
        }
        Self { start: panels.panel(next).as_ptr().wrapping_add(skip), lines }
    }

    /// The same for a tile that passes over the panel, of `groups` groups, twice.
    #[cfg(target_arch = "x86_64")]
    fn halves(self, groups: usize) -> [Self; 2] {
        let lines = self.lines.div_ceil(2);
        [0, lines * groups].map(|skip| Self { start: self.start.wrapping_add(64 * skip), lines })
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

/// A tile of rows on its way over the panels of a layer.
pub(super) struct Tile<'a> {
    isa: Isa,
    panels: &'a Panels,
    activations: &'a Activations,
    /// Which tile of how many.
    part: (usize, usize),
    rows: Range<usize>,
    /// The tile's places in the activations.
    range: Range<usize>,
}

impl<'a> Tile<'a> {
    /// Tile number `tile` of some activations.
    pub(super) fn new(
        isa: Isa,
        panels: &'a Panels,
        activations: &'a Activations,
        tile: usize,
    ) -> Self {
        let groups = activations.groups();
        assert_eq!(groups, panels.groups(), "inputs of the layer");
        let tiles = activations.tiles();
        let rows = tiles.rows(tile);
        let range = rows.start * groups..rows.end * groups;
        Self { isa, panels, activations, part: (tile, tiles.len()), rows, range }
    }

    /// Its rows.
    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Computes one or two consecutive panels, from `first` on; the outputs of the tile's
    /// rows are the first of each of `outputs`. The panels from `first + stride` on will be
    /// next.
    pub(super) fn run(&self, first: usize, stride: usize, outputs: &mut [TileOutputs]) {
        #[cfg(target_arch = "x86_64")]
        if let (Store::Bf16(values), true) = (self.activations.store(), self.isa.has_avx512_bf16())
        {
            return self.run_bf16(&values[self.range.clone()], first, stride, outputs);
        }
        for (panel, outputs) in (first..).zip(outputs) {
            self.one(panel, panel + stride, outputs);
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn run_bf16(
        &self,
        values: &[[u16; GROUP]],
        first: usize,
        stride: usize,
        outputs: &mut [TileOutputs],
    ) {
        assert_eq!(self.panels.format(), Format::Bf16, "format of the activations");
        // A single tile waits for weights, and one run of memory is read faster than two.
        let pair = outputs.len() == PAIR && self.part.1 > 1;
        let step = if pair { PAIR } else { 1 };
        for (panel, outputs) in (first..).step_by(step).zip(outputs.chunks_mut(step)) {
            let weights = (self.panels.panel(panel), pair.then(|| self.panels.panel(panel + 1)));
            let ahead = Ahead::new(self.panels, panel + stride, step, self.part);
            avx512::run_bf16(self.isa, weights, ahead, values, self.rows.len(), outputs);
        }
    }

    /// One panel; `next` is the one to be fetched in the meantime.
    fn one(&self, panel: usize, next: usize, outputs: &mut TileOutputs) {
        let (isa, weights) = (self.isa, self.panels.panel(panel));
        let (range, rows) = (self.range.clone(), self.rows.len());
        match (self.activations.store(), self.panels.format()) {
            (Store::F32(values), Format::F32) => {
                float::run_f32(isa, weights, &values[range], rows, outputs);
            }
            (Store::Bf16(values), Format::Bf16) => {
                float::run_bf16(isa, weights, &values[range], rows, outputs);
            }
            (Store::Eight(eight), format @ (Format::W8 | Format::W4)) => {
                let tile = EightTile::new(eight, range, rows, self.panels.symmetric());
                #[cfg(target_arch = "x86_64")]
                if isa != Isa::PORTABLE {
                    let ahead = Ahead::new(self.panels, next, 1, self.part);
                    let run = if isa.has_avx512() { avx512::run_integers } else { avx2::run };
                    return run(isa, format, weights, ahead, tile, outputs);
                }
                let _ = next;
                portable::run(format, weights, tile, outputs);
            }
            (_, format) => panic!("activations were made for another format than {format}"),
        }
    }
}
