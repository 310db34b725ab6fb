//! Attention of all layers of SmolLM2-135M (9 query heads, 3 KV heads of 64, 30 layers):
//! one row, a Jacobi block of 16 rows, a prefill chunk, and long contexts.
//!
//! Each layer has its own keys and values, as in a forward; the time is that of all 30.

use std::hint::black_box;
use std::ops::Range;

use cllm_kernels::{Coming, HeadShape, Isa, KvFormat, KvStore, Pool, Query, attention};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const LAYERS: usize = 30;
const SHAPE: HeadShape = HeadShape { heads: 9, kv_heads: 3, head_dim: 64 };

fn noise(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// `rows` rows in causal order behind `settled` keys.
fn measure(c: &mut Criterion, rows: usize, settled: usize) {
    let width = SHAPE.kv_heads * SHAPE.head_dim;
    let q_width = SHAPE.heads * SHAPE.head_dim;
    let mut seed = 1;
    let mut vector = |n: usize| -> Vec<f32> { (0..n).map(|_| noise(&mut seed)).collect() };
    let isa = Isa::detect().expect("CLLM_ISA names an instruction set of this machine");
    let mut pool = Pool::new(Pool::default_threads()).expect("threads");
    let layers: Vec<KvStore> = (0..LAYERS)
        .map(|_| {
            let mut kv = KvStore::new(KvFormat::F16, SHAPE.kv_heads, SHAPE.head_dim);
            kv.reserve(settled + rows);
            for slot in 0..settled + rows {
                kv.write(slot, &vector(width), &vector(width));
            }
            kv
        })
        .collect();
    let q = vector(rows * q_width);
    let spans: Vec<[Range<usize>; 1]> =
        (0..rows).map(|i| std::array::from_fn(|_| 0..settled + i + 1)).collect();
    let mut out = vec![0.0; q.len()];
    let id = BenchmarkId::new(format!("{isa}"), format!("{rows} rows, {settled} keys"));
    c.benchmark_group("attention").bench_function(id, |b| {
        b.iter(|| {
            for kv in &layers {
                let queries: Vec<Query<'_>> = q
                    .chunks_exact(q_width)
                    .zip(&spans)
                    .map(|(q, span)| Query { q, kv, span })
                    .collect();
                attention(isa, &mut pool, SHAPE, &queries, Coming::NONE, black_box(&mut out));
            }
        });
    });
}

fn benches(c: &mut Criterion) {
    for (rows, settled) in
        [(1, 256), (4, 256), (16, 256), (1, 2048), (16, 2048), (1, 8192), (16, 8192), (512, 0)]
    {
        measure(c, rows, settled);
    }
}

criterion_group! {
    name = group;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = benches
}
criterion_main!(group);
