//! One tile: up to four rows times up to four outputs, sixteen running sums.
//!
//! A 4 x 4 tile loads eight vectors for sixteen multiply-adds, and its sums fit the 32
//! registers of AVX-512. Each sum runs over K alone, so its value does not depend on the
//! size of the tile.

use std::ops::Range;

use half::bf16;

use super::Sink;
use crate::isa::{Isa, multiversion};
use crate::lanes::{LANES, Lanes};

/// Rows of a tile.
const ROWS: usize = 4;
/// Outputs of a tile.
const COLUMNS: usize = 4;

/// A weight as it is stored.
trait Weight: Copy {
    fn widen(self) -> f32;
}

impl Weight for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Weight for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        // A bf16 is the upper half of an f32.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Runs all tiles of a range of outputs for all rows of `x`, shape `(R, k)`.
pub(super) fn range_f32(
    isa: Isa,
    x: &[f32],
    w: &[f32],
    k: usize,
    outputs: Range<usize>,
    sink: &mut Sink<'_>,
) {
    tiles(x, k, outputs, sink, |x, c, out| tile_f32(isa, x, &w[c.start * k..c.end * k], k, out));
}

/// As [`range_f32`], for bf16 weights.
pub(super) fn range_bf16(
    isa: Isa,
    x: &[f32],
    w: &[bf16],
    k: usize,
    outputs: Range<usize>,
    sink: &mut Sink<'_>,
) {
    tiles(x, k, outputs, sink, |x, c, out| tile_bf16(isa, x, &w[c.start * k..c.end * k], k, out));
}

fn tiles(
    x: &[f32],
    k: usize,
    outputs: Range<usize>,
    sink: &mut Sink<'_>,
    tile: impl Fn(&[f32], Range<usize>, &mut [[f32; COLUMNS]; ROWS]),
) {
    let mut values = [[0.0; COLUMNS]; ROWS];
    // All rows pass a handful of outputs while these lie in the first-level cache.
    for output in outputs.clone().step_by(COLUMNS) {
        let columns = output..(output + COLUMNS).min(outputs.end);
        for (i, x) in x.chunks(ROWS * k).enumerate() {
            tile(x, columns.clone(), &mut values);
            for (r, row) in values[..x.len() / k].iter().enumerate() {
                sink(i * ROWS + r, output, &row[..columns.len()]);
            }
        }
    }
}

multiversion! {
    /// `out[r][c] = x_r . w_c` for f32 weights: `x` is `(rows, k)`, `w` is `(columns, k)`.
    fn tile_f32(x: &[f32], w: &[f32], k: usize, out: &mut [[f32; COLUMNS]; ROWS]) {
        tile(x, w, k, out);
    }
}

multiversion! {
    /// `out[r][c] = x_r . w_c` for bf16 weights: `x` is `(rows, k)`, `w` is `(columns, k)`.
    fn tile_bf16(x: &[f32], w: &[bf16], k: usize, out: &mut [[f32; COLUMNS]; ROWS]) {
        tile(x, w, k, out);
    }
}

#[inline(always)]
fn tile<W: Weight>(x: &[f32], w: &[W], k: usize, out: &mut [[f32; COLUMNS]; ROWS]) {
    match x.len() / k {
        1 => columns::<W, 1>(x, w, k, out),
        2 => columns::<W, 2>(x, w, k, out),
        3 => columns::<W, 3>(x, w, k, out),
        _ => columns::<W, 4>(x, w, k, out),
    }
}

#[inline(always)]
fn columns<W: Weight, const R: usize>(
    x: &[f32],
    w: &[W],
    k: usize,
    out: &mut [[f32; COLUMNS]; ROWS],
) {
    let whole = w.len() == COLUMNS * k;
    if whole {
        dots::<W, R, COLUMNS>(x, w, k, 0, out);
    } else {
        for c in 0..w.len() / k {
            dots::<W, R, 1>(x, &w[c * k..], k, c, out);
        }
    }
}

/// R x C dot products of length k in the canonical order, stored from column `first` on.
#[inline(always)]
fn dots<W: Weight, const R: usize, const C: usize>(
    x: &[f32],
    w: &[W],
    k: usize,
    first: usize,
    out: &mut [[f32; COLUMNS]; ROWS],
) {
    let chunks = k / LANES;
    let xs: [&[[f32; LANES]]; R] =
        std::array::from_fn(|r| &x[r * k..][..k].as_chunks().0[..chunks]);
    let ws: [&[[W; LANES]]; C] = std::array::from_fn(|c| &w[c * k..][..k].as_chunks().0[..chunks]);
    let mut acc = [[Lanes::ZERO; C]; R];
    for i in 0..chunks {
        for c in 0..C {
            let wide = ws[c][i].map(Weight::widen);
            for r in 0..R {
                acc[r][c] = acc[r][c].mul_add(&xs[r][i], &wide);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            for i in chunks * LANES..k {
                let lane = &mut acc[r][c].0[i % LANES];
                *lane = x[r * k + i].mul_add(w[c * k + i].widen(), *lane);
            }
            out[r][first + c] = acc[r][c].sum();
        }
    }
}
