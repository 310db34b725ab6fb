//! What a forward does between its matrices, in the shapes of SmolLM2-135M: the norm of 576
//! elements written as activations (for eight-bit weights that is where rows are
//! quantised), and the rotation of 9 + 3 heads of 64.
//!
//! Attention has a file of its own; SiLU is part of the `swiglu` of `linear.rs`.

use std::hint::black_box;
use std::time::Duration;

use cllm_kernels::rope::rotate;
use cllm_kernels::{Activations, Format, Isa, Pool, RopeTable, Rows};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const HIDDEN: usize = 576;
const HEADS: usize = 9 + 3;
const HEAD_DIM: usize = 64;
const ROWS: [usize; 4] = [1, 4, 16, 512];

fn noise(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The norm of every row, as activations for weights of a format; w4 takes them as w8.
fn fill(c: &mut Criterion) {
    let isa = Isa::detect().expect("CLLM_ISA names an instruction set of this machine");
    let mut pool = Pool::new(Pool::default_threads()).expect("threads");
    let mut group = c.benchmark_group(format!("norm and fill {isa}"));
    for format in [Format::W8, Format::Bf16, Format::F32] {
        for rows in ROWS {
            let (x, gain) = (noise(rows * HIDDEN), noise(HIDDEN));
            let mut out = Activations::default();
            group.throughput(Throughput::Elements(x.len() as u64));
            let id = BenchmarkId::new(format.to_string(), format!("{rows} rows"));
            group.bench_function(id, |b| {
                b.iter(|| {
                    let rows = Rows::all(black_box(&x), HIDDEN).normed(&gain, 1e-5);
                    out.fill(isa, &mut pool, format, rows);
                });
            });
        }
    }
}

/// Queries and keys of every row, each at its position, on one thread.
fn rope(c: &mut Criterion) {
    let isa = Isa::detect().expect("CLLM_ISA names an instruction set of this machine");
    let mut group = c.benchmark_group(format!("rope {isa}"));
    // The frequencies do not matter to the time, only their number does.
    let mut table = RopeTable::new(noise(HEAD_DIM / 2));
    table.reserve(ROWS[ROWS.len() - 1]);
    for rows in ROWS {
        let mut heads = noise(rows * HEADS * HEAD_DIM);
        group.throughput(Throughput::Elements(heads.len() as u64));
        group.bench_function(format!("{rows} rows"), |b| {
            b.iter(|| {
                for (position, row) in heads.chunks_exact_mut(HEADS * HEAD_DIM).enumerate() {
                    let (cos, sin) = table.at(position);
                    rotate(isa, black_box(row), cos, sin);
                }
            });
        });
    }
}

criterion_group! {
    name = group;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    targets = fill, rope
}
criterion_main!(group);
