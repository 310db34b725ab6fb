//! AVX-512 VNNI: `vpdpbusd` multiplies 64 unsigned by 64 signed bytes and adds each four
//! products to one of sixteen sums, without saturation. AVX-512 BF16: `vdpbf16ps` does two
//! multiply-adds on each of sixteen floats.
//!
//! A tile keeps an integer and a float accumulator of each of up to twelve rows in
//! registers, and takes activations four bytes at a time, broadcast from memory.

use std::arch::x86_64::*;

use super::super::Format;
use super::super::panel::{BF16_GROUP, W4_GROUP, W8_GROUP, W8_SYMMETRIC_GROUP};
use super::{Ahead, EightTile, TileOutputs};
use crate::Isa;
use crate::activations::{GROUP, TILE_ROWS};

/// Runs a tile of integers. `isa` is the proof that the instructions exist.
pub(super) fn run_integers(
    isa: Isa,
    format: Format,
    panel: &[u8],
    ahead: Ahead,
    tile: EightTile<'_>,
    outputs: &mut TileOutputs,
) {
    assert!(isa.has_avx512());
    macro_rules! tiles {
        ($($n:literal)*) => {
            match (tile.rows, format) {
                $(
                    // SAFETY: `isa` is a value that exists only where AVX-512 F, BW, VL and
                    // VNNI were found.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    ($n, Format::W4) => unsafe { four::<$n>(panel, ahead, tile, outputs) },
                    // SAFETY: as above.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    ($n, _) if tile.symmetric => unsafe {
                        eight::<$n, W8_SYMMETRIC_GROUP>(panel, ahead, tile, outputs)
                    },
                    // SAFETY: as above.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    ($n, _) => unsafe { eight::<$n, W8_GROUP>(panel, ahead, tile, outputs) },
                )*
                (n, _) => unreachable!("tiles have 1 to {TILE_ROWS} rows, not {n}"),
            }
        };
    }
    tiles!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// Runs a tile of bf16 over one or two panels. `isa` is the proof that the instructions
/// exist.
pub(super) fn run_bf16(
    isa: Isa,
    panels: (&[u8], Option<&[u8]>),
    ahead: Ahead,
    x: &[[u16; GROUP]],
    rows: usize,
    outputs: &mut [TileOutputs],
) {
    assert!(isa.has_avx512_bf16());
    macro_rules! tiles {
        ($($n:literal)*) => {
            match (rows, panels) {
                $(
                    // SAFETY: `isa` is a value that exists only where AVX-512 F, BW, VL and
                    // BF16 were found.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    ($n, (panel, None)) => unsafe { bf16::<$n>(panel, ahead, x, outputs) },
                    // SAFETY: as above.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    ($n, (a, Some(b))) => unsafe { bf16_pair::<$n>([a, b], ahead, x, outputs) },
                )*
                (n, _) => unreachable!("tiles have 1 to {TILE_ROWS} rows, not {n}"),
            }
        };
    }
    tiles!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// Four bytes of activations, in every lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn quad(values: &[i8; GROUP], quad: usize) -> __m512i {
    let [a, b, c, d] = values.as_chunks::<4>().0[quad];
    _mm512_set1_epi32(i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]))
}

