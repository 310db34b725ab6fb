//! AVX-512 VNNI: `vpdpbusd` multiplies 64 unsigned by 64 signed bytes and adds each four
//! products to one of sixteen sums, without saturation.
//!
//! A tile keeps an integer and a float accumulator of each of up to twelve rows in
//! registers, and takes activations four bytes at a time, broadcast from memory.

use std::arch::x86_64::*;

use super::panel::{Bits, Panel};
use super::{PanelOutputs, TILE_ROWS};
use crate::Isa;
use crate::quant::{ActivationRow, GROUP};

/// Runs a tile. `isa` is the proof that the instructions exist.
pub(super) fn run(
    isa: Isa,
    bits: Bits,
    panel: Panel<'_>,
    rows: &[ActivationRow<'_>],
    outputs: &mut [PanelOutputs; TILE_ROWS],
) {
    assert!(isa.has_avx512());
    macro_rules! tiles {
        ($($n:literal)*) => {
            match (rows.len(), bits) {
                $(
                    // SAFETY: `isa` is a value that exists only where AVX-512 F, BW, VL and
                    // VNNI were found.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    ($n, Bits::Four) => unsafe { four::<$n>(panel, rows, outputs) },
                    // SAFETY: as above.
                    #[expect(unsafe_code, reason = "calls a function compiled for more features")]
                    ($n, Bits::Eight) => unsafe { eight::<$n>(panel, rows, outputs) },
                )*
                (n, _) => unreachable!("tiles have 1 to {TILE_ROWS} rows, not {n}"),
            }
        };
    }
    tiles!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// Four activations, in every lane.
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

/// Asks for the line that follows the panel by the distance of this one from its start, so
/// that the next panel arrives while this one is in work.
#[target_feature(enable = "avx512f")]
#[inline]
fn prefetch(bytes: &[u8; 64], distance: usize) {
    _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(distance).cast());
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(sums: &[__m512], outputs: &mut [PanelOutputs; TILE_ROWS]) {
    for (sum, outputs) in sums.iter().zip(outputs) {
        // SAFETY: an unaligned store to a borrowed array of sixteen floats.
        #[expect(unsafe_code, reason = "a store to a checked array")]
        unsafe {
            _mm512_storeu_ps(outputs.as_mut_ptr(), *sum);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn eight<const R: usize>(
    panel: Panel<'_>,
    rows: &[ActivationRow<'_>],
    outputs: &mut [PanelOutputs; TILE_ROWS],
) {
    let groups = panel.scales.len();
    let lines = &panel.weights.as_chunks::<64>().0.as_chunks::<8>().0[..groups];
    let rows: [ActivationRow<'_>; R] = std::array::from_fn(|r| trim(rows[r], groups));
    let distance = panel.weights.len();
    let mut sums = [_mm512_setzero_ps(); R];
    for (g, lines) in lines.iter().enumerate() {
        let mut dots = [_mm512_setzero_si512(); R];
        for r in 0..R {
            // Weights are stored plus 128; taking 128 times the activations off again here
            // costs nothing.
            dots[r] = _mm512_set1_epi32(-128 * rows[r].sums[g]);
        }
        for (q, bytes) in lines.iter().enumerate() {
            let weights = line(bytes);
            prefetch(bytes, distance);
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, quad(&rows[r].values[g], q));
            }
        }
        let scale = halves(&panel.scales[g]);
        for r in 0..R {
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(rows[r].scales[g]));
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, sums[r]);
        }
    }
    store(&sums, outputs);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn four<const R: usize>(
    panel: Panel<'_>,
    rows: &[ActivationRow<'_>],
    outputs: &mut [PanelOutputs; TILE_ROWS],
) {
    let groups = panel.scales.len();
    let lines = &panel.weights.as_chunks::<64>().0.as_chunks::<4>().0[..groups];
    let rows: [ActivationRow<'_>; R] = std::array::from_fn(|r| trim(rows[r], groups));
    let minima = &panel.minima[..groups];
    let distance = panel.weights.len();
    let low = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); R];
    for (g, lines) in lines.iter().enumerate() {
        let mut dots = [_mm512_setzero_si512(); R];
        for (q, bytes) in lines.iter().enumerate() {
            let both = line(bytes);
            prefetch(bytes, distance);
            let weights = _mm512_and_si512(both, low);
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, quad(&rows[r].values[g], 2 * q));
            }
            let weights = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low);
            for r in 0..R {
                dots[r] =
                    _mm512_dpbusd_epi32(dots[r], weights, quad(&rows[r].values[g], 2 * q + 1));
            }
        }
        let (scale, minimum) = (halves(&panel.scales[g]), halves(&minima[g]));
        for r in 0..R {
            let a = rows[r].scales[g];
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(a));
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), scale, sums[r]);
            let shift = _mm512_set1_ps(a * rows[r].sums[g] as f32);
            sums[r] = _mm512_fmadd_ps(minimum, shift, sums[r]);
        }
    }
    store(&sums, outputs);
}

/// The row cut to the panel's groups, so that the compiler sees equal lengths.
#[inline(always)]
fn trim(row: ActivationRow<'_>, groups: usize) -> ActivationRow<'_> {
    ActivationRow {
        values: &row.values[..groups],
        scales: &row.scales[..groups],
        sums: &row.sums[..groups],
    }
}
