//! Activations in eight bits: one scale per row and group of 32.
//!
//! Integer products are exact in any order, so the only rounding of an integer linear
//! layer is here and where a group's dot product is scaled. A scale per *group* keeps the
//! error of one large activation from spreading over its row. `cllm bench accuracy`
//! measures what it costs against f32.

use super::GROUP;
use crate::isa::multiversion;

/// Where groups go.
pub(super) struct Groups<'a> {
    pub(super) values: &'a mut [[i8; GROUP]],
    pub(super) scales: &'a mut [f32],
    pub(super) shifts: &'a mut [f32],
    pub(super) offsets: &'a mut [i32],
}

multiversion! {
    /// `scale = max|x| / 127`, `value = round(x / scale)` to nearest even, per group.
    pub(super) fn quantize(x: &[[f32; GROUP]], to: Groups<'_>) {
        let places = to.values.iter_mut().zip(to.scales).zip(to.shifts).zip(to.offsets);
        for (x, (((values, scale), shift), offset)) in x.iter().zip(places) {
            // Read from registers: a sum just stored would have to be waited for.
            let (a, v) = quantize_group(x, values);
            (*scale, *shift, *offset) = (a, a * v as f32, -128 * v);
        }
    }
}

/// Writes the values of a group and returns its scale and the sum of the values.
#[inline(always)]
fn quantize_group(x: &[f32; GROUP], values: &mut [i8; GROUP]) -> (f32, i32) {
    // Comparing the bits of magnitudes orders them like the numbers and puts NaN on top,
    // so NaN and infinity end up in the scale, and from there in every output.
    let mut largest = 0u32;
    for &v in x {
        largest = largest.max(v.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    // Below this the reciprocal overflows; such values are nothing beside any other.
    let inverse = if largest < 1e-35 { 0.0 } else { 127.0 / largest };
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the
    // low bits.
    const ROUND: f32 = 12_582_912.0;
    let mut sum = 0i32;
    for (value, &v) in values.iter_mut().zip(x) {
        let rounded = (v * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        *value = rounded as i8;
        sum += i32::from(*value);
    }
    (largest / 127.0, sum)
}

multiversion! {
    /// Rounds to bf16, to nearest even; what is not finite stays so, and what bf16 dot
    /// products take for zero, magnitudes below the smallest normal number, becomes zero.
    pub(super) fn to_bf16(x: &[[f32; GROUP]], to: &mut [[u16; GROUP]]) {
        for (to, x) in to.as_flattened_mut().iter_mut().zip(x.as_flattened()) {
            *to = round_to_bf16(*x);
        }
    }
}

/// One element of [`to_bf16`]; weights are rounded by it too.
#[inline(always)]
pub(crate) fn round_to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    let even = (bits >> 16) & 1;
    let rounded = ((bits.wrapping_add(0x7fff + even)) >> 16) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        0x7fc0 // NaN
    } else if rounded & 0x7f80 == 0 {
        rounded & 0x8000
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use half::bf16;
    use proptest::prelude::*;

    type Quantized = (Vec<[i8; GROUP]>, Vec<f32>, Vec<f32>, Vec<i32>);

    fn quantized(isa: Isa, x: &[[f32; GROUP]]) -> Quantized {
        let n = x.len();
        let mut found = (vec![[0; GROUP]; n], vec![0.0; n], vec![0.0; n], vec![0; n]);
        let (values, scales, shifts, offsets) = &mut found;
        quantize(isa, x, Groups { values, scales, shifts, offsets });
        found
    }

    proptest! {
        #[test]
        fn values_are_within_half_a_step_and_the_same_on_every_path(
            x in prop::collection::vec(prop::array::uniform32(-1e3f32..1e3), 1..4),
        ) {
            let want = quantized(Isa::PORTABLE, &x);
            let (values, scales, shifts, offsets) = &want;
            for (i, x) in x.iter().enumerate() {
                for (&v, &q) in x.iter().zip(&values[i]) {
                    prop_assert!((f32::from(q) * scales[i] - v).abs() <= 0.5001 * scales[i]);
                }
                let sum: i32 = values[i].iter().map(|&v| i32::from(v)).sum();
                prop_assert_eq!((offsets[i], shifts[i]), (-128 * sum, scales[i] * sum as f32));
            }
            for isa in Isa::available() {
                prop_assert_eq!(&quantized(isa, &x), &want);
            }
        }

        #[test]
        fn bf16_rounds_as_the_half_crate_does(bits: u32) {
            let v = f32::from_bits(bits);
            let (found, want) = (bf16::from_bits(round_to_bf16(v)), bf16::from_f32(v));
            if v.is_nan() {
                prop_assert!(found.is_nan());
            } else if want.to_f32().is_normal() || want.to_f32().is_infinite() {
                prop_assert_eq!(found, want);
            } else {
                prop_assert_eq!(found.to_f32(), 0.0);
            }
            for isa in Isa::available() {
                let mut rounded = [[0; GROUP]; 2];
                to_bf16(isa, &[[v; GROUP]; 2], &mut rounded);
                prop_assert_eq!(rounded[1][9], found.to_bits());
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_zero_stays_zero() {
        let mut x = [[0.0; GROUP]; 2];
        x[0][..5].copy_from_slice(&[127.0, 0.5, 1.5, -0.5, -2.5]);
        let (values, scales, _, offsets) = quantized(Isa::PORTABLE, &x);
        assert_eq!(values[0][..5], [127, 0, 2, 0, -2]);
        assert_eq!((scales[1], offsets[1]), (0.0, 0));
    }

    #[test]
    fn what_is_not_finite_shows_in_the_scale() {
        for bad in [f32::NAN, f32::INFINITY, -f32::NAN] {
            let mut x = [[1.0; GROUP]];
            x[0][7] = bad;
            assert!(!quantized(Isa::PORTABLE, &x).1[0].is_finite());
        }
    }
}
