//! AVX2: `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs to 16 bits with
//! saturation, `vpmaddwd` adds pairs of those to 32. AVX-VNNI does both at once and does
//! not saturate.
//!
//! Four-bit weights are at most 15, so a pair is at most 2 * 15 * 127 = 3,810. Eight-bit
//! weights would saturate: with AVX2 alone, 128 is taken off them, their sign is moved to
//! the activation, and a pair is at most 2 * 128 * 127 = 32,512; 128 times the sum of the
//! activations is added again, unless the weights are meant without that 128. All of it is exact.

use std::arch::x86_64::*;

use super::super::Format;
use super::super::panel::PANEL;
use super::{EightTile, PanelOutputs, TileOutputs};
use crate::Isa;
use crate::activations::{GROUP, TILE_ROWS};

/// Runs a tile. `isa` is the proof that the instructions exist.
pub(super) fn run(
    isa: Isa,
    format: Format,
    panel: &[u8],
    tile: EightTile<'_>,
    outputs: &mut TileOutputs,
) {
    assert!(isa.has_avx2() && (1..=TILE_ROWS).contains(&tile.rows));
    let eight = format == Format::W8;
    // SAFETY: `isa` is a value that exists only where these features were found.
    #[expect(unsafe_code, reason = "calls functions compiled for more features")]
    unsafe {
        match (isa.has_avx_vnni(), eight) {
            (false, true) => plain::rows::<true>(panel, tile, outputs),
            (false, false) => plain::rows::<false>(panel, tile, outputs),
            (true, true) => vnni::rows::<true>(panel, tile, outputs),
            (true, false) => vnni::rows::<false>(panel, tile, outputs),
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

/// Weights of four inputs and eight outputs, as unsigned bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn unsigned<const EIGHT: bool>(group: &[u8], q: usize, half: usize) -> __m256i {
    if EIGHT {
        return load(&group[q * 64 + 32 * half..]);
    }
    let both = load(&group[q / 2 * 64 + 32 * half..]);
    let nibble = if q.is_multiple_of(2) { both } else { _mm256_srli_epi16::<4>(both) };
    _mm256_and_si256(nibble, _mm256_set1_epi8(15))
}

/// Defines `rows`, which runs a tile; it is compiled with `$features` and adds products of
/// bytes to sums by `$dot`. `$less` is what `$dot` takes off eight-bit weights: 128 or nothing.
macro_rules! integer_rows {
    ($name:ident, $features:literal, less $less:literal, $dot:item) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            #[inline]
            $dot

            /// Sixteen registers hold the sums of three rows; more rows take another pass
            /// over the panel, which then lies in the first-level cache.
            #[target_feature(enable = $features)]
            pub(super) fn rows<const EIGHT: bool>(
                panel: &[u8],
                tile: EightTile<'_>,
                outputs: &mut TileOutputs,
            ) {
                for (i, outputs) in outputs[..tile.rows].chunks_mut(3).enumerate() {
                    match outputs.len() {
                        1 => some::<EIGHT, 1>(panel, tile, 3 * i, outputs),
                        2 => some::<EIGHT, 2>(panel, tile, 3 * i, outputs),
                        _ => some::<EIGHT, 3>(panel, tile, 3 * i, outputs),
                    }
                }
            }

            #[target_feature(enable = $features)]
            fn some<const EIGHT: bool, const R: usize>(
                panel: &[u8],
                tile: EightTile<'_>,
                first: usize,
                outputs: &mut [PanelOutputs],
            ) {
                let mut sums = [[_mm256_setzero_ps(); 2]; R];
                let format = if EIGHT { Format::W8 } else { Format::W4 };
                let bytes = format.group_bytes(tile.symmetric);
                for (g, group) in panel.chunks_exact(bytes).enumerate() {
                    let at = g * tile.rows + first;
                    let values = &tile.values[at..at + R];
                    // An offset is -128 times the sum of the activations.
                    let times = match (tile.symmetric, EIGHT && $less == 128) {
                        (true, false) => 1,
                        (false, true) => -1,
                        _ => 0,
                    };
                    let mut dots: [[__m256i; 2]; R] = std::array::from_fn(|r| {
                        [_mm256_set1_epi32(times * tile.offsets[at + r]); 2]
                    });
                    for q in 0..GROUP / 4 {
                        let weights = [0, 1].map(|half| unsigned::<EIGHT>(group, q, half));
                        for r in 0..R {
                            let [a, b, c, d] = values[r].as_chunks::<4>().0[q].map(|v| v as u8);
                            let values = _mm256_set1_epi32(i32::from_le_bytes([a, b, c, d]));
                            for half in 0..2 {
                                dots[r][half] = dot::<EIGHT>(dots[r][half], weights[half], values);
                            }
                        }
                    }
                    let scales = &group[format.weight_bytes()..];
                    for r in 0..R {
                        let a = _mm256_set1_ps(tile.scales[at + r]);
                        let shift = _mm256_set1_ps(tile.shifts[at + r]);
                        for half in 0..2 {
                            let scale = _mm256_mul_ps(halves(&scales[16 * half..]), a);
                            let dot = _mm256_cvtepi32_ps(dots[r][half]);
                            sums[r][half] = _mm256_fmadd_ps(dot, scale, sums[r][half]);
                            if !tile.symmetric {
                                let minimum = halves(&scales[2 * PANEL + 16 * half..]);
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
        }
    };
}

integer_rows! {
    plain, "avx2,fma,f16c", less 128,
    fn dot<const EIGHT: bool>(sum: __m256i, weights: __m256i, values: __m256i) -> __m256i {
        let pairs = if EIGHT {
            // Flipping the top bit takes 128 off.
            let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
            _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(values, signed))
        } else {
            _mm256_maddubs_epi16(weights, values)
        };
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

integer_rows! {
    vnni, "avx2,fma,f16c,avxvnni", less 0,
    fn dot<const EIGHT: bool>(sum: __m256i, weights: __m256i, values: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(sum, weights, values)
    }
}

/// The same with the instruction in AVX-512's encoding, so that machines with AVX-512 and
/// without AVX-VNNI can test what surrounds it.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::{Activations, Rows};
    use crate::linear::Linear;
    use crate::linear::tests::noise;
    use crate::{Isa, Pool};

    integer_rows! {
        evex, "avx2,fma,f16c,avx512vl,avx512vnni", less 0,
        fn dot<const EIGHT: bool>(sum: __m256i, weights: __m256i, values: __m256i) -> __m256i {
            _mm256_dpbusd_epi32(sum, weights, values)
        }
    }

    #[test]
    fn the_vnni_tile_equals_the_definition() {
        if !Isa::available().into_iter().any(Isa::has_avx512) {
            // Nothing to test it with: this machine has no AVX-512 VNNI.
            return;
        }
        for (format, rows) in [(Format::W8, 7), (Format::W4, 12), (Format::W8, 1)] {
            let (k, x) = (96, noise(rows * 96, 5));
            let linear = Linear::from_f32(PANEL, k, &noise(PANEL * k, 4), format);
            let mut activations = Activations::default();
            activations.fill(Isa::PORTABLE, &mut Pool::single(), format, Rows::all(&x, k));
            let crate::activations::Store::Eight(eight) = activations.store() else {
                panic!("integers take eight bits")
            };
            let tile = EightTile::new(eight, 0..rows * k / GROUP, rows, linear.panels.symmetric());
            let (mut want, mut found) = ([[0.0; PANEL]; TILE_ROWS], [[0.0; PANEL]; TILE_ROWS]);
            let panel = linear.panels.panel(0);
            super::super::portable::run(format, panel, tile, &mut want);
            // SAFETY: the features were checked above; AVX2 comes with AVX-512.
            #[expect(unsafe_code, reason = "calls functions compiled for more features")]
            unsafe {
                if format == Format::W8 {
                    evex::rows::<true>(panel, tile, &mut found);
                } else {
                    evex::rows::<false>(panel, tile, &mut found);
                }
            }
            assert_eq!(found, want, "{format}");
        }
    }
}
