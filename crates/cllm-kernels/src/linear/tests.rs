//! Linear layers against the plain definition, on every instruction set.

use super::load::Quantized;
use super::*;
use crate::activations::{Eight, GROUP, Rows, Store, round_to_bf16};
use half::f16;
use proptest::prelude::*;

pub(super) fn noise(len: usize, seed: u64) -> Vec<f32> {
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

/// Rows of f32, shape `(R, K)`, as activations.
fn activations(pool: &mut Pool, isa: Isa, format: Format, x: &[f32], k: usize) -> Activations {
    let mut activations = Activations::default();
    activations.fill(isa, pool, format, Rows::all(x, k));
    activations
}

/// One output's weights as integers, without symmetry if they are `shifted`.
fn quantized(format: Format, weights: &[f32], shifted: bool) -> Quantized {
    let mut q = Quantized::new(weights.len().div_ceil(GROUP));
    q.fill(format, format == Format::W8, weights);
    if shifted {
        q.minima.iter_mut().for_each(|m| *m = f16::from_f32(m.to_f32() + 0.25));
    }
    q
}

/// A layer, with `shifted` one as files have them whose integers have minima of their own.
fn layer(outputs: usize, inputs: usize, weights: &[f32], format: Format, shifted: bool) -> Linear {
    if !shifted {
        return Linear::from_f32(outputs, inputs, weights, format);
    }
    let read = |output: usize, row: Integers<'_>| {
        let q = quantized(format, &weights[output * inputs..][..inputs], shifted);
        row.values.copy_from_slice(&q.values[..inputs]);
        row.scales.copy_from_slice(&q.scales);
        row.minima.copy_from_slice(&q.minima);
    };
    Linear::load(outputs, inputs, format, &mut Pool::single(), &Source::Integers(&read))
}

/// The outputs by their definition, one at a time: no tiles, no panels, one thread.
fn reference(linear: &Linear, weights: &[f32], shifted: bool, x: &[f32]) -> Vec<f32> {
    let (k, n) = (linear.inputs(), linear.outputs());
    let mut out = Vec::with_capacity(x.len() / k * n);
    for x in x.chunks(k) {
        // One row is one tile, so its groups follow each other.
        let row = activations(&mut Pool::single(), Isa::PORTABLE, linear.format(), x, k);
        out.extend((0..n).map(|output| match row.store() {
            Store::F32(x) => in_order(x.as_flattened(), &padded(&weights[output * k..][..k]), 1),
            Store::Bf16(x) => {
                let widen = |v: u16| f32::from_bits(u32::from(v) << 16);
                let x: Vec<f32> = x.as_flattened().iter().map(|&v| widen(v)).collect();
                let mut w = padded(&weights[output * k..][..k]);
                w.iter_mut().for_each(|w| *w = widen(round_to_bf16(*w)));
                in_order(&x, &w, 2)
            }
            Store::Eight(x) => {
                let q = quantized(linear.format(), &weights[output * k..][..k], shifted);
                groups_in_order(&q, x, linear.format() == Format::W8 && !shifted)
            }
        }));
    }
    out
}

fn padded(w: &[f32]) -> Vec<f32> {
    let mut w = w.to_vec();
    w.resize(w.len().next_multiple_of(GROUP), 0.0);
    w
}

/// Multiply-adds in ascending order, `inputs` at a time, of which the later ones come first.
fn in_order(x: &[f32], w: &[f32], inputs: usize) -> f32 {
    let mut y = 0.0f32;
    for (x, w) in x.chunks(inputs).zip(w.chunks(inputs)) {
        for (x, w) in x.iter().zip(w).rev() {
            y = x.mul_add(*w, y);
        }
    }
    y
}

