//! All tests go through [`check`]: the public function, on every instruction set, format
//! and number of threads, must have the bits of the formula of [`super`] written as plain
//! loops over each row's logical list. Tiles, pieces, slots and neighbours cannot matter.
#![expect(clippy::single_range_in_vec_init, reason = "spans of one range")]

use super::*;
use crate::kv::KvFormat;
use crate::lanes;
use crate::math::exp;
use half::f16;
use proptest::prelude::*;

/// A deterministic number in (-1, 1) with a full mantissa.
fn noise(seed: usize) -> f32 {
    let mut x = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    for _ in 0..2 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    ((x >> 40) as f32 + 0.5) / (1 << 23) as f32 - 1.0
}

fn vector(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| 2.0 * noise(seed * 100_003 + i)).collect()
}

fn rounded(format: KvFormat, x: f32) -> f32 {
    match format {
        KvFormat::F32 => x,
        KvFormat::F16 => f16::from_f32_const(x).to_f32_const(),
    }
}

/// Key (`kind` 0) or value (`kind` 1) of a slot of a sequence.
fn stored(shape: HeadShape, sequence: usize, slot: usize, kind: usize) -> Vec<f32> {
    vector((sequence * 5_003 + slot) * 2 + kind, shape.kv_heads * shape.head_dim)
}

type Row = (usize, Vec<Range<usize>>);

/// The formula for one head, as documented; also in f64 without any rounding.
fn formula(q: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> (Vec<f32>, Vec<f64>) {
    let scale = 1.0 / (q.len() as f32).sqrt();
    let dot = |k: &Vec<f32>| q.iter().zip(k).fold(0.0f32, |s, (q, k)| (q * scale).mul_add(*k, s));
    let scores: Vec<f32> = keys.iter().map(dot).collect();
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|s| exp(s - max)).collect();
    let total = lanes::sum(&weights);
    let out = (0..q.len())
        .map(|d| weights.iter().zip(values).fold(0.0f32, |o, (w, v)| w.mul_add(v[d], o)) / total);
    let exact: Vec<f64> = keys
        .iter()
        .map(|k| q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>())
        .map(|s| (s / (q.len() as f64).sqrt()).exp())
        .collect();
    let exact_total: f64 = exact.iter().sum();
    let exact_out = (0..q.len())
        .map(|d| exact.iter().zip(values).map(|(w, v)| w * f64::from(v[d])).sum::<f64>())
        .map(|o| o / exact_total);
    (out.collect(), exact_out.collect())
}

/// Checks one call of [`attention`] with rows that see the given slots of their sequence.
fn check(shape: HeadShape, rows: &[Row]) {
    let HeadShape { heads, kv_heads, head_dim } = shape;
    let sequences = 1 + rows.iter().map(|row| row.0).max().unwrap();
    let seen = |s: usize, slot: usize| {
        rows.iter().any(|row| row.0 == s && row.1.iter().any(|range| range.contains(&slot)))
    };
    let slots = rows.iter().flat_map(|row| row.1.iter().map(|r| r.end)).max().unwrap();
    let q: Vec<Vec<f32>> =
        (0..rows.len()).map(|i| vector(90_000_001 + i, heads * head_dim)).collect();
    for format in [KvFormat::F32, KvFormat::F16] {
        let stores: Vec<KvStore> = (0..sequences)
            .map(|s| {
                let mut kv = KvStore::new(format, kv_heads, head_dim);
                kv.reserve(slots);
                let nothing = vec![f32::NAN; kv_heads * head_dim];
                for slot in 0..kv.slots() {
                    if seen(s, slot) {
                        kv.write(slot, &stored(shape, s, slot, 0), &stored(shape, s, slot, 1));
                    } else {
                        kv.write(slot, &nothing, &nothing);
                    }
                }
                kv
            })
            .collect();
        let mut want = Vec::new();
        for ((sequence, span), q) in rows.iter().zip(&q) {
            for (head, q) in q.chunks_exact(head_dim).enumerate() {
                let first = head / (heads / kv_heads) * head_dim;
                let read = |kind: usize| -> Vec<Vec<f32>> {
                    let all = span.iter().cloned().flatten();
                    all.map(|slot| {
                        stored(shape, *sequence, slot, kind)[first..][..head_dim]
                            .iter()
                            .map(|&x| rounded(format, x))
                            .collect()
                    })
                    .collect()
                };
                let (out, exact) = formula(q, &read(0), &read(1));
                for (out, exact) in out.iter().zip(exact) {
                    assert!((f64::from(*out) - exact).abs() < 2e-5, "{out} is not {exact}");
                }
                want.extend(out.into_iter().map(f32::to_bits));
            }
        }
        let queries: Vec<Query<'_>> = rows
            .iter()
            .zip(&q)
            .map(|((sequence, span), q)| Query { q, kv: &stores[*sequence], span })
            .collect();
        for isa in Isa::available() {
            for threads in [1, 3] {
                let mut pool = Pool::new(threads).unwrap();
                let mut out = vec![f32::NAN; want.len()];
                attention(isa, &mut pool, shape, &queries, Coming::NONE, &mut out);
                let bits: Vec<u32> = out.into_iter().map(f32::to_bits).collect();
                let same = bits == want;
                assert!(same, "{isa}, {format}, {threads} threads, {shape:?}, {rows:?}");
            }
        }
    }
}

