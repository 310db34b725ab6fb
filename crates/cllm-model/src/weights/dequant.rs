//! From stored blocks to f32.
//!
//! The formulas are those of ggml's reference code, in f32 and in its order of
//! operations, so that the bits agree: `q * d` or `q * d + m`, never fused. `q` is an
//! unsigned integer of 4 to 8 bits, `d` and `m` are f16.
//!
//! | type | block | value |
//! |---|---|---|
//! | Q4_0 | d, 16 B of nibbles | `(q - 8) d` |
//! | Q4_1 | d, m, nibbles | `q d + m` |
//! | Q5_0 | d, 4 B of fifth bits, nibbles | `(q - 16) d` |
//! | Q5_1 | d, m, fifth bits, nibbles | `q d + m` |
//! | Q8_0 | d, 32 signed bytes | `q d` |
//! | Q4_K | d, m, 12 B of 6-bit `s`, `t`; nibbles | `q (d s) - m t` |
//! | Q5_K | d, m, `s` and `t`; 32 B of fifth bits; nibbles | `q (d s) - m t` |
//! | Q6_K | 128 B of nibbles, 64 B of upper bit pairs, 16 signed `s`, d | `(q - 32) (d s)` |
//!
//! In blocks of 32 the low nibbles are elements 0 to 15 and the high ones 16 to 31. In
//! blocks of 256 a run of 32 bytes holds 64 elements the same way.
//!
//! This is the loader's reference, not a kernel: kernels multiply blocks without
//! unpacking them and live in `cllm-kernels`.

use half::{bf16, f16};

use super::DType;

/// Unpacks whole blocks: `data` has `n * block_bytes` bytes, `out` `n * block_len` values.
///
/// # Panics
/// If the lengths disagree.
pub(crate) fn dequantize(dtype: DType, data: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => {
            each(data, out, |b: &[u8; 4], o: &mut [f32; 1]| o[0] = f32::from_le_bytes(*b))
        }
        DType::F16 => each(data, out, |b: &[u8; 2], o: &mut [f32; 1]| o[0] = half_at(b, 0)),
        DType::BF16 => each(data, out, |b: &[u8; 2], o: &mut [f32; 1]| {
            o[0] = bf16::from_le_bytes(*b).to_f32();
        }),
        DType::Q4_0 => each(data, out, q4_0),
        DType::Q4_1 => each(data, out, q4_1),
        DType::Q5_0 => each(data, out, q5_0),
        DType::Q5_1 => each(data, out, q5_1),
        DType::Q8_0 => each(data, out, q8_0),
        DType::Q4_K => each(data, out, q4_k),
        DType::Q5_K => each(data, out, q5_k),
        DType::Q6_K => each(data, out, q6_k),
    }
}

/// Runs `block` on every block of `B` bytes and its `N` values. Array types, so that the
/// bounds checks inside the blocks vanish.
fn each<const B: usize, const N: usize>(
    data: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let (blocks, rest) = data.as_chunks::<B>();
    let (values, tail) = out.as_chunks_mut::<N>();
    assert!(
        rest.is_empty() && tail.is_empty() && blocks.len() == values.len(),
        "{} bytes are not the blocks of {} values",
        data.len(),
        out.len()
    );
    for (b, v) in blocks.iter().zip(values) {
        block(b, v);
    }
}

/// The f16 at byte `at`.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (i, &q) in b[2..].iter().enumerate() {
        out[i] = (i32::from(q & 15) - 8) as f32 * d;
        out[i + 16] = (i32::from(q >> 4) - 8) as f32 * d;
    }
}

fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for (i, &q) in b[4..].iter().enumerate() {
        out[i] = f32::from(q & 15) * d + m;
        out[i + 16] = f32::from(q >> 4) * d + m;
    }
}

