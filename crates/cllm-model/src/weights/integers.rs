//! The integers of a quantised file, taken over as they are.
//!
//! All types but Q6_K say `w = q * scale + minimum` in groups of 32, so the integer kernels
//! can run on a file's own integers: four bits as w4 or w8, five and eight as w8. Scales and
//! minima become f16: exact for the plain types, and rounded by at most 2^-11 of their value
//! for the K types, which store them as products.

use cllm_kernels::{Format, Integers};
use half::f16;

use super::DType;
use super::dequant::{fifth_bits, half_at, scale_min};

/// Whether weights of `dtype` can be stored as `format` without being rounded.
pub(super) fn fit(dtype: DType, format: Format) -> bool {
    match dtype {
        DType::Q4_0 | DType::Q4_1 | DType::Q4_K => matches!(format, Format::W4 | Format::W8),
        DType::Q5_0 | DType::Q5_1 | DType::Q5_K | DType::Q8_0 => format == Format::W8,
        DType::Q6_K | DType::F32 | DType::F16 | DType::BF16 => false,
    }
}

/// Unpacks the blocks of one row.
///
/// # Panics
/// If `dtype` has no such integers or the lengths disagree.
pub(super) fn read(dtype: DType, data: &[u8], mut out: Integers<'_>) {
    match dtype {
        DType::Q4_0 => groups::<18>(data, &mut out, |b, values| {
            nibbles(&b[2..], 0, values);
            centred(half_at(b, 0), 8.0)
        }),
        DType::Q4_1 => groups::<20>(data, &mut out, |b, values| {
            nibbles(&b[4..], 0, values);
            (half_at(b, 0), half_at(b, 2))
        }),
        DType::Q5_0 => groups::<22>(data, &mut out, |b, values| {
            nibbles(&b[6..], fifth_bits(&b[2..6]), values);
            centred(half_at(b, 0), 16.0)
        }),
        DType::Q5_1 => groups::<24>(data, &mut out, |b, values| {
            nibbles(&b[8..], fifth_bits(&b[4..8]), values);
            (half_at(b, 0), half_at(b, 2))
        }),
        DType::Q8_0 => groups::<34>(data, &mut out, |b, values| {
            values.iter_mut().zip(&b[2..]).for_each(|(v, &q)| *v = q ^ 0x80);
            centred(half_at(b, 0), 128.0)
        }),
        DType::Q4_K => super_blocks::<144>(data, &mut out, |b| (&b[16..], [0; 32])),
        DType::Q5_K => super_blocks::<176>(data, &mut out, |b| {
            let mut high = [0; 32];
            high.copy_from_slice(&b[16..48]);
            (&b[48..], high)
        }),
        other => panic!("{other} has no integers in groups of 32"),
    }
}

/// Scale and minimum of integers whose zero is `zero`, a power of two: its product with an
/// f16 is an f16, unless it overflows to infinity.
fn centred(scale: f32, zero: f32) -> (f32, f32) {
    (scale, -zero * scale)
}

/// Types with blocks of one group.
fn groups<const B: usize>(
    data: &[u8],
    out: &mut Integers<'_>,
    block: impl Fn(&[u8; B], &mut [u8]) -> (f32, f32),
) {
    let (blocks, rest) = data.as_chunks::<B>();
    assert!(rest.is_empty() && blocks.len() * 32 == out.values.len());
    for (g, (b, values)) in blocks.iter().zip(out.values.chunks_exact_mut(32)).enumerate() {
        let (scale, minimum) = block(b, values);
        (out.scales[g], out.minima[g]) = (f16::from_f32(scale), f16::from_f32(minimum));
    }
}

/// Types with blocks of eight groups; `parts` finds the nibbles of a block, and the bytes
/// whose bit g is the fifth bit of group g.
fn super_blocks<const B: usize>(
    data: &[u8],
    out: &mut Integers<'_>,
    parts: impl Fn(&[u8; B]) -> (&[u8], [u8; 32]),
) {
    let (blocks, rest) = data.as_chunks::<B>();
    assert!(rest.is_empty() && blocks.len() * 256 == out.values.len());
    for (block, (b, values)) in blocks.iter().zip(out.values.chunks_exact_mut(256)).enumerate() {
        let (d, m) = (half_at(b, 0), half_at(b, 2));
        for g in 0..8 {
            let (scale, minimum) = scale_min(&b[4..16], g);
            out.scales[block * 8 + g] = f16::from_f32(d * scale);
            out.minima[block * 8 + g] = f16::from_f32(-m * minimum);
        }
        let (nibbles, high) = parts(b);
        for (pair, (q, values)) in
            nibbles.chunks_exact(32).zip(values.chunks_exact_mut(64)).enumerate()
        {
            for (i, (&q, &high)) in q.iter().zip(&high).enumerate() {
                values[i] = (q & 15) | (high >> (2 * pair) & 1) << 4;
                values[i + 32] = (q >> 4) | (high >> (2 * pair + 1) & 1) << 4;
            }
        }
    }
}

/// 16 bytes: elements 0 to 15 in the low nibbles, 16 to 31 in the high ones; bit i of
/// `fifth` is the fifth bit of element i.
fn nibbles(bytes: &[u8], fifth: u32, values: &mut [u8]) {
    let bit = |i: usize| ((fifth >> i & 1) as u8) << 4;
    for (i, &q) in bytes.iter().enumerate() {
        values[i] = (q & 15) | bit(i);
        values[i + 16] = (q >> 4) | bit(i + 16);
    }
}

#[cfg(test)]
mod tests {
    use super::super::dequant::dequantize;
    use super::*;
    use proptest::prelude::*;

    /// Random bytes with sane scales are the same weights by both readers.
    fn check(dtype: DType, bytes: &[u8], tolerance: f32) {
        let mut data = bytes[..bytes.len() / dtype.block_bytes() * dtype.block_bytes()].to_vec();
        for block in data.chunks_exact_mut(dtype.block_bytes()) {
            block[..2].copy_from_slice(&f16::from_f32(0.37).to_le_bytes());
            if matches!(dtype, DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K) {
                block[2..4].copy_from_slice(&f16::from_f32(-1.23).to_le_bytes());
            }
        }
        let len = data.len() / dtype.block_bytes() * dtype.block_len();
        let mut want = vec![0.0; len];
        dequantize(dtype, &data, &mut want);
        let mut values = vec![0; len];
        let (mut scales, mut minima) = (vec![f16::ZERO; len / 32], vec![f16::ZERO; len / 32]);
        let out = Integers { values: &mut values, scales: &mut scales, minima: &mut minima };
        read(dtype, &data, out);
        let most = if fit(dtype, Format::W4) { 16 } else { 256 };
        for (i, want) in want.iter().enumerate() {
            let (scale, minimum) = (scales[i / 32].to_f32(), minima[i / 32].to_f32());
            assert!(u16::from(values[i]) < most);
            let found = f32::from(values[i]) * scale + minimum;
            let size = f32::from(most) * scale.abs() + minimum.abs();
            assert!((found - want).abs() <= tolerance * size, "{dtype}[{i}]: {found} {want}");
        }
    }

    proptest! {
        #[test]
        fn the_integers_stand_for_the_same_weights(bytes in prop::collection::vec(any::<u8>(), 720)) {
            for dtype in DType::ALL.into_iter().filter(|&dtype| fit(dtype, Format::W8)) {
                let product = matches!(dtype, DType::Q4_K | DType::Q5_K);
                check(dtype, &bytes, if product { 1e-3 } else { 2e-7 });
            }
        }
    }
}
