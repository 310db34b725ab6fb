//! Attention over segments of rows, and its gradient.
//!
//! `o_i = sum_j p_ij v_j`, `p_i = softmax_j(q_i . k_j / sqrt(head_dim))` over the keys that
//! row i sees. The backward pass makes the probabilities again (Dao et al. 2022 do the
//! same, to spare memory): with `dp = do v^T` and `ds = p (dp - p . dp)`,
//! `dq = ds k`, `dk = ds^T q`, `dv = p^T do`.
//!
//! Rows are taken 64 at a time and a head is one thread's work. Short segments that see
//! nearly the same keys, as the noisy states of one answer do, are computed together with
//! what each does not see masked: a product of five rows costs nearly that of fifty.

use std::ops::Range;

use super::elementwise::{softmax, softmax_backward};
use super::matmul::{Matrix, multiply};
use crate::isa::Isa;
use crate::pool::Pool;

/// Rows of a tile: 64 rows of scores over 500 keys are 128 kB, which a core's second-level
/// cache holds.
const TILE: usize = 64;

/// A run of rows that see whole ranges of earlier rows, and themselves causally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its rows.
    pub rows: Range<usize>,
    /// Earlier rows that each of them sees; ascending and disjoint.
    pub sees: Vec<Range<usize>>,
}

/// Heads of queries, keys and values: `q (T, H head_dim)`, `k` and `v (T, H_kv head_dim)`.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads, a divisor of it.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// All rows.
    pub segments: &'a [Segment],
    /// Position of each row, `(T,)`, and the distance from which on a key is not seen.
    pub window: Option<(&'a [usize], usize)>,
}

/// Rows that are computed together: of one segment, or all of several short ones.
struct Tile<'a> {
    rows: Range<usize>,
    segments: &'a [Segment],
    /// All keys that any of them sees; the last range ends with the rows themselves.
    keys: Vec<Range<usize>>,
}

/// Most keys that joining a segment may make the others of its tile compute in vain.
/// Noisy states of one answer see nearly the same, those of two answers do not.
const IN_VAIN: usize = 64;

impl Tile<'_> {
    /// Sets the scores of keys that row `row`, one of this tile, does not see to minus
    /// infinity. `scores` are those of `keys`.
    fn hide(&self, row: usize, scores: &mut [f32]) {
        let Some(segment) = self.segments.iter().find(|s| s.rows.contains(&row)) else { return };
        let own = segment.rows.start..row + 1;
        let mut at = 0;
        for keys in &self.keys {
            let scores = &mut scores[at..at + keys.len()];
            let mut hidden = keys.start;
            for seen in segment.sees.iter().chain(std::iter::once(&own)) {
                let (start, end) = (seen.start.max(keys.start), seen.end.min(keys.end));
                if start < end {
                    scores[hidden - keys.start..start - keys.start].fill(f32::NEG_INFINITY);
                    hidden = end;
                }
            }
            scores[hidden - keys.start..].fill(f32::NEG_INFINITY);
            at += keys.len();
        }
    }
}

/// The ranges that cover what two lists of ascending disjoint ranges do.
fn union(a: &[Range<usize>], b: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = a.iter().chain(b).filter(|r| !r.is_empty()).cloned().collect();
    all.sort_unstable_by_key(|r| r.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(all.len());
    for range in all {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn total(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(Range::len).sum()
}

impl<'a> Heads<'a> {
    fn tiles(&self) -> Vec<Tile<'a>> {
        let mut tiles = Vec::new();
        let mut rest = self.segments;
        while let [first, ..] = rest {
            let Range { start, end } = first.rows;
            // What the segments of a tile see of earlier tiles.
            let mut sees = union(&first.sees, &[]);
            let (mut joined, mut last) = (1, end);
            for next in &rest[1..] {
                let both = union(&sees, &next.sees);
                let in_vain = total(&both) - total(&sees).min(total(&next.sees));
                // A segment that sees rows of the tile itself would need an order.
                let apart = both.last().is_none_or(|keys| keys.end <= start);
                if next.rows.end - start > TILE || in_vain > IN_VAIN || !apart {
                    break;
                }
                (sees, joined, last) = (both, joined + 1, next.rows.end);
            }
            let (segments, others) = rest.split_at(joined);
            for at in (start..last).step_by(TILE) {
                let rows = at..last.min(at + TILE);
                let keys = sees.iter().cloned().chain(std::iter::once(start..rows.end)).collect();
                tiles.push(Tile { rows, segments, keys });
            }
            rest = others;
        }
        tiles
    }

    fn rows(&self) -> usize {
        self.segments.last().map_or(0, |s| s.rows.end)
    }

    /// Head `head` of `heads` of rows `rows` of `x`.
    fn of<'x>(&self, x: &'x [f32], heads: usize, head: usize, rows: &Range<usize>) -> Matrix<'x> {
        let (d, stride) = (self.head_dim, heads * self.head_dim);
        Matrix::new(&x[rows.start * stride + head * d..], (rows.len(), d), stride)
    }

    fn q<'x>(&self, q: &'x [f32], head: usize, rows: &Range<usize>) -> Matrix<'x> {
        self.of(q, self.heads, head, rows)
    }

    fn kv<'x>(&self, x: &'x [f32], head: usize, rows: &Range<usize>) -> Matrix<'x> {
        self.of(x, self.kv_heads, head * self.kv_heads / self.heads, rows)
    }

    /// The probabilities of a tile, `(rows, keys)`, into `p`; returns the number of keys.
    fn probabilities(
        &self,
        isa: Isa,
        tile: &Tile<'_>,
        head: usize,
        (q, k): (&[f32], &[f32]),
        p: &mut Vec<f32>,
    ) -> usize {
        let keys: usize = tile.keys.iter().map(|r| r.len()).sum();
        p.resize(tile.rows.len() * keys, 0.0);
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let mut at = 0;
        for range in &tile.keys {
            let k = self.kv(k, head, range);
            multiply(&mut p[at..], keys, (scale, 0.0), self.q(q, head, &tile.rows), k.t());
            at += range.len();
        }
        for (i, p) in p.chunks_exact_mut(keys).enumerate() {
            let row = tile.rows.start + i;
            tile.hide(row, p);
            if let Some((positions, window)) = self.window {
                for (p, key) in p.iter_mut().zip(tile.keys.iter().cloned().flatten()) {
                    if positions[row].abs_diff(positions[key]) >= window {
                        *p = f32::NEG_INFINITY;
                    }
                }
            }
            softmax(isa, p);
        }
        keys
    }
}