/// The lines of the integer formats' definition.
fn groups_in_order(w: &Quantized, x: &Eight, symmetric: bool) -> f32 {
    let mut y = 0.0f32;
    for (g, values) in x.values.iter().enumerate() {
        let weights = &w.values[g * GROUP..][..GROUP];
        let dot: i32 = weights.iter().zip(values).map(|(&q, &v)| i32::from(q) * i32::from(v)).sum();
        let sum: i32 = values.iter().map(|&v| i32::from(v)).sum();
        if symmetric {
            let dot = dot - 128 * sum;
            y = (dot as f32).mul_add(w.scales[g].to_f32() * x.scales[g], y);
            continue;
        }
        y = (dot as f32).mul_add(w.scales[g].to_f32() * x.scales[g], y);
        y = w.minima[g].to_f32().mul_add(x.scales[g] * sum as f32, y);
    }
    y
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The largest sums there are: instructions that saturate or keep 16 bits must not meet them.
#[test]
fn extremes_are_exact() {
    let (k, rows) = (2 * GROUP, 12);
    let patterns: [fn(usize) -> bool; 4] = [|_| true, |_| false, |i| i % 2 == 0, |i| i % 4 < 2];
    let mut pool = Pool::single();
    for (format, symmetric, largest) in
        [(Format::W8, true, 255), (Format::W8, false, 255), (Format::W4, false, 15)]
    {
        for (weights, inputs) in patterns.iter().flat_map(|w| patterns.iter().map(move |x| (w, x)))
        {
            let mut q = Quantized::new(k / GROUP);
            q.values.iter_mut().enumerate().for_each(|(i, v)| *v = u8::from(weights(i)) * largest);
            q.scales.fill(f16::ONE);
            q.minima.fill(f16::from_f32(if symmetric { -128.0 } else { -7.0 }));
            let read = |_: usize, row: Integers<'_>| {
                row.values.copy_from_slice(&q.values);
                row.scales.copy_from_slice(&q.scales);
                row.minima.copy_from_slice(&q.minima);
            };
            let source = if symmetric { Source::Symmetric(&read) } else { Source::Integers(&read) };
            let linear = Linear::load(PANEL, k, format, &mut pool, &source);
            let x: Vec<f32> = (0..k).map(|i| if inputs(i) { 1.0 } else { -1.0 }).collect();
            let row = activations(&mut pool, Isa::PORTABLE, format, &x, k);
            let Store::Eight(eight) = row.store() else { panic!("integers take eight bits") };
            let want = groups_in_order(&q, eight, symmetric);
            for isa in Isa::available() {
                let input = activations(&mut pool, isa, format, &x.repeat(rows), k);
                let mut out = vec![f32::NAN; rows * PANEL];
                linear.apply(isa, &mut pool, &input, &mut out);
                assert_eq!(out, vec![want; rows * PANEL], "{format} {isa}");
            }
        }
    }
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
        (format, shifted) in prop::sample::select(vec![
            (Format::F32, false), (Format::Bf16, false),
            (Format::W8, false), (Format::W8, true), (Format::W4, false), (Format::W4, true),
        ]),
        seed: u64,
    ) {
        let weights = noise(n * k, seed);
        let linear = layer(n, k, &weights, format, shifted);
        let x = noise(rows * k, seed ^ 1);
        let want = reference(&linear, &weights, shifted, &x);
        let mut pool = Pool::new(threads).unwrap();
        for isa in Isa::available() {
            let input = activations(&mut pool, isa, format, &x, k);
            let mut out = vec![f32::NAN; rows * n];
            linear.apply(isa, &mut pool, &input, &mut out);
            prop_assert_eq!(bits(&out), bits(&want), "{}", isa);

            let mut sums = vec![0.5; rows * n];
            linear.add_to(isa, &mut pool, &input, &mut sums);
            prop_assert!(sums.iter().zip(&want).all(|(sum, v)| *sum == 0.5 + v));

            let mut best = vec![Best::NONE; rows];
            linear.argmax(isa, &mut pool, &input, &mut best);
            for (best, logits) in best.iter().zip(want.chunks(n)) {
                let mut expected = Best::NONE;
                for (i, &value) in logits.iter().enumerate() {
                    expected = expected.or(Best { index: i as u32, value, nan: value.is_nan() });
                }
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
    let x = activations(&mut pool, Isa::PORTABLE, Format::F32, &[1.0, f32::NAN], 1);
    linear.argmax(Isa::PORTABLE, &mut pool, &x, &mut best);
    assert_eq!(best[0], Best { index: 7, value: 3.0, nan: false });
    assert!(best[1].nan);
}

#[test]
fn packed_weights_are_within_half_a_step_and_kept_if_they_fit() {
    let (n, k) = (19, 70);
    let weights = noise(n * k, 3);
    for (format, steps) in [(Format::W8, 254.0), (Format::W4, 15.0)] {
        let linear = Linear::from_f32(n, k, &weights, format);
        assert_eq!(linear.panels.symmetric(), format == Format::W8);
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
fn integers_are_taken_over() {
    let (n, k) = (18, 64);
    for (format, most) in [(Format::W4, 16), (Format::W8, 256)] {
        let value = |output: usize, i: usize| (7 * i + output) % most;
        let read = |output: usize, row: Integers<'_>| {
            row.values.iter_mut().enumerate().for_each(|(i, q)| *q = value(output, i) as u8);
            row.scales.fill(f16::from_f32(0.25 * output as f32));
            row.minima.copy_from_slice(&[f16::from_f32(-1.0), f16::from_f32(2.0)]);
        };
        let source = Source::Integers(&read);
        let linear = Linear::load(n, k, format, &mut Pool::new(2).unwrap(), &source);
        let mut row = vec![0.0; k];
        for output in 0..n {
            linear.read_output(output, &mut row);
            for (i, w) in row.iter().enumerate() {
                let minimum = if i < 32 { -1.0 } else { 2.0 };
                assert_eq!(*w, value(output, i) as f32 * 0.25 * output as f32 + minimum);
            }
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
                let mut pool = Pool::single();
                let mut out = [0.0; 3];
                let x = activations(&mut pool, isa, format, &[1.0; 40], 40);
                linear.apply(isa, &mut pool, &x, &mut out);
                assert!(out[0].is_finite() && out[2].is_finite(), "{format} {isa} {out:?}");
                assert!(!out[1].is_finite(), "{format} {isa} {out:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The fused layer equals its parts: gates, ups, the elementwise part, activations.
    #[test]
    fn swiglu_equals_its_parts(
        rows in 1usize..20,
        k in 1usize..70,
        width in 1usize..70,
        threads in 1usize..4,
        biased: bool,
        format in prop::sample::select(vec![Format::F32, Format::Bf16, Format::W8, Format::W4]),
        seed: u64,
    ) {
        let weights = noise(2 * width * k, seed);
        let x = noise(rows * k, seed ^ 1);
        let bias = biased.then(|| noise(2 * width, seed ^ 2));
        let mut pool = Pool::new(threads).unwrap();
        let plain = Linear::from_f32(2 * width, k, &weights, format).with_bias(bias.clone());
        let read = |i: usize, row: &mut [f32]| row.copy_from_slice(&weights[i * k..][..k]);
let fused = SwiGlu::load(width, k, format, &mut pool, &Source::Float(&read));
        let fused = fused.with_bias(bias);
        for isa in Isa::available() {
            let input = activations(&mut pool, isa, format, &x, k);
            let mut both = vec![0.0; rows * 2 * width];
            plain.apply(isa, &mut pool, &input, &mut both);
            let mut results = Vec::new();
            for both in both.chunks(2 * width) {
                let (gate, up) = both.split_at(width);
                for (gate, up) in gate.chunks(GROUP).zip(up.chunks(GROUP)) {
                    let (mut g, mut u) = ([0.0; GROUP], [0.0; GROUP]);
                    g[..gate.len()].copy_from_slice(gate);
                    u[..up.len()].copy_from_slice(up);
                    let half = |v: &[f32; GROUP], i: usize| [v.as_chunks::<PANEL>().0[i]];
                    let mut y = [[0.0; GROUP]];
                    crate::activation::silu_times(
                        Isa::PORTABLE,
                        [&half(&g, 0), &half(&g, 1)],
                        [&half(&u, 0), &half(&u, 1)],
                        &mut y,
                    );
                    results.extend_from_slice(&y[0][..gate.len()]);
                }
            }
            let want = activations(&mut pool, isa, format, &results, width);
            let mut found = Activations::default();
            fused.apply(isa, &mut pool, &input, format, &mut found);
            prop_assert_eq!(format!("{:?}", found), format!("{:?}", want));
        }
    }
}
