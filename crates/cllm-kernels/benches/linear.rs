//! The matrices of SmolLM2-135M in every format: the first half of the feed-forward block
//! (576 -> 2 x 1536), its second half (1536 -> 576, added to the residual stream), and the
//! LM head (576 -> 49,152, the best token of each row).
//!
//! The first two are those of all 30 layers, one after the other, as in a forward: a layer
//! alone would lie in cache from one call to the next. Throughput is bytes of weights a
//! second, so one row shows how near a kernel comes to the speed of memory.

use std::hint::black_box;
use std::time::Duration;

use cllm_kernels::{Activations, Best, Format, Isa, Linear, Pool, Rows, Source, SwiGlu};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};

const LAYERS: usize = 30;
const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const VOCAB: usize = 49_152;
const FORMATS: [Format; 4] = [Format::W4, Format::W8, Format::Bf16, Format::F32];
const ROWS: [usize; 5] = [1, 4, 8, 16, 32];

/// Noise in (-1, 1) that depends on the seed alone, so that threads can make it.
fn noise(seed: usize, out: &mut [f32]) {
    let mut state = seed as u64;
    for value in out {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *value = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
    }
}

fn linear(pool: &mut Pool, outputs: usize, inputs: usize, format: Format) -> Linear {
    Linear::load(outputs, inputs, format, pool, &Source::Float(&noise))
}

/// A benchmark of one kernel for each number of rows: `run` gets the activations.
fn measure(
    c: &mut Criterion,
    (kernel, format, bytes): (&str, Format, usize),
    (isa, pool): (Isa, &mut Pool),
    inputs: usize,
    mut run: impl FnMut(&mut Pool, &Activations),
) {
    let mut group = c.benchmark_group(format!("{kernel} {isa}"));
    // A call takes milliseconds: samples of one call each are enough, and soon done.
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(bytes as u64));
    for rows in ROWS {
        let mut x = Activations::default();
        let mut values = vec![0.0; rows * inputs];
        values.chunks_exact_mut(inputs).enumerate().for_each(|(i, row)| noise(i, row));
        x.fill(isa, pool, format, Rows::all(&values, inputs));
        let id = BenchmarkId::new(format.to_string(), format!("{rows} rows"));
        group.bench_function(id, |b| b.iter(|| run(pool, black_box(&x))));
    }
}

fn benches(c: &mut Criterion) {
    let isa = Isa::detect().expect("CLLM_ISA names an instruction set of this machine");
    let mut pool = Pool::new(Pool::default_threads()).expect("threads");
    let most = ROWS[ROWS.len() - 1];
    for format in FORMATS {
        let layers: Vec<SwiGlu> = (0..LAYERS)
            .map(|_| SwiGlu::load(INTERMEDIATE, HIDDEN, format, &mut pool, &Source::Float(&noise)))
            .collect();
        let bytes = layers.iter().map(SwiGlu::bytes).sum();
        let mut out = Activations::default();
        measure(c, ("swiglu", format, bytes), (isa, &mut pool), HIDDEN, |pool, x| {
            for layer in &layers {
                layer.apply(isa, pool, x, format, black_box(&mut out));
            }
        });
    }
    for format in FORMATS {
        let layers: Vec<Linear> =
            (0..LAYERS).map(|_| linear(&mut pool, HIDDEN, INTERMEDIATE, format)).collect();
        let bytes = layers.iter().map(Linear::bytes).sum();
        let mut out = vec![0.0; most * HIDDEN];
        measure(c, ("down", format, bytes), (isa, &mut pool), INTERMEDIATE, |pool, x| {
            for layer in &layers {
                layer.add_to(isa, pool, x, black_box(&mut out[..x.rows() * HIDDEN]));
            }
        });
    }
    for format in FORMATS {
        let head = linear(&mut pool, VOCAB, HIDDEN, format);
        let mut best = vec![Best::NONE; most];
        measure(c, ("argmax", format, head.bytes()), (isa, &mut pool), HIDDEN, |pool, x| {
            head.argmax(isa, pool, x, black_box(&mut best[..x.rows()]));
        });
    }
}

criterion_group! {
    name = group;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    targets = benches
}
criterion_main!(group);
