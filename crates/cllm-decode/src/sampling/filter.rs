//! Top-k, top-p, min-p and typical-p: which tokens may be drawn.
//!
//! Cost: top-k and min-p are passes of maxima over the vocabulary, as each excludes whole blocks
//! of tokens: k blocks have a token that reaches the k-th largest block maximum, so no token
//! below that is among the k. Top-p and typical-p, without top-k, need the sum of all
//! exponentials, in single precision, of an own polynomial that vectorises; then most tokens are
//! out without being looked at:
//!
//! * of top-p, those with less than `(1 - p) / V` of the probability. All of them sum to less than
//!   `1 - p`, so they are in the tail that is cut.
//! * of typical-p, those of them whose information s is also above twice the entropy H: any
//!   other token is nearer to H, as `|s' - H| <= max(H, s - H) = s - H`.
//!
//! Of what is left no more is sorted than is kept, about.
//!
//! Equals are ordered by id, so the set depends on nothing but the row.

use std::cmp::Ordering;

use super::Sampling;
use super::gumbel::{BLOCK, largest as largest_of};
use crate::lm::Token;

/// A token and its logit over the temperature.
pub(super) type Score = (Token, f64);

/// `e^x` for x up to 0, with a relative error of 1e-11: the same bits on every machine, as it
/// has only sums and products.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to an integer, which so stands in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// 1 / k!
    const F: [f64; 10] = [
        1.0,
        1.0,
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5_040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
    ];
    let x = if x > -700.0 { x } else { -700.0 };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let r = x - (shifted - ROUND) * std::f64::consts::LN_2;
    // Horner's rule, written out: a loop would not be taken apart by the compiler.
    let sum =
        ((((((((F[9] * r + F[8]) * r + F[7]) * r + F[6]) * r + F[5]) * r + F[4]) * r + F[3]) * r
            + F[2])
            * r
            + 1.0)
            * r
            + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(1023);
    sum * f64::from_bits(exponent << 52)
}

/// Whether any filter is on.
pub(super) fn any(sampling: &Sampling) -> bool {
    sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0 || sampling.typical_p < 1.0
}

