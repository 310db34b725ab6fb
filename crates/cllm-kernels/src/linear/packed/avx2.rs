//! AVX2: `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs to 16 bits with
//! saturation, `vpmaddwd` adds pairs of those to 32.
//!
//! Four-bit weights are at most 15, so a pair is at most 2 * 15 * 127 = 3,810. Eight-bit
//! weights would saturate; there the sign of the weight is moved to the activation, and a
//! pair is at most 2 * 127 * 127 = 32,258. Both are exact.

use std::arch::x86_64::*;

use super::panel::{Bits, PANEL, Panel};
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
    assert!(isa.has_avx2());
    // Sixteen registers hold the sums of three rows; more rows take another pass over the
    // panel, which then lies in the first-level cache.
    for (rows, outputs) in rows.chunks(3).zip(outputs.chunks_mut(3)) {
        // SAFETY: `isa` is a value that exists only where AVX2, FMA and F16C were found.
        #[expect(unsafe_code, reason = "calls functions compiled for more features")]
        unsafe {
            match rows.len() {
                1 => tile::<1>(bits, panel, rows, outputs),
                2 => tile::<2>(bits, panel, rows, outputs),
                _ => tile::<3>(bits, panel, rows, outputs),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const R: usize>(
    bits: Bits,
    panel: Panel<'_>,
    rows: &[ActivationRow<'_>],
    outputs: &mut [PanelOutputs],
) {
    let low = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for g in 0..panel.scales.len() {
        let mut dots = [[_mm256_setzero_si256(); 2]; R];
        for q in 0..GROUP / 4 {
            let weights = match bits {
                Bits::Eight => {
                    let at = (g * 8 + q) * 64;
                    // Weights are stored plus 128: flipping the top bit takes it off.
                    let flip = _mm256_set1_epi8(-128);
                    [0, 32].map(|half| _mm256_xor_si256(load(&panel.weights[at + half..]), flip))
                }
                Bits::Four => {
                    let at = (g * 4 + q / 2) * 64;
                    [0, 32].map(|half| {
                        let both = load(&panel.weights[at + half..]);
                        let nibble = if q % 2 == 0 { both } else { _mm256_srli_epi16::<4>(both) };
                        _mm256_and_si256(nibble, low)
                    })
                }
            };
            for r in 0..R {
                let [a, b, c, d] = rows[r].values[g].as_chunks::<4>().0[q].map(|v| v as u8);
                let values = _mm256_set1_epi32(i32::from_le_bytes([a, b, c, d]));
                for half in 0..2 {
                    let w = weights[half];
                    let pairs = match bits {
                        Bits::Eight => {
                            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(values, w))
                        }
                        Bits::Four => _mm256_maddubs_epi16(w, values),
                    };
                    let quads = _mm256_madd_epi16(pairs, ones);
                    dots[r][half] = _mm256_add_epi32(dots[r][half], quads);
                }
            }
        }
        for r in 0..R {
            let a = rows[r].scales[g];
            for half in 0..2 {
                let scale = _mm256_mul_ps(halves(&panel.scales[g][16 * half..]), _mm256_set1_ps(a));
                let dot = _mm256_cvtepi32_ps(dots[r][half]);
                sums[r][half] = _mm256_fmadd_ps(dot, scale, sums[r][half]);
                if bits == Bits::Four {
                    let shift = _mm256_set1_ps(a * rows[r].sums[g] as f32);
                    let minimum = halves(&panel.minima[g][16 * half..]);
                    sums[r][half] = _mm256_fmadd_ps(minimum, shift, sums[r][half]);
                }
            }
        }
    }
    for (sums, outputs) in sums.iter().zip(outputs) {
        for (half, sum) in sums.iter().enumerate() {
            let out: &mut [f32] = &mut outputs[half * PANEL / 2..][..PANEL / 2];
            // SAFETY: an unaligned store to eight borrowed floats.
            #[expect(unsafe_code, reason = "a store to a checked slice")]
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), *sum);
            }
        }
    }
}

/// The first 32 bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..32];
    // SAFETY: an unaligned load of 32 borrowed bytes.
    #[expect(unsafe_code, reason = "a load from a checked slice")]
    unsafe {
        _mm256_loadu_si256(bytes.as_ptr().cast())
    }
}

/// The first eight f16, as f32.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn halves(bytes: &[u8]) -> __m256 {
    let bytes = &bytes[..16];
    // SAFETY: an unaligned load of 16 borrowed bytes.
    #[expect(unsafe_code, reason = "a load from a checked slice")]
    let halves = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_cvtph_ps(halves)
}
