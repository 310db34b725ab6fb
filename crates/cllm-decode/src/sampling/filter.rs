//! Top-k, top-p, min-p and typical-p: which tokens may be drawn.
//!
//! Cost, V the vocabulary: top-k and min-p are one pass and no exponential; k tokens are found by
//! selection, not sorting. Top-p without top-k needs all V exponentials, of an own polynomial
//! that the compiler vectorises, and then sorts only tokens with at least `(1 - p) / V` of
//! the probability: all that are less likely sum to less than `1 - p`, so they are the tail
//! that top-p cuts. Typical-p sorts what the others left.
//!
//! Equals are ordered by id, so the set depends on nothing but the row.

use super::Sampling;
use crate::lm::Token;

/// A token and its logit over the temperature.
pub(super) type Score = (Token, f64);

/// `e^x` for x up to 0, with a relative error of 1e-11: the same bits on every machine, as it
/// has only sums and products.
pub(super) fn exp(x: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to an integer, which so stands in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let x = x.max(-700.0);
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let r = x - (shifted - ROUND) * std::f64::consts::LN_2;
    let mut sum = 1.0 / 362_880.0;
    for inverse in [40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = sum * r + 1.0 / inverse;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(1023);
    sum * f64::from_bits(exponent << 52)
}

/// Whether any filter is on.
pub(super) fn any(sampling: &Sampling) -> bool {
    sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0 || sampling.typical_p < 1.0
}

/// Fills `kept` with those of `scores` that may be drawn, in no particular order. `largest` is
/// the largest score.
pub(super) fn apply(
    sampling: &Sampling,
    largest: f64,
    scores: impl Iterator<Item = Score>,
    kept: &mut Vec<Score>,
) {
    let floor = if sampling.min_p > 0.0 {
        largest + libm::log(f64::from(sampling.min_p))
    } else {
        f64::NEG_INFINITY
    };
    // Min-p only looks at the most likely token, so it may come first unless that would
    // change what top-p sums up.
    let first = if sampling.top_p < 1.0 { f64::NEG_INFINITY } else { floor };
    kept.clear();
    kept.extend(scores.filter(|&(_, score)| score >= first));
    if sampling.top_k > 0 && sampling.top_k < kept.len() {
        kept.select_nth_unstable_by(sampling.top_k - 1, by_score);
        kept.truncate(sampling.top_k);
    }
    if sampling.top_p < 1.0 {
        top_p(f64::from(sampling.top_p), largest, kept);
        kept.retain(|&(_, score)| score >= floor);
    }
    if sampling.typical_p < 1.0 {
        typical_p(f64::from(sampling.typical_p), largest, kept);
    }
}

/// The likelier first, the lower id among equals.
fn by_score(a: &Score, b: &Score) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn top_p(p: f64, largest: f64, kept: &mut Vec<Score>) {
    let total: f64 = kept.iter().map(|&(_, score)| exp(score - largest)).sum();
    let least = largest + libm::log((1.0 - p) / kept.len() as f64 * total);
    // A little lower than proven, for rounding.
    kept.retain(|&(_, score)| score >= least - 1e-6);
    kept.sort_unstable_by(by_score);
    until(p * total, kept, |(_, score)| exp(score - largest));
}

fn typical_p(p: f64, largest: f64, kept: &mut Vec<Score>) {
    let total: f64 = kept.iter().map(|&(_, score)| exp(score - largest)).sum();
    // -ln p_v = ln total - (score - largest), and H is its mean. A token with no probability
    // adds nothing to the mean.
    let surprise = |score: f64| libm::log(total) - (score - largest);
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
