//! Linear layers against the plain definition, on every instruction set.

use super::*;
use crate::lanes;
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

/// The outputs by their definition: one canonical dot product each.
fn reference(linear: &Linear, x: &[f32]) -> Vec<f32> {
    let mut w = vec![0.0; linear.inputs()];
    let rows = x.len() / linear.inputs();
    let mut out = vec![0.0; rows * linear.outputs()];
    for output in 0..linear.outputs() {
        linear.read_output(output, &mut w);
        for (r, x) in x.chunks(linear.inputs()).enumerate() {
            out[r * linear.outputs() + output] = lanes::dot(x, &w);
        }
    }
    out
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
        rows in 1usize..12,
        k in 1usize..70,
        n in 1usize..40,
        threads in 1usize..4,
        is_bf16: bool,
        seed: u64,
    ) {
        let format = if is_bf16 { Format::Bf16 } else { Format::F32 };
        let linear = Linear::from_f32(n, k, &noise(n * k, seed), format);
        let x = noise(rows * k, seed ^ 1);
        let want = reference(&linear, &x);
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
fn loading_a_range_leaves_the_rest_alone() {
    let mut pool = Pool::new(2).unwrap();
    for format in [Format::F32, Format::Bf16] {
        let mut linear = Linear::zeros(6, 3, format);
        linear.load(2..5, &mut pool, &|i, row| row.fill(i as f32 + 1.0));
        let mut row = [0.0; 3];
        let firsts: Vec<f32> = (0..6)
            .map(|output| {
                linear.read_output(output, &mut row);
                row[0]
            })
            .collect();
        assert_eq!(firsts, [0.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
    }
}
