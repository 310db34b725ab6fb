//! Activations in eight bits: one scale per row and group of 32.
//!
//! Integer products are exact in any order, so the only rounding of an integer linear
//! layer is here and where a group's dot product is scaled. A scale per *group* keeps the
//! error of one large activation from spreading over its row. `cllm bench accuracy`
//! measures what it costs against f32.

use crate::isa::multiversion;

/// Elements that share a scale, in activations and in weights.
pub const GROUP: usize = 32;

/// Rows of eight-bit activations, with what kernels need of each group.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    rows: usize,
    groups: usize,
    /// `(R, G, 32)`, from -127 to 127; zero beyond the end of a row.
    values: Vec<[i8; GROUP]>,
    /// `(R, G)`: a value stands for `scale * value`.
    scales: Vec<f32>,
    /// `(R, G)`: sum of a group's values.
    sums: Vec<i32>,
}

/// One row of [`Activations`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActivationRow<'a> {
    /// `(G, 32)`
    pub(crate) values: &'a [[i8; GROUP]],
    /// `(G,)`
    pub(crate) scales: &'a [f32],
    /// `(G,)`
    pub(crate) sums: &'a [i32],
}

impl Activations {
    /// Quantises `x`, shape `(R, K)`.
    pub(crate) fn quantize(&mut self, isa: crate::Isa, x: &[f32], k: usize) {
        self.rows = x.len() / k;
        self.groups = k.div_ceil(GROUP);
        let len = self.rows * self.groups;
        self.values.resize(len, [0; GROUP]);
        self.scales.resize(len, 0.0);
        self.sums.resize(len, 0);
        quantize_rows(isa, x, k, &mut self.values, &mut self.scales, &mut self.sums);
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// A row.
    pub(crate) fn row(&self, row: usize) -> ActivationRow<'_> {
        let range = row * self.groups..(row + 1) * self.groups;
        ActivationRow {
            values: &self.values[range.clone()],
            scales: &self.scales[range.clone()],
            sums: &self.sums[range],
        }
    }
}

multiversion! {
    /// `scale = max|x| / 127`, `value = round(x / scale)` to nearest even, per group.
    fn quantize_rows(
        x: &[f32],
        k: usize,
        values: &mut [[i8; GROUP]],
        scales: &mut [f32],
        sums: &mut [i32],
    ) {
        let groups = k.div_ceil(GROUP);
        for (r, row) in x.chunks_exact(k).enumerate() {
            for (g, group) in row.chunks(GROUP).enumerate() {
                let i = r * groups + g;
                if let Ok(group) = <&[f32; GROUP]>::try_from(group) {
                    quantize_group(group, &mut values[i], &mut scales[i], &mut sums[i]);
                } else {
                    let mut padded = [0.0; GROUP];
                    padded[..group.len()].copy_from_slice(group);
                    quantize_group(&padded, &mut values[i], &mut scales[i], &mut sums[i]);
                }
            }
        }
    }
}

#[inline(always)]
fn quantize_group(x: &[f32; GROUP], values: &mut [i8; GROUP], scale: &mut f32, sum: &mut i32) {
    // Comparing the bits of magnitudes orders them like the numbers and puts NaN on top,
    // so NaN and infinity end up in the scale, and from there in every output.
    let mut largest = 0u32;
    for &v in x {
        largest = largest.max(v.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    *scale = largest / 127.0;
    // Below this the reciprocal overflows; such values are nothing beside any other.
    let inverse = if largest < 1e-35 { 0.0 } else { 127.0 / largest };
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the
    // low bits.
    const ROUND: f32 = 12_582_912.0;
    let mut total = 0i32;
    for (value, &v) in values.iter_mut().zip(x) {
        let rounded = (v * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        *value = rounded as i8;
        total += i32::from(*value);
    }
    *sum = total;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_are_within_half_a_step_and_the_same_on_every_path(
            x in prop::collection::vec(-1e3f32..1e3, 1..100),
        ) {
            let mut first: Option<Activations> = None;
            for isa in Isa::available() {
                let mut a = Activations::default();
                a.quantize(isa, &x, x.len());
                let row = a.row(0);
                for (i, &v) in x.iter().enumerate() {
                    let q = f32::from(row.values[i / GROUP][i % GROUP]);
                    let scale = row.scales[i / GROUP];
                    prop_assert!((q * scale - v).abs() <= 0.5001 * scale);
                    prop_assert!(q.abs() <= 127.0);
                }
                for (values, &sum) in row.values.iter().zip(row.sums) {
                    prop_assert_eq!(values.iter().map(|&v| i32::from(v)).sum::<i32>(), sum);
                }
                let first = first.get_or_insert_with(|| {
                    let mut a = Activations::default();
                    a.quantize(Isa::PORTABLE, &x, x.len());
                    a
                });
                prop_assert_eq!(&first.values, &a.values);
                prop_assert_eq!(&first.scales, &a.scales);
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_zero_stays_zero() {
        let mut x = [0.0; 64];
        x[..5].copy_from_slice(&[127.0, 0.5, 1.5, -0.5, -2.5]);
        let mut a = Activations::default();
        a.quantize(Isa::PORTABLE, &x, 64);
        assert_eq!(a.row(0).values[0][..5], [127, 0, 2, 0, -2]);
        assert_eq!((a.row(0).scales[1], a.row(0).sums[1]), (0.0, 0));
    }

    #[test]
    fn what_is_not_finite_shows_in_the_scale() {
        for bad in [f32::NAN, f32::INFINITY, -f32::NAN] {
            let mut x = [1.0; 32];
            x[7] = bad;
            let mut a = Activations::default();
            a.quantize(Isa::PORTABLE, &x, 32);
            assert!(!a.row(0).scales[0].is_finite());
        }
    }
}