/// The fifth bits of a block of 32, element i in bit i.
pub(super) fn fifth_bits(b: &[u8]) -> u32 {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (half_at(b, 0), fifth_bits(&b[2..6]));
    for (i, &q) in b[6..].iter().enumerate() {
        let lower = u32::from(q & 15) | (high >> i & 1) << 4;
        let upper = u32::from(q >> 4) | (high >> (i + 16) & 1) << 4;
        out[i] = (lower as i32 - 16) as f32 * d;
        out[i + 16] = (upper as i32 - 16) as f32 * d;
    }
}

fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (half_at(b, 0), half_at(b, 2), fifth_bits(&b[4..8]));
    for (i, &q) in b[8..].iter().enumerate() {
        let lower = u32::from(q & 15) | (high >> i & 1) << 4;
        let upper = u32::from(q >> 4) | (high >> (i + 16) & 1) << 4;
        out[i] = lower as f32 * d + m;
        out[i + 16] = upper as f32 * d + m;
    }
}

fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for (o, &q) in out.iter_mut().zip(&b[2..]) {
        *o = f32::from(q as i8) * d;
    }
}

/// Scale and minimum of group `g` (of 8) from the 12 bytes `s`. The first four groups
/// have their 6 bits whole in bytes 0 to 3 (scales) and 4 to 7 (minima). The other four
/// have their lower four bits in bytes 8 to 11, scale below minimum, and their upper two
/// on top of the bytes of the first four.
pub(super) fn scale_min(s: &[u8], g: usize) -> (f32, f32) {
    let (scale, min) = if g < 4 {
        (s[g] & 63, s[g + 4] & 63)
    } else {
        ((s[g + 4] & 15) | (s[g - 4] >> 6) << 4, (s[g + 4] >> 4) | (s[g] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(b: &[u8; 144], out: &mut [f32; 256]) {
    let (d, m, scales) = (half_at(b, 0), half_at(b, 2), &b[4..16]);
    for (g, (qs, o)) in b[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        let ((s0, t0), (s1, t1)) = (scale_min(scales, 2 * g), scale_min(scales, 2 * g + 1));
        let (d0, m0, d1, m1) = (d * s0, m * t0, d * s1, m * t1);
        for (i, &q) in qs.iter().enumerate() {
            o[i] = d0 * f32::from(q & 15) - m0;
            o[i + 32] = d1 * f32::from(q >> 4) - m1;
        }
    }
}

fn q5_k(b: &[u8; 176], out: &mut [f32; 256]) {
    let (d, m, scales, high) = (half_at(b, 0), half_at(b, 2), &b[4..16], &b[16..48]);
    for (g, (qs, o)) in b[48..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        let ((s0, t0), (s1, t1)) = (scale_min(scales, 2 * g), scale_min(scales, 2 * g + 1));
        let (d0, m0, d1, m1) = (d * s0, m * t0, d * s1, m * t1);
        // Byte i of `high` holds the fifth bit of element i of each of the 8 groups.
        for (i, (&q, &h)) in qs.iter().zip(high).enumerate() {
            o[i] = d0 * f32::from((q & 15) | (h >> (2 * g) & 1) << 4) - m0;
            o[i + 32] = d1 * f32::from((q >> 4) | (h >> (2 * g + 1) & 1) << 4) - m1;
        }
    }
}

fn q6_k(b: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(b, 208);
    // Two halves of 128 elements. Within one, element 32 k + i (k of 4) has its nibble in
    // byte 32 (k mod 2) + i (high nibble for k >= 2), its upper bits in pair k of byte i.
    for (h, o) in out.chunks_exact_mut(128).enumerate() {
        let (low, high, scales) = (&b[64 * h..][..64], &b[128 + 32 * h..][..32], &b[192 + 8 * h..]);
        for i in 0..32 {
            let q = [low[i] & 15, low[i + 32] & 15, low[i] >> 4, low[i + 32] >> 4];
            for (k, nibble) in q.into_iter().enumerate() {
                let q = i32::from(nibble | (high[i] >> (2 * k) & 3) << 4) - 32;
                let scale = d * f32::from(scales[2 * k + i / 16] as i8);
                o[32 * k + i] = scale * q as f32;
            }
        }
    }
}