fn shape(kv_heads: usize, group: usize, head_dim: usize) -> HeadShape {
    HeadShape { heads: kv_heads * group, kv_heads, head_dim }
}

#[test]
fn causal_blocks_of_every_length() {
    for rows in [1, 2, 5, 8, 9, 16, 33] {
        for settled in [0, 3, 16, 100] {
            let rows: Vec<Row> = (0..rows).map(|i| (0, vec![0..settled + i + 1])).collect();
            check(shape(3, 3, 64), &rows);
        }
    }
}

#[test]
fn chunks_longer_than_a_shared_walk_of_the_cache() {
    let rows: Vec<Row> = (0..9).map(|i| (0, vec![0..300 + i])).collect();
    check(shape(1, 3, 32), &rows);
}

#[test]
fn sliding_windows_start_anywhere() {
    let rows: Vec<Row> = (0..20).map(|i| (0, vec![5 + i..70 + i])).collect();
    check(shape(2, 2, 48), &rows);
}

#[test]
fn packed_blocks_see_the_prefix_and_their_own() {
    let row = |i: usize| (0, vec![0..37, 37 + i / 4 * 4..38 + i]);
    check(shape(2, 4, 80), &(0..16).map(row).collect::<Vec<_>>());
}

#[test]
fn sequences_of_different_lengths_interleave() {
    let row = |i: usize| (i * 7 % 3, vec![0..1 + (i * 29) % 90]);
    check(shape(2, 1, 16), &(0..17).map(row).collect::<Vec<_>>());
}

#[test]
fn ranges_may_come_in_any_order_and_be_empty() {
    let rows = [(0, vec![20..40, 3..3, 0..5]), (0, vec![30..31, 18..45]), (0, vec![1..2])];
    check(shape(1, 2, 20), &rows);
}

#[test]
fn the_same_keys_in_other_slots_give_the_same_bits() {
    let head = shape(1, 3, 24);
    let keys: Vec<Vec<f32>> = (0..50).map(|i| vector(i, 24)).collect();
    let q = vector(1_000, 72);
    let run = |isa: Isa, slots: &[usize], span: &[Range<usize>]| {
        let mut kv = KvStore::new(KvFormat::F16, 1, 24);
        kv.reserve(200);
        for (key, &slot) in keys.iter().zip(slots) {
            kv.write(slot, key, key);
        }
        let mut out = vec![0.0; 72];
        let row = Query { q: &q, kv: &kv, span };
        attention(isa, &mut Pool::single(), head, &[row], Coming::NONE, &mut out);
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    for isa in Isa::available() {
        let dense: Vec<usize> = (0..50).collect();
        let spread: Vec<usize> = (3..33).chain(77..90).chain(150..157).collect();
        let one = run(isa, &dense, &[0..50]);
        assert_eq!(one, run(isa, &spread, &[3..33, 77..90, 150..157]), "{isa}");
    }
}

#[test]
fn pieces_cover_every_query_once_and_get_smaller() {
    for (rows, threads) in [(1, 1), (1, 2), (3, 4), (16, 2), (100, 3)] {
        let shape = shape(3, 3, 1);
        let stores = [KvStore::new(KvFormat::F32, 3, 1), KvStore::new(KvFormat::F32, 3, 1)];
        let spans: Vec<Vec<Range<usize>>> = (0..rows).map(|i| vec![0..100 + i]).collect();
        let kv = |i: usize| &stores[usize::from(i >= rows / 2)];
        let queries: Vec<Query<'_>> =
            spans.iter().enumerate().map(|(i, span)| Query { q: &[], kv: kv(i), span }).collect();
        let mut hits = vec![0; rows * 9];
        let mut last = PIECE;
        for (first_row, piece) in pieces(shape, &queries, threads) {
            assert!(piece.queries <= PIECE);
            for i in piece.first..piece.first + piece.queries {
                hits[(first_row + i / 3) * 9 + piece.kv_head * 3 + i % 3] += 1;
            }
            last = piece.queries;
        }
        assert!(hits.iter().all(|&hits| hits == 1), "{rows} rows, {threads} threads");
        assert!(last <= TILE || threads == 1, "the last piece has {last} queries");
    }
}

fn spans() -> impl Strategy<Value = Vec<Row>> {
    // A family of rows around one range, each with its own ends and extra ranges.
    let extra = proptest::collection::vec((0..150usize, 0..20usize), 0..3);
    let row = (0..2usize, 0..6usize, 0..6usize, extra, any::<bool>());
    (0..40usize, 0..100usize, proptest::collection::vec(row, 1..14)).prop_map(
        |(start, len, rows)| {
            let row = |(sequence, early, late, extra, before): (_, _, _, Vec<(_, _)>, _)| {
                let mut span: Vec<_> = extra.into_iter().map(|(s, l)| s..s + l).collect();
                span.insert(
                    if before { 0 } else { span.len() },
                    start + early..start + 6 + len + late,
                );
                (sequence, span)
            };
            rows.into_iter().map(row).collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_spans_and_shapes(
        rows in spans(),
        kv_heads in 1..4usize,
        group in 1..8usize,
        head_dim in 1..=128usize,
    ) {
        check(shape(kv_heads, group, head_dim), &rows);
    }
}