/// `e^x` for x up to 0, or e^-80 below that, in single precision.
#[inline(always)]
fn exp_single(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 as a number of few bits, whose products are exact, and the rest.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = if x > -80.0 { x } else { -80.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2.0 - n * LN_2.1;
    let sum = (((((1.0 / 720.0 * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5)
        * r
        + 1.0)
        * r
        + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    sum * f32::from_bits(exponent << 23)
}

/// Fills `kept` with the tokens that may be drawn, in no particular order. A token's score is
/// `logit * inverse`.
pub(super) fn apply(
    sampling: &Sampling,
    (logits, inverse): (&[f32], f64),
    largest_logit: f32,
    kept: &mut Vec<Score>,
) {
    let largest = f64::from(largest_logit) * inverse;
    let floor = if sampling.min_p > 0.0 {
        largest + libm::log(f64::from(sampling.min_p))
    } else {
        f64::NEG_INFINITY
    };
    let (top_p, typical_p) = (f64::from(sampling.top_p), f64::from(sampling.typical_p));
    let k = sampling.top_k;
    // What is below this is out by the first filter that is on. Min-p only looks at the most
    // likely token, so it may come first unless that would change what top-p sums up.
    let mut first = if top_p < 1.0 { f64::NEG_INFINITY } else { floor };
    if k > 0 {
        let mut maxima: Vec<f32> = logits.chunks(BLOCK).map(largest_of).collect();
        if k <= maxima.len() {
            let (_, kth, _) = maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            first = first.max(f64::from(*kth) * inverse);
        }
    }
    // Of the whole vocabulary, if the first filter that is on sums it up.
    let only_typical = top_p == 1.0 && sampling.min_p == 0.0 && typical_p < 1.0;
    let all = (k == 0 && (top_p < 1.0 || only_typical))
        .then(|| Moments::of_logits(logits, inverse, largest_logit));
    if let Some(all) = &all {
        let tail = (1.0 - if only_typical { typical_p } else { top_p }) / logits.len() as f64;
        let mut surprise = -libm::log(tail);
        if only_typical {
            surprise = surprise.max(2.0 * all.entropy);
        }
        first = largest + libm::log(all.total) - surprise - SLACK;
    }
    kept.clear();
    for (block, logits) in logits.chunks(BLOCK).enumerate() {
        if f64::from(largest_of(logits)) * inverse >= first {
            let start = (block * BLOCK) as Token;
            let scores = (start..).zip(logits).map(|(v, &l)| (v, f64::from(l) * inverse));
            kept.extend(scores.filter(|&(_, score)| score >= first));
        }
    }
    if k > 0 && k < kept.len() {
        kept.select_nth_unstable_by(k - 1, by_score);
        kept.truncate(k);
    }
    let weight = |(_, score): Score| exp(score - largest);
    if top_p < 1.0 {
        let total =
            all.as_ref().map_or_else(|| kept.iter().copied().map(weight).sum(), |a| a.total);
        until(top_p * total, kept, by_score, weight);
        kept.retain(|&(_, score)| score >= floor);
    }
    if typical_p < 1.0 {
        let Moments { total, entropy } =
            all.filter(|_| only_typical).unwrap_or_else(|| Moments::of_scores(kept, largest));
        let log_total = libm::log(total);
        let distance = |score: f64| (log_total - (score - largest) - entropy).abs();
        let by_distance =
            |a: &Score, b: &Score| distance(a.1).total_cmp(&distance(b.1)).then(a.0.cmp(&b.0));
        until(typical_p * total, kept, by_distance, weight);
    }
}

/// What rounding in single precision may do to a bound.
const SLACK: f64 = 1e-5;

/// Of a distribution: the sum of `e^(score - largest)`, and the entropy,
/// `ln total - sum p_v (score - largest)`.
struct Moments {
    total: f64,
    entropy: f64,
}

impl Moments {
    fn of_logits(logits: &[f32], inverse: f64, largest: f32) -> Self {
        // Of a temperature too low for single precision nothing but the largest counts.
        let inverse = (inverse as f32).min(f32::MAX);
        let (mut total, mut mean) = (0.0, 0.0);
        // Blocks in single precision, by lanes that the compiler takes together.
        for block in logits.chunks(BLOCK) {
            let (mut sums, mut means) = ([0.0f32; 16], [0.0f32; 16]);
            let mut add = |lane: usize, logit: f32| {
                let x = (logit - largest) * inverse;
                let x = if x > -80.0 { x } else { -80.0 };
                let weight = exp_single(x);
                sums[lane] += weight;
                means[lane] += weight * x;
            };
            let (chunks, rest) = block.as_chunks::<16>();
            for chunk in chunks {
                for (lane, &logit) in chunk.iter().enumerate() {
                    add(lane, logit);
                }
            }
            for (lane, &logit) in rest.iter().enumerate() {
                add(lane, logit);
            }
            total += f64::from(sums.iter().sum::<f32>());
            mean += f64::from(means.iter().sum::<f32>());
        }
        Self { total, entropy: libm::log(total) - mean / total }
    }

    fn of_scores(scores: &[Score], largest: f64) -> Self {
        let (mut total, mut mean) = (0.0, 0.0);
        // A token with no probability adds nothing to the mean.
        for x in scores.iter().map(|(_, score)| score - largest).filter(|x| x.is_finite()) {
            total += exp(x);
            mean += exp(x) * x;
        }
        Self { total, entropy: libm::log(total) - mean / total }
    }
}

/// The likelier first, the lower id among equals.
fn by_score(a: &Score, b: &Score) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Cuts `kept` after the first few, in this order, whose weights reach `enough`. Sorts a few
/// times what it keeps at most.
fn until(
    enough: f64,
    kept: &mut Vec<Score>,
    order: impl Fn(&Score, &Score) -> Ordering,
    weight: impl Fn(Score) -> f64,
) {
    let (mut sum, mut done, mut more) = (0.0, 0, 64);
    while done < kept.len() {
        let rest = &mut kept[done..];
        more = more.min(rest.len());
        if more < rest.len() {
            rest.select_nth_unstable_by(more - 1, &order);
        }
        rest[..more].sort_unstable_by(&order);
        let reaches = |&score: &Score| {
            sum += weight(score);
            sum >= enough
        };
        if let Some(last) = rest[..more].iter().position(reaches) {
            kept.truncate(done + last + 1);
            return;
        }
        done += more;
        more *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter;

    #[test]
    fn exponentials() {
        for i in 0..7_000 {
            let x = -f64::from(i) / 10.0;
            let error = exp(x) / x.exp() - 1.0;
            assert!(error.abs() < 1e-10, "e^{x} is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f64::NEG_INFINITY) < 1e-300);
    }

    #[test]
    fn exponentials_in_single_precision() {
        for i in 0..8_000 {
            let x = -(i as f32) / 100.0;
            let error = f64::from(exp_single(x)) / f64::from(x).exp() - 1.0;
            assert!(error.abs() < 5e-7, "e^{x} is off by {error}");
        }
        assert_eq!(exp_single(0.0), 1.0);
        assert!(exp_single(f32::NEG_INFINITY) < 1e-34);
    }

    /// Tokens kept, all of them sorted, with a margin: those that are in whatever rounding does,
    /// and those that are in or may be.
    fn plainly(sampling: &Sampling, logits: &[f32], inverse: f64) -> [Vec<Token>; 2] {
        let scores: Vec<Score> =
            (0..).zip(logits.iter().map(|&l| f64::from(l) * inverse)).collect();
        let largest = scores.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s.1 - largest).exp()).sum();
        let p = |score: f64| (score - largest).exp() / total;
        let h: f64 = scores.iter().map(|s| p(s.1)).filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum();
        let key = |score: f64| match sampling.typical_p < 1.0 {
            true => (-p(score).ln() - h).abs(),
            false => -score,
        };
        let mut sorted = scores;
        sorted.sort_by(|a, b| key(a.1).total_cmp(&key(b.1)).then(a.0.cmp(&b.0)));
        let enough = f64::from(sampling.top_p.min(sampling.typical_p));
        [-1e-5, 1e-5].map(|margin| {
            let mut sum = 0.0;
            let reaches = |s: &Score| {
                sum += p(s.1);
                sum >= enough + margin
            };
            let len = sorted.iter().position(reaches).map_or(sorted.len(), |last| last + 1);
            let mut tokens: Vec<Token> = sorted[..len].iter().map(|s| s.0).collect();
            tokens.sort_unstable();
            tokens
        })
    }

    /// What is left out unseen, and unsorted, would have been cut.
    #[test]
    fn shortcuts_cut_what_sorting_everything_cuts() {
        let mut kept = Vec::new();
        for seed in 0..60u64 {
            // Between nearly flat and peaked, as logits of models are.
            let unit = |v: usize| counter::hash(seed, v as u64) as f32 / u64::MAX as f32;
            let spread = 0.5 + (seed % 12) as f32 * 2.0;
            let logits: Vec<f32> = (0..3_001).map(|v| unit(v).ln() * -spread).collect();
            for p in [0.05, 0.5, 0.9, 0.99, 0.999] {
                for sampling in [
                    Sampling { top_p: p, ..Sampling::default() },
                    Sampling { typical_p: p, ..Sampling::default() },
                ] {
                    let largest = largest_of(&logits);
                    apply(&sampling, (&logits, 1.25), largest, &mut kept);
                    let mut found: Vec<Token> = kept.iter().map(|s| s.0).collect();
                    found.sort_unstable();
                    let [least, most] = plainly(&sampling, &logits, 1.25);
                    let within = |a: &[Token], b: &[Token]| a.iter().all(|t| b.contains(t));
                    assert!(within(&least, &found), "{sampling:?}: {least:?}, found {found:?}");
                    assert!(within(&found, &most), "{sampling:?}: {most:?}, found {found:?}");
                }
            }
        }
    }
}
