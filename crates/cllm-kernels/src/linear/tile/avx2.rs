//! AVX2: `vpmaddubsw` multiplies unsigned by signed bytes and adds pairs to 16 bits with
//! saturation, `vpmaddwd` adds pairs of those to 32. AVX-VNNI does both at once and does
//! not saturate.
//!
//! Four-bit weights are at most 15, so a pair is at most 2 * 15 * 127 = 3,810, and the eight
//! pairs of a group are added up in 16 bits: 30,480. Eight-bit weights would saturate: with
//! AVX2 alone, 128 is taken off them, their sign is moved to the activation, and a pair is at
//! most 2 * 128 * 127 = 32,512; 128 times the sum of the activations is added again, unless the
//! weights are meant without that 128. All of it is exact.
//!
//! A tile keeps its integer sums in registers: of all sixteen outputs for up to four rows; of
//! eight outputs, and then of the other eight, for more. Its float sums may be in memory, where
//! they are wanted once a group.

use std::arch::x86_64::*;

use super::super::Format;
use super::super::panel::PANEL;
use super::{Ahead, EightTile, TileOutputs};
use crate::Isa;
use crate::activations::{GROUP, TILE_ROWS};

/// Runs a tile. `isa` is the proof that the instructions exist.
pub(super) fn run(
    isa: Isa,
    format: Format,
    panel: &[u8],
    ahead: Ahead,
    tile: EightTile<'_>,
    outputs: &mut TileOutputs,
) {
    assert!(isa.has_avx2() && (1..=TILE_ROWS).contains(&tile.rows));
    let eight = format == Format::W8;
    // SAFETY: `isa` is a value that exists only where these features were found.
    #[expect(unsafe_code, reason = "calls functions compiled for more features")]
    unsafe {
        match (isa.has_avx_vnni(), eight) {
            (false, true) => plain::rows::<true>(panel, ahead, tile, outputs),
            (false, false) => plain::rows::<false>(panel, ahead, tile, outputs),
            (true, true) => vnni::rows::<true>(panel, ahead, tile, outputs),
            (true, false) => vnni::rows::<false>(panel, ahead, tile, outputs),
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
fn floats(bytes: &[u8]) -> __m256 {
    let bytes = &bytes[..16];
    // SAFETY: an unaligned load of 16 borrowed bytes.
    #[expect(unsafe_code, reason = "a load from a checked slice")]
    let halves = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_cvtph_ps(halves)
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(v: __m256, to: &mut [f32]) {
    let to = &mut to[..8];
    // SAFETY: an unaligned store to eight borrowed floats.
    #[expect(unsafe_code, reason = "a store to a checked slice")]
    unsafe {
        _mm256_storeu_ps(to.as_mut_ptr(), v);
    }
}

/// Four bytes of activations, in every lane.
#[target_feature(enable = "avx2")]
#[inline]
fn quad(values: &[i8; GROUP], quad: usize) -> __m256i {
    let [a, b, c, d] = values.as_chunks::<4>().0[quad].map(|v| v as u8);
    _mm256_set1_epi32(i32::from_le_bytes([a, b, c, d]))
}

/// The activations of a group.
#[derive(Clone, Copy)]
struct Group<'a, const R: usize> {
    symmetric: bool,
    values: &'a [[i8; GROUP]; R],
    scales: &'a [f32; R],
    shifts: &'a [f32; R],
    offsets: &'a [i32; R],
}

impl<'a, const R: usize> Group<'a, R> {
    /// Those of a tile of `R` rows.
    fn all(tile: EightTile<'a>) -> impl Iterator<Item = Self> {
        let values = tile.values.as_chunks().0.iter().zip(tile.offsets.as_chunks().0);
        let numbers = tile.scales.as_chunks().0.iter().zip(tile.shifts.as_chunks().0);
        values.zip(numbers).map(move |((values, offsets), (scales, shifts))| Self {
            symmetric: tile.symmetric,
            values,
            scales,
            shifts,
            offsets,
        })
    }
}

/// More rows than this are computed for eight outputs at a time: 2 x 4 sums, two vectors of
/// weights, two halves of those and two constants are 14 registers.
const BOTH_HALVES: usize = 4;

/// Calls a function with the number of rows as its last constant.
macro_rules! with_rows {
    ($rows:expr, $f:ident::<$eight:ident>($($arg:ident),*)) => {
        match $rows {
            1 => $f::<$eight, 1>($($arg),*),
            2 => $f::<$eight, 2>($($arg),*),
            3 => $f::<$eight, 3>($($arg),*),
            4 => $f::<$eight, 4>($($arg),*),
            5 => $f::<$eight, 5>($($arg),*),
            6 => $f::<$eight, 6>($($arg),*),
            7 => $f::<$eight, 7>($($arg),*),
            8 => $f::<$eight, 8>($($arg),*),
            9 => $f::<$eight, 9>($($arg),*),
            10 => $f::<$eight, 10>($($arg),*),
            11 => $f::<$eight, 11>($($arg),*),
            12 => $f::<$eight, 12>($($arg),*),
            n => unreachable!("tiles have 1 to {TILE_ROWS} rows, not {n}"),
        }
    };
}

/// Defines `rows`, which runs a tile. It is compiled with `$features`, adds products of bytes to
/// sums by `$dot`, and makes 32-bit sums of those by `$widen`. `$less` is what `$dot` takes off
/// eight-bit weights: 128 or nothing.
macro_rules! integer_rows {
    ($name:ident, $features:literal, less $less:literal, $dot:item $widen:item) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            #[inline]
            $dot

            #[target_feature(enable = $features)]
            #[inline]
            $widen

            #[target_feature(enable = $features)]
            pub(super) fn rows<const EIGHT: bool>(
                panel: &[u8],
                ahead: Ahead,
                tile: EightTile<'_>,
                outputs: &mut TileOutputs,
            ) {
                with_rows!(tile.rows, exactly::<EIGHT>(panel, ahead, tile, outputs));
            }

            #[target_feature(enable = $features)]
            fn exactly<const EIGHT: bool, const R: usize>(
                panel: &[u8],
                ahead: Ahead,
                tile: EightTile<'_>,
                outputs: &mut TileOutputs,
            ) {
                if R <= BOTH_HALVES {
                    return halves::<EIGHT, R, 2>(panel, 0, ahead, tile, outputs);
                }
                for (half, ahead) in ahead.halves(tile.values.len() / R).into_iter().enumerate() {
                    halves::<EIGHT, R, 1>(panel, half, ahead, tile, outputs);
                }
            }

            /// Computes `H` halves of a panel, from `first` on.
            #[target_feature(enable = $features)]
            fn halves<const EIGHT: bool, const R: usize, const H: usize>(
                panel: &[u8],
                first: usize,
                ahead: Ahead,
                tile: EightTile<'_>,
                outputs: &mut TileOutputs,
            ) {
                let format = if EIGHT { Format::W8 } else { Format::W4 };
                let mut sums = [[_mm256_setzero_ps(); H]; R];
                let panel = panel.chunks_exact(format.group_bytes(tile.symmetric));
                for (g, (weights, group)) in panel.zip(Group::<R>::all(tile)).enumerate() {
                    ahead.fetch::<R>(g);
                    let (weights, numbers) = weights.split_at(format.weight_bytes());
                    let dots = group_dots::<EIGHT, R, H>(weights, first, group);
                    for h in 0..H {
                        let at = 16 * (first + h);
                        let scale = floats(&numbers[at..]);
                        for r in 0..R {
                            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(group.scales[r]));
                            let dot = _mm256_cvtepi32_ps(dots[r][h]);
                            sums[r][h] = _mm256_fmadd_ps(dot, scale, sums[r][h]);
                        }
                        if !group.symmetric {
                            let minimum = floats(&numbers[2 * PANEL + at..]);
                            for r in 0..R {
                                let shift = _mm256_set1_ps(group.shifts[r]);
                                sums[r][h] = _mm256_fmadd_ps(minimum, shift, sums[r][h]);
                            }
                        }
                    }
                }
                for (sums, outputs) in sums.iter().zip(outputs) {
                    for (h, sum) in sums.iter().enumerate() {
                        store(*sum, &mut outputs[(first + h) * PANEL / 2..]);
                    }
                }
            }

            /// The integer sums of a group.
            #[target_feature(enable = $features)]
            #[inline]
            fn group_dots<const EIGHT: bool, const R: usize, const H: usize>(
                weights: &[u8],
                first: usize,
                group: Group<'_, R>,
            ) -> [[__m256i; H]; R] {
                let mut dots = [[_mm256_setzero_si256(); H]; R];
                for (i, line) in weights.as_chunks::<64>().0.iter().enumerate() {
                    let line: [_; H] = std::array::from_fn(|h| load(&line[32 * (first + h)..]));
                    if EIGHT {
                        add_quad::<EIGHT, R, H>(&mut dots, line, group.values, i);
                    } else {
                        let low = _mm256_set1_epi8(15);
                        let weights = line.map(|both| _mm256_and_si256(both, low));
                        add_quad::<EIGHT, R, H>(&mut dots, weights, group.values, 2 * i);
                        let high = line.map(|both| _mm256_srli_epi16::<4>(both));
                        let weights = high.map(|both| _mm256_and_si256(both, low));
                        add_quad::<EIGHT, R, H>(&mut dots, weights, group.values, 2 * i + 1);
                    }
                }
                // An offset is -128 times the sum of the activations.
                let less = if EIGHT { $less } else { 0 };
                for (dots, &offset) in dots.iter_mut().zip(group.offsets) {
                    for dot in dots {
                        *dot = widen::<EIGHT>(*dot);
                        if group.symmetric && less == 0 {
                            *dot = _mm256_add_epi32(*dot, _mm256_set1_epi32(offset));
                        } else if !group.symmetric && less == 128 {
                            *dot = _mm256_sub_epi32(*dot, _mm256_set1_epi32(offset));
                        }
                    }
                }
                dots
            }

            /// Adds the products of four inputs.
            #[target_feature(enable = $features)]
            #[inline]
            fn add_quad<const EIGHT: bool, const R: usize, const H: usize>(
                dots: &mut [[__m256i; H]; R],
                weights: [__m256i; H],
                values: &[[i8; GROUP]; R],
                q: usize,
            ) {
                for r in 0..R {
                    let values = quad(&values[r], q);
                    for h in 0..H {
                        dots[r][h] = dot::<EIGHT>(dots[r][h], weights[h], values);
                    }
                }
            }
        }
    };
}

integer_rows! {
    plain, "avx2,fma,f16c", less 128,
    fn dot<const EIGHT: bool>(sum: __m256i, weights: __m256i, values: __m256i) -> __m256i {
        if !EIGHT {
            return _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, values));
        }
        // Flipping the top bit takes 128 off.
        let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
        let values = _mm256_sign_epi8(values, signed);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), values);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
    fn widen<const EIGHT: bool>(sum: __m256i) -> __m256i {
        if EIGHT { sum } else { _mm256_madd_epi16(sum, _mm256_set1_epi16(1)) }
    }
}

integer_rows! {
    vnni, "avx2,fma,f16c,avxvnni", less 0,
    fn dot<const EIGHT: bool>(sum: __m256i, weights: __m256i, values: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(sum, weights, values)
    }
    fn widen<const EIGHT: bool>(sum: __m256i) -> __m256i {
        sum
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
        fn widen<const EIGHT: bool>(sum: __m256i) -> __m256i {
            sum
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
                    evex::rows::<true>(panel, Ahead::NOTHING, tile, &mut found);
                } else {
                    evex::rows::<false>(panel, Ahead::NOTHING, tile, &mut found);
                }
            }
            assert_eq!(found, want, "{format}");
        }
    }
}
