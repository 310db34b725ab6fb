//! Floating-point weights: multiply-adds on every instruction set.
#![expect(unsafe_code, reason = "raw loads and stores in the inner loops")]

use std::marker::PhantomData;

use super::super::panel::{BF16_GROUP, F32_GROUP, PANEL};
use super::TileOutputs;
use crate::Isa;
use crate::activations::{GROUP, TILE_ROWS};
use crate::simd::{self, Job, Simd};

/// f32 weights: `x` holds the tile's rows, group by group.
pub(super) fn run_f32(
    isa: Isa,
    panel: &[u8],
    x: &[[f32; GROUP]],
    rows: usize,
    outputs: &mut TileOutputs,
) {
    run::<F32>(isa, panel, x, rows, outputs);
}

/// As [`run_f32`], for bf16.
pub(super) fn run_bf16(
    isa: Isa,
    panel: &[u8],
    x: &[[u16; GROUP]],
    rows: usize,
    outputs: &mut TileOutputs,
) {
    run::<Bf16>(isa, panel, x, rows, outputs);
}

/// What a line of 64 bytes of weights is.
trait Kind {
    /// An activation as it is stored.
    type X: Copy;
    const GROUP_BYTES: usize;

    /// Adds one line to the sum of each row. `x` points to the line's first activation of
    /// the first row, `step` elements before that of the next.
    ///
    /// # Safety
    /// As for [`Simd`]; the pointers are valid for what is read.
    unsafe fn line<S: Simd, const R: usize>(
        sums: &mut [S::V; R],
        w: *const u8,
        x: *const Self::X,
        step: usize,
    );
    /// Inputs of a line.
    const INPUTS: usize;
}

struct F32;

impl Kind for F32 {
    type X = f32;
    const GROUP_BYTES: usize = F32_GROUP;
    const INPUTS: usize = 1;

    #[inline(always)]
    unsafe fn line<S: Simd, const R: usize>(
        sums: &mut [S::V; R],
        w: *const u8,
        x: *const f32,
        step: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let w = S::load(w.cast());
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = S::mul_add(S::splat(*x.add(r * step)), w, *sum);
            }
        }
    }
}

struct Bf16;

impl Kind for Bf16 {
    type X = u16;
    const GROUP_BYTES: usize = BF16_GROUP;
    const INPUTS: usize = 2;

    #[inline(always)]
    unsafe fn line<S: Simd, const R: usize>(
        sums: &mut [S::V; R],
        w: *const u8,
        x: *const u16,
        step: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let [first, second] = S::load_bf16_pairs(w.cast());
            let wide = |x: u16| S::splat(f32::from_bits(u32::from(x) << 16));
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = x.add(r * step);
                *sum = S::mul_add(wide(*x.add(1)), second, *sum);
                *sum = S::mul_add(wide(*x), first, *sum);
            }
        }
    }
}

/// Rows whose sums, of two registers each, fit the sixteen of AVX2 with weights.
#[cfg(target_arch = "x86_64")]
const NARROW: usize = 6;

fn run<K: Kind>(
    isa: Isa,
    panel: &[u8],
    x: &[[K::X; GROUP]],
    rows: usize,
    outputs: &mut TileOutputs,
) {
    let groups = panel.len() / K::GROUP_BYTES;
    assert!(x.len() == groups * rows && (1..=TILE_ROWS).contains(&rows));
    #[cfg(target_arch = "x86_64")]
    let most = if isa.has_avx512() { TILE_ROWS } else { NARROW };
    #[cfg(not(target_arch = "x86_64"))]
    let most = TILE_ROWS;
    for first in (0..rows).step_by(most) {
        let count = most.min(rows - first);
        let x = x[first..].as_ptr().cast::<K::X>();
        let out = outputs[first..first + count].as_mut_ptr().cast::<f32>();
        macro_rules! tile {
            ($($r:literal)*) => {
                match count {
                    $($r => {
                        let tile = Tile::<K, $r> {
                            panel: panel.as_ptr(), groups, x, step: rows, out, kind: PhantomData,
                        };
                        // SAFETY: `isa` proves its instructions; `x` has `groups` times
                        // `rows` groups counted from `first`, `panel` has `groups` groups,
                        // and `out` room for `count` rows.
                        unsafe { enter(isa, tile) }
                    })*
                    _ => unreachable!("tiles have 1 to {TILE_ROWS} rows, not {count}"),
                }
            };
        }
        tile!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// # Safety
/// As for the job.
unsafe fn enter<J: Job>(isa: Isa, job: J) {
    // SAFETY: the caller's promise; `isa` proves its instructions.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            return simd::Avx512::run(job);
        } else if isa.has_avx2() {
            return simd::Avx2::run(job);
        }
        let _ = isa;
        simd::Portable::run(job);
    }
}

struct Tile<K: Kind, const R: usize> {
    panel: *const u8,
    groups: usize,
    x: *const K::X,
    /// Rows of the whole tile, which are a group apart.
    step: usize,
    out: *mut f32,
    kind: PhantomData<K>,
}

impl<K: Kind, const R: usize> Job for Tile<K, R> {
    /// # Safety
    /// The pointers are valid for the shapes stated at [`run`].
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: groups, lines and rows stay within the shapes.
        unsafe {
            let mut sums = [S::splat(0.0); R];
            let (mut w, mut x) = (self.panel, self.x);
            for _ in 0..self.groups {
                for line in 0..GROUP / K::INPUTS {
                    K::line::<S, R>(&mut sums, w.add(64 * line), x.add(line * K::INPUTS), GROUP);
                }
                w = w.add(K::GROUP_BYTES);
                x = x.add(self.step * GROUP);
            }
            for (r, &sum) in sums.iter().enumerate() {
                S::store(self.out.add(r * PANEL), sum);
            }
        }
    }
}
