//! Activations in eight bits: one scale per row and group of 32.
//!
//! Integer products are exact in any order, so the only rounding of an integer linear
//! layer is here and where a group's dot product is scaled. A scale per *group* keeps the
//! error of one large activation from spreading over its row. `cllm bench accuracy`
//! measures what it costs against f32.

use super::GROUP;
use crate::isa::{Isa, multiversion};
use crate::shared::Shared;

/// The arrays of eight-bit activations, for several threads.
pub(super) struct Places<'a> {
    pub(super) values: Shared<'a, [i8; GROUP]>,
    pub(super) scales: Shared<'a, f32>,
    pub(super) shifts: Shared<'a, f32>,
    pub(super) sums: Shared<'a, i32>,
}

/// One group in eight bits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Group {
    values: [i8; GROUP],
    scale: f32,
    sum: i32,
}

/// Quantises groups and stores them `step` places apart from `place` on.
///
/// # Safety
/// No other thread writes these places at the same time.
#[expect(unsafe_code, reason = "the caller promises disjoint places")]
pub(super) unsafe fn quantize(
    isa: Isa,
    x: &[[f32; GROUP]],
    to: &Places<'_>,
    mut place: usize,
    step: usize,
) {
    let mut groups = [Group { values: [0; GROUP], scale: 0.0, sum: 0 }; 8];
    for x in x.chunks(groups.len()) {
        quantize_groups(isa, x, &mut groups);
        for group in &groups[..x.len()] {
            // SAFETY: the caller's promise.
            unsafe {
                to.values.slice(place, 1)[0] = group.values;
                to.scales.slice(place, 1)[0] = group.scale;
                to.shifts.slice(place, 1)[0] = group.scale * group.sum as f32;
                to.sums.slice(place, 1)[0] = group.sum;
            }
            place += step;
        }
    }
}

multiversion! {
    /// `scale = max|x| / 127`, `value = round(x / scale)` to nearest even, per group.
    fn quantize_groups(x: &[[f32; GROUP]], groups: &mut [Group]) {
        for (x, group) in x.iter().zip(groups) {
            quantize_group(x, group);
        }
    }
}

#[inline(always)]
fn quantize_group(x: &[f32; GROUP], group: &mut Group) {
    // Comparing the bits of magnitudes orders them like the numbers and puts NaN on top,
    // so NaN and infinity end up in the scale, and from there in every output.
    let mut largest = 0u32;
    for &v in x {
        largest = largest.max(v.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    group.scale = largest / 127.0;
    // Below this the reciprocal overflows; such values are nothing beside any other.
    let inverse = if largest < 1e-35 { 0.0 } else { 127.0 / largest };
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the
    // low bits.
    const ROUND: f32 = 12_582_912.0;
    let mut sum = 0i32;
    for (value, &v) in group.values.iter_mut().zip(x) {
        let rounded = (v * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        *value = rounded as i8;
        sum += i32::from(*value);
    }
    group.sum = sum;
}

multiversion! {
    /// Rounds to bf16, to nearest even; what is not finite stays so, and what bf16 dot
    /// products take for zero, magnitudes below the smallest normal number, becomes zero.
    pub(super) fn to_bf16(x: &[f32; GROUP]) -> [u16; GROUP] {
        let mut out = [0; GROUP];
        for (out, &v) in out.iter_mut().zip(x) {
            *out = round_to_bf16(v);
        }
        out
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
    use half::bf16;
    use proptest::prelude::*;

    fn groups_of(isa: Isa, x: &[[f32; GROUP]]) -> Vec<Group> {
        let mut groups = vec![Group { values: [0; GROUP], scale: 0.0, sum: 0 }; x.len()];
        quantize_groups(isa, x, &mut groups);
        groups
    }

    proptest! {
        #[test]
        fn values_are_within_half_a_step_and_the_same_on_every_path(
            x in prop::collection::vec(prop::array::uniform32(-1e3f32..1e3), 1..4),
        ) {
            let want = groups_of(Isa::PORTABLE, &x);
            for (x, group) in x.iter().zip(&want) {
                for (&v, &q) in x.iter().zip(&group.values) {
                    prop_assert!((f32::from(q) * group.scale - v).abs() <= 0.5001 * group.scale);
                }
                prop_assert_eq!(group.values.iter().map(|&v| i32::from(v)).sum::<i32>(), group.sum);
            }
            for isa in Isa::available() {
                prop_assert_eq!(&groups_of(isa, &x), &want);
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
                prop_assert_eq!(to_bf16(isa, &[v; GROUP])[9], found.to_bits());
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_zero_stays_zero() {
        let mut x = [[0.0; GROUP]; 2];
        x[0][..5].copy_from_slice(&[127.0, 0.5, 1.5, -0.5, -2.5]);
        let groups = groups_of(Isa::PORTABLE, &x);
        assert_eq!(groups[0].values[..5], [127, 0, 2, 0, -2]);
        assert_eq!((groups[1].scale, groups[1].sum), (0.0, 0));
    }

    #[test]
    fn what_is_not_finite_shows_in_the_scale() {
        for bad in [f32::NAN, f32::INFINITY, -f32::NAN] {
            let mut x = [[1.0; GROUP]];
            x[0][7] = bad;
            assert!(!groups_of(Isa::PORTABLE, &x)[0].scale.is_finite());
        }
    }
}
