//! Top-k, top-p, min-p and typical-p: which tokens may be drawn.
//!
//! Cost: top-k and min-p are passes of maxima over the vocabulary, as each excludes whole blocks
//! of tokens: k blocks have a token that reaches the k-th largest block maximum, so no token
//! below that is among the k. Top-p without top-k needs the sum of all exponentials, of an own
//! polynomial that vectorises; then it sorts only tokens with at least `(1 - p) / V` of the
//! probability: all that are less likely sum to less than `1 - p`, so they are the tail that
//! top-p cuts. Typical-p sorts what the others left, all of it if there are none.
//!
//! Equals are ordered by id, so the set depends on nothing but the row.

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

/// Fills `kept` with the tokens that may be drawn, in no particular order. A token's score is
/// `logit * inverse`; `largest` is the largest.
pub(super) fn apply(
    sampling: &Sampling,
    (logits, inverse): (&[f32], f64),
    largest: f64,
    kept: &mut Vec<Score>,
) {
    let floor = if sampling.min_p > 0.0 {
        largest + libm::log(f64::from(sampling.min_p))
    } else {
        f64::NEG_INFINITY
    };
    let top_p = f64::from(sampling.top_p);
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
    let mut all = 0.0;
    if k == 0 && top_p < 1.0 {
        all = total(logits, inverse, largest);
        first = largest + least((1.0 - top_p) / logits.len() as f64 * all);
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
    if top_p < 1.0 {
        let total = if k > 0 { sum(kept, largest) } else { all };
        kept.sort_unstable_by(by_score);
        until(top_p * total, kept, |(_, score)| exp(score - largest));
        kept.retain(|&(_, score)| score >= floor);
    }
    if sampling.typical_p < 1.0 {
        typical_p(f64::from(sampling.typical_p), largest, kept);
    }
}

/// `ln x`, a little lower than proven, for rounding.
fn least(x: f64) -> f64 {
    libm::log(x) - 1e-6
}

/// The sum of `e^(score - largest)`, in eight sums that the compiler takes together.
fn total(logits: &[f32], inverse: f64, largest: f64) -> f64 {
    let weight = |logit: f32| exp(f64::from(logit) * inverse - largest);
    let (chunks, rest) = logits.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for (sum, &logit) in sums.iter_mut().zip(chunk) {
            *sum += weight(logit);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&logit| weight(logit)).sum::<f64>()
}

fn sum(kept: &[Score], largest: f64) -> f64 {
    kept.iter().map(|&(_, score)| exp(score - largest)).sum()
}

/// The likelier first, the lower id among equals.
fn by_score(a: &Score, b: &Score) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn typical_p(p: f64, largest: f64, kept: &mut Vec<Score>) {
    let total = sum(kept, largest);
    let log_total = libm::log(total);
    // -ln p_v = ln total - (score - largest), and H is its mean. A token with no probability
    // adds nothing to the mean.
    let surprise = |score: f64| log_total - (score - largest);
    let weighted = kept.iter().filter(|(_, score)| score.is_finite());
    let entropy = weighted.map(|&(_, s)| exp(s - largest) * surprise(s)).sum::<f64>() / total;
    let distance = |score: f64| (surprise(score) - entropy).abs();
    kept.sort_unstable_by(|a, b| distance(a.1).total_cmp(&distance(b.1)).then(a.0.cmp(&b.0)));
    until(p * total, kept, |(_, score)| exp(score - largest));
}

/// Cuts `kept` after the first few whose weights reach `enough`.
fn until(enough: f64, kept: &mut Vec<Score>, weight: impl Fn(Score) -> f64) {
    let mut sum = 0.0;
    let needed = kept.iter().position(|&score| {
        sum += weight(score);
        sum >= enough
    });
    kept.truncate(needed.map_or(kept.len(), |last| last + 1));
}

#[cfg(test)]
mod tests {
    use super::exp;

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
}
