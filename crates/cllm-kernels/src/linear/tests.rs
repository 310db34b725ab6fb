//! Linear layers against the plain definition, on every instruction set.

use super::*;
use crate::lanes;
use crate::quant::{ActivationRow, GROUP};
use proptest::prelude::*;

fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The outputs by their definition, one at a time: no tiles, no panels, one thread.
fn reference(linear: &Linear, weights: &[f32], x: &[f32]) -> Vec<f32> {
    let (k, n) = (linear.inputs(), linear.outputs());
    let bits = match linear.format() {
        Format::W8 => Some(Bits::Eight),
        Format::W4 => Some(Bits::Four),
        Format::F32 | Format::Bf16 => None,
    };
    let mut activations = Activations::default();
    activations.quantize(Isa::PORTABLE, x, k);
    let mut row = vec![0.0; k];
    let mut out = vec![0.0; x.len() / k * n];
    for output in 0..n {
        linear.read_output(output, &mut row);
        for (r, x) in x.chunks(k).enumerate() {
            out[r * n + output] = match bits {
                None => lanes::dot(x, &row),
                Some(bits) => {
                    let mut q = Quantized::new(k.div_ceil(GROUP));
                    q.fill(bits, &weights[output * k..][..k]);
                    groups_in_order(bits, &q, activations.row(r))
                }
            };
        }
    }
    out
}

/// The two lines of the packed formats' definition.
fn groups_in_order(bits: Bits, w: &Quantized, x: ActivationRow<'_>) -> f32 {
    let mut y = 0.0f32;
    for (g, values) in x.values.iter().enumerate() {
        let weights = &w.values[g * GROUP..][..GROUP];
        let dot: i32 = weights.iter().zip(values).map(|(&q, &v)| i32::from(q) * i32::from(v)).sum();
        y = (dot as f32).mul_add(w.scales[g].to_f32() * x.scales[g], y);
        if bits == Bits::Four {
            y = w.minima[g].to_f32().mul_add(x.scales[g] * x.sums[g] as f32, y);
        }
    }
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Bit equality with the definition for any shape, format, thread count and
    /// instruction set. The definition knows no tiles, so this is row invariance too.
    #[test]
    fn equals_its_definition(
        rows in 1usize..30,
        k in 1usize..140,
        n in 1usize..40,
        threads in 1usize..4,
        format in prop::sample::select(vec![Format::F32, Format::Bf16, Format::W8, Format::W4]),
        seed: u64,
    ) {
        let weights = noise(n * k, seed);
        let linear = Linear::from_f32(n, k, &weights, format);
        let x = noise(rows * k, seed ^ 1);
        let want = reference(&linear, &weights, &x);
        let mut pool = Pool::new(threads).unwrap();
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; rows * n];
            linear.apply(isa, &mut pool, &x, &mut out);
            prop_assert_eq!(bits(&out), bits(&want), "{}", isa);

            let mut best = vec![Best::NONE; rows];
            linear.argmax(isa, &mut pool, &x, &mut best);
            for (best, logits) in best.iter().zip(want.chunks(n)) {
                let mut expected = Best::NONE;
                logits.iter().enumerate().for_each(|(i, &v)| expected.offer(i as u32, v));
                prop_assert_eq!(*best, expected);
            }
        }
    }
}

#[test]
fn argmax_takes_the_lowest_of_equals_and_reports_nan() {
    let mut pool = Pool::new(2).unwrap();
    let mut weights = vec![1.0f32; 11];
    weights[7] = 3.0;
    weights[9] = 3.0;
    let linear = Linear::from_f32(11, 1, &weights, Format::F32);
    let mut best = [Best::NONE; 2];
    linear.argmax(Isa::PORTABLE, &mut pool, &[1.0, f32::NAN], &mut best);
    assert_eq!(best[0], Best { index: 7, value: 3.0, nan: false });
    assert!(best[1].nan);
}

#[test]
fn packed_weights_are_within_half_a_step_and_kept_if_they_fit() {
    let (n, k) = (19, 70);
    let weights = noise(n * k, 3);
    for (format, steps) in [(Format::W8, 254.0), (Format::W4, 15.0)] {
        let linear = Linear::from_f32(n, k, &weights, format);
        let mut row = vec![0.0; k];
        for output in 0..n {
            linear.read_output(output, &mut row);
            for (found, want) in row.iter().zip(&weights[output * k..]) {
                // Weights lie between -1 and 1, so no step is larger than 2 / steps; a
                // little more for the rounding of scale and minimum to f16.
                assert!((found - want).abs() <= 1.02 / steps + 1e-3, "{format}: {found} {want}");
            }
            // What a format can hold it holds: packing its own weights changes nothing.
            let again = Linear::from_f32(1, k, &row, format);
            let mut same = vec![0.0; k];
            again.read_output(0, &mut same);
            for (a, b) in row.iter().zip(&same) {
                assert!((a - b).abs() <= 2e-3 * a.abs().max(0.1), "{format}: {a} {b}");
            }
        }
    }
}

#[test]
fn four_bit_sources_are_taken_over() {
    let (n, k) = (18, 64);
    let read = |output: usize, row: FourBits<'_>| {
        row.values.iter_mut().enumerate().for_each(|(i, q)| *q = ((i + output) % 16) as i8);
        row.scales.fill(f16::from_f32(0.25 * output as f32));
        row.minima.copy_from_slice(&[f16::from_f32(-1.0), f16::from_f32(2.0)]);
    };
    let mut linear = Linear::zeros(n, k, Format::W4);
    linear.load(&mut Pool::new(2).unwrap(), &Source::FourBits(&read));
    let mut row = vec![0.0; k];
    for output in 0..n {
        linear.read_output(output, &mut row);
        for (i, w) in row.iter().enumerate() {
            let minimum = if i < 32 { -1.0 } else { 2.0 };
            assert_eq!(*w, ((i + output) % 16) as f32 * 0.25 * output as f32 + minimum);
        }
    }
}

#[test]
fn weights_that_are_not_finite_reach_the_output() {
    for format in [Format::F32, Format::Bf16, Format::W8, Format::W4] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut weights = vec![0.5; 3 * 40];
            weights[40 + 7] = bad;
            let linear = Linear::from_f32(3, 40, &weights, format);
            for isa in Isa::available() {
                let mut out = [0.0; 3];
                linear.apply(isa, &mut Pool::single(), &[1.0; 40], &mut out);
                assert!(out[0].is_finite() && out[2].is_finite(), "{format} {isa} {out:?}");
                assert!(!out[1].is_finite(), "{format} {isa} {out:?}");
            }
        }
    }
}
