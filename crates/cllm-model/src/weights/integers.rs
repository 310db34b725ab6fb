//! The integers of four-bit files, taken over as they are.
//!
//! Q4_0, Q4_1 and Q4_K all say `w = q * scale + minimum` in groups of 32 with q from 0 to
//! 15, so the four-bit kernels can run on a file's own integers. Scales and minima become
//! f16: exact for Q4_0 and Q4_1, and rounded by at most 2^-11 of their value for Q4_K,
//! which stores them as products.

use cllm_kernels::FourBits;
use half::f16;

use super::DType;
use super::dequant::{half_at, scale_min};

/// Whether `dtype` is a four-bit type.
pub(super) fn fits(dtype: DType) -> bool {
    matches!(dtype, DType::Q4_0 | DType::Q4_1 | DType::Q4_K)
}

/// Unpacks the blocks of one row.
///
/// # Panics
/// If `dtype` is not a four-bit type or the lengths disagree.
pub(super) fn read(dtype: DType, data: &[u8], out: FourBits<'_>) {
    match dtype {
        DType::Q4_0 => {
            for (g, b) in blocks::<18>(data, &out, 32) {
                let d = half_at(b, 0);
                // Eight times an f16 is an f16, unless it overflows to infinity.
                (out.scales[g], out.minima[g]) = (f16::from_f32(d), f16::from_f32(-8.0 * d));
                nibbles(&b[2..], &mut out.values[g * 32..][..32]);
            }
        }
        DType::Q4_1 => {
            for (g, b) in blocks::<20>(data, &out, 32) {
                out.scales[g] = f16::from_f32(half_at(b, 0));
                out.minima[g] = f16::from_f32(half_at(b, 2));
                nibbles(&b[4..], &mut out.values[g * 32..][..32]);
            }
        }
        DType::Q4_K => {
            for (block, b) in blocks::<144>(data, &out, 256) {
                let (d, m) = (half_at(b, 0), half_at(b, 2));
                for g in 0..8 {
                    let (scale, minimum) = scale_min(&b[4..16], g);
                    out.scales[block * 8 + g] = f16::from_f32(d * scale);
                    out.minima[block * 8 + g] = f16::from_f32(-m * minimum);
                }
                for (pair, q) in b[16..].chunks_exact(32).enumerate() {
                    let values = &mut out.values[block * 256 + pair * 64..][..64];
                    for (i, &q) in q.iter().enumerate() {
                        values[i] = (q & 15) as i8;
                        values[i + 32] = (q >> 4) as i8;
                    }
                }
            }
        }
        other => panic!("{other} has no four-bit integers"),
    }
}

/// The blocks of a row with their index; checks that they hold its values.
fn blocks<'a, const B: usize>(
    data: &'a [u8],
    out: &FourBits<'_>,
    len: usize,
) -> impl Iterator<Item = (usize, &'a [u8; B])> + use<'a, B> {
    let (blocks, rest) = data.as_chunks::<B>();
    assert!(rest.is_empty() && blocks.len() * len == out.values.len());
    blocks.iter().enumerate()
}

/// 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones.
fn nibbles(bytes: &[u8], values: &mut [i8]) {
    for (i, &q) in bytes.iter().enumerate() {
        values[i] = (q & 15) as i8;
        values[i + 16] = (q >> 4) as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::super::dequant::dequantize;
    use super::*;
    use proptest::prelude::*;

    /// Random bytes with sane scales are the same weights by both readers.
    fn check(dtype: DType, mut data: Vec<u8>, tolerance: f32) {
        for block in data.chunks_exact_mut(dtype.block_bytes()) {
            block[..2].copy_from_slice(&f16::from_f32(0.37).to_le_bytes());
            if dtype != DType::Q4_0 {
                block[2..4].copy_from_slice(&f16::from_f32(-1.23).to_le_bytes());
            }
        }
        let len = data.len() / dtype.block_bytes() * dtype.block_len();
        let mut want = vec![0.0; len];
        dequantize(dtype, &data, &mut want);
        let mut values = vec![0; len];
        let (mut scales, mut minima) = (vec![f16::ZERO; len / 32], vec![f16::ZERO; len / 32]);
        let out = FourBits { values: &mut values, scales: &mut scales, minima: &mut minima };
        read(dtype, &data, out);
        for (i, want) in want.iter().enumerate() {
            let (scale, minimum) = (scales[i / 32].to_f32(), minima[i / 32].to_f32());
            assert!((0..16).contains(&values[i]));
            let found = f32::from(values[i]) * scale + minimum;
            let size = 15.0 * scale.abs() + minimum.abs();
            assert!((found - want).abs() <= tolerance * size, "{dtype}[{i}]: {found} {want}");
        }
    }

    proptest! {
        #[test]
        fn the_integers_stand_for_the_same_weights(bytes in prop::collection::vec(any::<u8>(), 288)) {
            check(DType::Q4_0, bytes[..18 * 8].to_vec(), 1e-7);
            check(DType::Q4_1, bytes[..20 * 8].to_vec(), 1e-7);
            check(DType::Q4_K, bytes.clone(), 1e-3);
        }
    }
}