/// Attention: `(T, H head_dim)`.
pub fn attend(isa: Isa, pool: &mut Pool, shape: Heads<'_>, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
    let (t, d, tiles) = (shape.rows(), shape.head_dim, shape.tiles());
    // A head's rows lie together while a thread writes them.
    let mut by_head = vec![0.0; q.len()];
    pool.for_each_chunk(&mut by_head, t * d, &|head, out| {
        let mut p = Vec::new();
        for tile in &tiles {
            let keys = shape.probabilities(isa, tile, head, (q, k), &mut p);
            let out = &mut out[tile.rows.start * d..tile.rows.end * d];
            let (mut at, mut beta) = (0, 0.0);
            for range in &tile.keys {
                let p = Matrix::new(&p[at..], (tile.rows.len(), range.len()), keys);
                multiply(out, d, (1.0, beta), p, shape.kv(v, head, range));
                (at, beta) = (at + range.len(), 1.0);
            }
        }
    });
    let mut out = vec![0.0; q.len()];
    gather_heads(&by_head, (t, d), 1, 0, 1, &mut out);
    out
}

/// The gradients of `q`, `k` and `v`, given `out`'s.
pub fn attend_backward(
    isa: Isa,
    pool: &mut Pool,
    shape: Heads<'_>,
    [q, k, v]: [&[f32]; 3],
    gradient: &[f32],
) -> [Vec<f32>; 3] {
    let (t, d, tiles) = (shape.rows(), shape.head_dim, shape.tiles());
    let scale = 1.0 / (d as f32).sqrt();
    // Per query head: dq, and what it gives to dk and dv.
    let mut by_head = vec![0.0; 3 * q.len()];
    pool.for_each_chunk(&mut by_head, 3 * t * d, &|head, out| {
        let (dq, rest) = out.split_at_mut(t * d);
        let (dk, dv) = rest.split_at_mut(t * d);
        let (mut p, mut ds) = (Vec::new(), Vec::new());
        for tile in &tiles {
            let rows = tile.rows.len();
            let keys = shape.probabilities(isa, tile, head, (q, k), &mut p);
            let down = shape.q(gradient, head, &tile.rows);
            ds.resize(rows * keys, 0.0);
            let mut at = 0;
            for range in &tile.keys {
                multiply(&mut ds[at..], keys, (1.0, 0.0), down, shape.kv(v, head, range).t());
                at += range.len();
            }
            for (p, ds) in p.chunks_exact(keys).zip(ds.chunks_exact_mut(keys)) {
                softmax_backward(isa, p, ds, scale);
            }
            let (mut at, mut beta) = (0, 0.0);
            let dq = &mut dq[tile.rows.start * d..tile.rows.end * d];
            for range in &tile.keys {
                let size = (rows, range.len());
                let (p, ds) =
                    (Matrix::new(&p[at..], size, keys), Matrix::new(&ds[at..], size, keys));
                let lies = range.start * d..range.end * d;
                multiply(dq, d, (1.0, beta), ds, shape.kv(k, head, range));
                let q = shape.q(q, head, &tile.rows);
                multiply(&mut dk[lies.clone()], d, (1.0, 1.0), ds.t(), q);
                multiply(&mut dv[lies], d, (1.0, 1.0), p.t(), down);
                (at, beta) = (at + range.len(), 1.0);
            }
        }
    });
    let groups = shape.heads / shape.kv_heads;
    let mut gradients = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    for (which, out) in gradients.iter_mut().enumerate() {
        let groups = if which == 0 { 1 } else { groups };
        gather_heads(&by_head, (t, d), 3, which, groups, out);
    }
    gradients
}