/// 64 bytes of a panel.
#[target_feature(enable = "avx512f")]
#[inline]
fn line(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: an unaligned load of 64 bytes that are borrowed.
    #[expect(unsafe_code, reason = "a load from a checked array")]
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

/// Sixteen f16 as f32.
#[target_feature(enable = "avx512f")]
#[inline]
fn halves(bytes: &[u8; 32]) -> __m512 {
    // SAFETY: an unaligned load of 32 bytes that are borrowed.
    #[expect(unsafe_code, reason = "a load from a checked array")]
    let halves = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    _mm512_cvtph_ps(halves)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(sums: &[__m512], outputs: &mut TileOutputs) {
    for (sum, outputs) in sums.iter().zip(outputs) {
        // SAFETY: an unaligned store to a borrowed array of sixteen floats.
        #[expect(unsafe_code, reason = "a store to a checked array")]
        unsafe {
            _mm512_storeu_ps(outputs.as_mut_ptr(), *sum);
        }
    }
}

/// The end of a group: scales its integer sums into the float sums.
#[target_feature(enable = "avx512f")]
#[inline]
fn scale<const R: usize>(
    sums: &mut [__m512; R],
    dots: &[__m512i; R],
    weights: &[u8; 32],
    activations: &[f32; R],
) {
    let s = halves(weights);
    for r in 0..R {
        let scale = _mm512_mul_ps(s, _mm512_set1_ps(activations[r]));
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, sums[r]);
    }
}

/// Adds what the minima of a group's weights come to.
#[target_feature(enable = "avx512f")]
#[inline]
fn add_minima<const R: usize>(sums: &mut [__m512; R], minima: &[u8; 32], shifts: &[f32; R]) {
    let m = halves(minima);
    for r in 0..R {
        sums[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(shifts[r]), sums[r]);
    }
}

/// Eight-bit weights in groups of `BYTES` bytes, which are symmetric in the shorter ones.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn eight<const R: usize, const BYTES: usize>(
    panel: &[u8],
    ahead: Ahead,
    tile: EightTile<'_>,
    outputs: &mut TileOutputs,
) {
    let symmetric = BYTES == W8_SYMMETRIC_GROUP;
    let panel = panel.as_chunks::<BYTES>().0;
    let (values, _) = tile.values.as_chunks::<R>();
    let numbers = tile.scales.as_chunks::<R>().0.iter().zip(tile.shifts.as_chunks::<R>().0);
    let numbers = numbers.zip(tile.offsets.as_chunks::<R>().0);
    let mut sums = [_mm512_setzero_ps(); R];
    for (g, ((group, values), ((scales, shifts), offsets))) in
        panel.iter().zip(values).zip(numbers).enumerate()
    {
        ahead.fetch::<R>(g);
        let (weights, halves) = group.split_at(Format::W8.weight_bytes());
        let halves = halves.as_chunks::<32>().0;
        let mut dots = [_mm512_setzero_si512(); R];
        if symmetric {
            for r in 0..R {
                dots[r] = _mm512_set1_epi32(offsets[r]);
            }
        }
        for (q, bytes) in weights.as_chunks::<64>().0.iter().enumerate() {
            let weights = line(bytes);
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, quad(&values[r], q));
            }
        }
        scale(&mut sums, &dots, &halves[0], scales);
        if !symmetric {
            add_minima(&mut sums, &halves[1], shifts);
        }
    }
    store(&sums, outputs);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn four<const R: usize>(
    panel: &[u8],
    ahead: Ahead,
    tile: EightTile<'_>,
    outputs: &mut TileOutputs,
) {
    let panel = panel.as_chunks::<W4_GROUP>().0;
    let (values, _) = tile.values.as_chunks::<R>();
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(tile.shifts.as_chunks::<R>().0);
    let low = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); R];
    for (g, ((group, values), (scales, shifts))) in panel.iter().zip(values).zip(scales).enumerate()
    {
        ahead.fetch::<R>(g);
        let (weights, halves) = group.split_at(Format::W4.weight_bytes());
        let halves = halves.as_chunks::<32>().0;
        let mut dots = [_mm512_setzero_si512(); R];
        for (q, bytes) in weights.as_chunks::<64>().0.iter().enumerate() {
            let both = line(bytes);
            let weights = _mm512_and_si512(both, low);
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, quad(&values[r], 2 * q));
            }
            let weights = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low);
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, quad(&values[r], 2 * q + 1));
            }
        }
        scale(&mut sums, &dots, &halves[0], scales);
        add_minima(&mut sums, &halves[1], shifts);
    }
    store(&sums, outputs);
}

/// Two bf16 activations, in every lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn pair(values: &[u16; GROUP], pair: usize) -> __m512bh {
    let [a, b] = values.as_chunks::<2>().0[pair];
    bits(_mm512_set1_epi32((u32::from(b) << 16 | u32::from(a)) as i32))
}

/// The same bits as sixteen pairs of bf16.
#[target_feature(enable = "avx512f")]
#[inline]
fn bits(v: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of which every pattern is valid.
    #[expect(unsafe_code, reason = "a vector cast for which there is no intrinsic")]
    unsafe {
        std::mem::transmute(v)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bf16<const R: usize>(
    panel: &[u8],
    ahead: Ahead,
    x: &[[u16; GROUP]],
    outputs: &mut [TileOutputs],
) {
    let groups = panel.as_chunks::<BF16_GROUP>().0;
    let mut sums = [_mm512_setzero_ps(); R];
    for (g, (x, group)) in x.as_chunks::<R>().0.iter().zip(groups).enumerate() {
        ahead.fetch::<R>(g);
        for (j, weights) in group.as_chunks::<64>().0.iter().enumerate() {
            let weights = bits(line(weights));
            for r in 0..R {
                sums[r] = _mm512_dpbf16_ps(sums[r], pair(&x[r], j), weights);
            }
        }
    }
    store(&sums, &mut outputs[0]);
}

/// Two panels share the broadcasts of activations: with one, loads and not products would
/// set the pace. (Two arrays of sums and not an array of two: the compiler would not keep
/// it in registers.)
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bf16_pair<const R: usize>(
    panels: [&[u8]; 2],
    ahead: Ahead,
    x: &[[u16; GROUP]],
    outputs: &mut [TileOutputs],
) {
    let left = panels[0].as_chunks::<BF16_GROUP>().0;
    let right = panels[1].as_chunks::<BF16_GROUP>().0;
    let (mut left_sums, mut right_sums) = ([_mm512_setzero_ps(); R], [_mm512_setzero_ps(); R]);
    for (g, (x, (left, right))) in
        x.as_chunks::<R>().0.iter().zip(left.iter().zip(right)).enumerate()
    {
        ahead.fetch::<R>(g);
        let lines = left.as_chunks::<64>().0.iter().zip(right.as_chunks::<64>().0);
        for (j, (left, right)) in lines.enumerate() {
            let (left, right) = (bits(line(left)), bits(line(right)));
            for r in 0..R {
                let x = pair(&x[r], j);
                left_sums[r] = _mm512_dpbf16_ps(left_sums[r], x, left);
                right_sums[r] = _mm512_dpbf16_ps(right_sums[r], x, right);
            }
        }
    }
    store(&left_sums, &mut outputs[0]);
    store(&right_sums, &mut outputs[1]);
}