/// From `(heads, of, T, d)` takes the `which`-th of `of`, adds `groups` heads together, and
/// writes `(T, heads / groups, d)`.
fn gather_heads(
    by_head: &[f32],
    (t, d): (usize, usize),
    of: usize,
    which: usize,
    groups: usize,
    out: &mut [f32],
) {
    if t == 0 {
        return;
    }
    let stride = out.len() / t;
    for (head, all) in by_head.chunks_exact(of * t * d).enumerate() {
        let rows = all[which * t * d..].chunks_exact(d).take(t);
        for (row, out) in rows.zip(out.chunks_exact_mut(stride)) {
            for (o, x) in out[head / groups * d..].iter_mut().zip(row) {
                *o += x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which keys a row sees, by the definition.
    fn seen(segments: &[Segment], row: usize, window: Option<usize>) -> Vec<usize> {
        let segment = segments.iter().find(|s| s.rows.contains(&row)).unwrap();
        let own = segment.rows.start..row + 1;
        let keys = segment.sees.iter().cloned().flatten().chain(own);
        keys.filter(|key| window.is_none_or(|w| row - key < w)).collect()
    }

    /// In f64, one row after another.
    fn definition(shape: &Heads<'_>, window: Option<usize>, [q, k, v]: [&[f64]; 3]) -> Vec<f64> {
        let (h, g, d) = (shape.heads, shape.heads / shape.kv_heads, shape.head_dim);
        let kv_width = shape.kv_heads * d;
        let mut out = vec![0.0; q.len()];
        for row in 0..shape.rows() {
            for head in 0..h {
                let q = &q[row * h * d + head * d..][..d];
                let at = |key: usize| key * kv_width + head / g * d;
                let keys = seen(shape.segments, row, window);
                let score = |&key: &usize| {
                    let dot: f64 = q.iter().zip(&k[at(key)..]).map(|(a, b)| a * b).sum();
                    (dot / (d as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = keys.iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for (key, score) in keys.iter().zip(scores) {
                    for i in 0..d {
                        out[row * h * d + head * d + i] += score / total * v[at(*key) + i];
                    }
                }
            }
        }
        out
    }

    #[test]
    fn attention_and_its_gradients_agree_with_the_definition() {
        let segment = |rows, sees: &[Range<usize>]| Segment { rows, sees: sees.to_vec() };
        let segments = [
            segment(0..70, &[]),
            segment(70..75, std::slice::from_ref(&(0..70))),
            segment(75..76, &[0..30, 70..73]),
            segment(76..80, &[]),
            // A prompt, its answer, and states of it: these make tiles of several segments.
            segment(80..110, &[]),
            segment(110..130, std::slice::from_ref(&(80..110))),
            segment(130..134, std::slice::from_ref(&(80..112))),
            segment(134..135, std::slice::from_ref(&(80..111))),
            segment(135..141, &[80..110, 115..120]),
            segment(141..150, &[80..95, 130..134]),
            segment(150..153, std::slice::from_ref(&(0..4))),
            segment(153..155, std::slice::from_ref(&(1..2))),
        ];
        let (t, heads, kv_heads, d) = (155, 4, 2, 6);
        let positions: Vec<usize> = (0..t).collect();
        let wave = |len: usize, phase: f32| -> Vec<f32> {
            (0..len).map(|i| ((i * i) as f32 * 0.37 + phase).sin() * 1.5).collect()
        };
        let (q, k) = (wave(t * heads * d, 0.0), wave(t * kv_heads * d, 1.0));
        let (v, down) = (wave(t * kv_heads * d, 2.0), wave(t * heads * d, 3.0));
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (isa, mut pool) = (Isa::detect().unwrap(), Pool::new(2).unwrap());
        for window in [None, Some(9)] {
            let shape = Heads {
                heads,
                kv_heads,
                head_dim: d,
                segments: &segments,
                window: window.map(|w| (&positions[..], w)),
            };
            let inputs = [wide(&q), wide(&k), wide(&v)];
            let run = |inputs: &[Vec<f64>; 3]| {
                definition(&shape, window, inputs.each_ref().map(|x| &x[..]))
            };
            let out = attend(isa, &mut pool, shape, [&q, &k, &v]);
            for (found, want) in out.iter().zip(run(&inputs)) {
                assert!((f64::from(*found) - want).abs() < 1e-5);
            }
            let gradients = attend_backward(isa, &mut pool, shape, [&q, &k, &v], &down);
            for (which, gradient) in gradients.iter().enumerate() {
                for i in (0..gradient.len()).step_by(13) {
                    let at = |h: f64| {
                        let mut inputs = inputs.clone();
                        inputs[which][i] += h;
                        run(&inputs).iter().zip(&down).map(|(y, d)| y * f64::from(*d)).sum::<f64>()
                    };
                    let want = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let found = f64::from(gradient[i]);
                    assert!((found - want).abs() < 1e-4, "{which} {i}: {found} {want}");
                }
            }
        }
    }
}
