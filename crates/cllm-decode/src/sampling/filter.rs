//! Which tokens may be drawn: top-k, top-p, min-p, typical-p.

use super::Sampling;
use crate::lm::Token;

/// A token with its logit over the temperature.
pub(super) type Candidate = (Token, f32);

/// Leaves in `out` what the filters of `sampling` leave of the logits `z`, shape `(vocab,)`;
/// returns false, and leaves nothing, where no filter is on and all may be drawn. Among
/// equals the lower token goes first. At least one token stays.
pub(super) fn filter(sampling: &Sampling, z: &[f32], out: &mut Vec<Candidate>) -> bool {
    out.clear();
    let Sampling { top_k, top_p, min_p, typical_p, .. } = *sampling;
    let top_k = if top_k == 0 { z.len() } else { top_k };
    if top_k >= z.len() && top_p >= 1.0 && min_p <= 0.0 && typical_p >= 1.0 {
        return false;
    }
    if top_k < z.len() {
        most_likely(z, top_k, out);
    } else if top_p < 1.0 {
        // A token outside has less probability than all outside may have together,
        // divided among all there are: so many such tokens never reach 1 - top_p.
        let max = max(z.iter().copied());
        let total: f64 = z.iter().map(|&z| weight(z, max)).sum();
        let least = (1.0 - f64::from(top_p)) * total / z.len() as f64;
        out.extend(tokens(z).filter(|&(_, z)| weight(z, max) >= least));
        out.sort_unstable_by(by_likelihood);
        nucleus(out, f64::from(top_p) * total, max);
    } else {
        out.extend(tokens(z));
    }
    if top_k < z.len() && top_p < 1.0 {
        let max = out[0].1;
        let total: f64 = out.iter().map(|&(_, z)| weight(z, max)).sum();
        nucleus(out, f64::from(top_p) * total, max);
    }
    if min_p > 0.0 {
        let least = max(out.iter().map(|&(_, z)| z)) + min_p.ln();
        out.retain(|&(_, z)| z >= least);
    }
    if typical_p < 1.0 {
        typical(out, f64::from(typical_p));
    }
    true
}

fn tokens(z: &[f32]) -> impl Iterator<Item = Candidate> + '_ {
    z.iter().enumerate().map(|(token, &z)| (token as Token, z))
}

fn max(z: impl Iterator<Item = f32>) -> f32 {
    z.fold(f32::NEG_INFINITY, f32::max)
}

/// Probability, not normalised.
fn weight(z: f32, max: f32) -> f64 {
    f64::from((z - max).exp())
}

fn by_likelihood(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The k most likely tokens, sorted. One pass: what cannot be among them is turned away by
/// the least of the k best so far.
fn most_likely(z: &[f32], k: usize, out: &mut Vec<Candidate>) {
    let mut least = f32::NEG_INFINITY;
    let full = (2 * k).max(256);
    for (token, z) in tokens(z) {
        if z < least {
            continue;
        }
        out.push((token, z));
        if out.len() == full.max(k + 1) {
            out.select_nth_unstable_by(k - 1, by_likelihood);
            out.truncate(k);
            least = out[k - 1].1;
        }
    }
    out.sort_unstable_by(by_likelihood);
    out.truncate(k);
}

/// Of candidates in order, the fewest that weigh `enough` together.
fn nucleus(out: &mut Vec<Candidate>, enough: f64, max: f32) {
    let mut sum = 0.0;
    let inside = out.iter().take_while(|&&(_, z)| {
        let before = sum;
        sum += weight(z, max);
        before < enough
    });
    let inside = inside.count().max(1);
    out.truncate(inside);
}

/// Those whose information -ln p is nearest the entropy, the fewest that have `enough`
/// probability together.
fn typical(out: &mut Vec<Candidate>, enough: f64) {
    let max = max(out.iter().map(|&(_, z)| z));
    let total: f64 = out.iter().map(|&(_, z)| weight(z, max)).sum();
    let ln_p = |z: f32| f64::from(z - max) - total.ln();
    let entropy: f64 = -out
        .iter()
        .map(|&(_, z)| weight(z, max) / total * if z == f32::NEG_INFINITY { 0.0 } else { ln_p(z) })
        .sum::<f64>();
    let distance = |z: f32| (-ln_p(z) - entropy).abs();
    out.sort_unstable_by(|a, b| distance(a.1).total_cmp(&distance(b.1)).then(a.0.cmp(&b.0)));
    let mut sum = 0.0;
    let inside = out.iter().take_while(|&&(_, z)| {
        let before = sum;
        sum += weight(z, max) / total;
        before < enough
    });
    let inside = inside.count().max(1);
    out.truncate(inside);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definitions, on sorted probabilities.
    fn by_definition(s: &Sampling, z: &[f32]) -> Vec<Token> {
        let mut left: Vec<Candidate> = tokens(z).collect();
        left.sort_by(by_likelihood);
        let probabilities = |left: &[Candidate]| {
            let total: f64 = left.iter().map(|c| weight(c.1, left[0].1)).sum();
            left.iter().map(|c| weight(c.1, left[0].1) / total).collect::<Vec<_>>()
        };
        if s.top_k > 0 {
            left.truncate(s.top_k);
        }
        if s.top_p < 1.0 {
            let p = probabilities(&left);
            let stays = |i: usize| p[..i].iter().sum::<f64>() < f64::from(s.top_p);
            left = (0..left.len()).filter(|&i| stays(i)).map(|i| left[i]).collect();
        }
        left.retain(|c| c.1 >= left_max(z) + s.min_p.ln());
        if s.typical_p < 1.0 {
            let p = probabilities(&left);
            let entropy: f64 = -p.iter().map(|p| p * p.ln()).sum::<f64>();
            let mut order: Vec<usize> = (0..left.len()).collect();
            let distance = |i: usize| (-p[i].ln() - entropy).abs();
            order.sort_by(|&a, &b| {
                distance(a).total_cmp(&distance(b)).then(left[a].0.cmp(&left[b].0))
            });
            let stays =
                |i: usize| order[..i].iter().map(|&j| p[j]).sum::<f64>() < f64::from(s.typical_p);
            left = (0..left.len()).filter(|&i| stays(i)).map(|i| left[order[i]]).collect();
        }
        let mut tokens: Vec<Token> = left.iter().map(|c| c.0).collect();
        tokens.sort_unstable();
        tokens
    }

    fn left_max(z: &[f32]) -> f32 {
        max(z.iter().copied())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn what_stays_is_what_the_definitions_say(
            // Far enough apart that no rounding of a sum decides.
            z in prop::collection::vec((-40..40i32).prop_map(|z| z as f32 / 4.0), 1..400),
            top_k in prop_oneof![Just(0usize), 1..30usize, Just(1000)],
            top_p in prop_oneof![Just(1.0f32), 0.05..0.999f32],
            min_p in prop_oneof![Just(0.0f32), 0.001..1.0f32],
            typical_p in prop_oneof![3 => Just(1.0f32), 1 => 0.05..0.999f32],
        ) {
            let sampling = Sampling { top_k, top_p, min_p, typical_p, ..Sampling::default() };
            let mut out = vec![(7, 7.0)];
            let filtered = filter(&sampling, &z, &mut out);
            let mut found: Vec<Token> = out.iter().map(|c| c.0).collect();
            found.sort_unstable();
            if filtered {
                prop_assert!(!found.is_empty());
                prop_assert_eq!(found, by_definition(&sampling, &z));
            } else {
                prop_assert!(found.is_empty());
            }
        }
    }
}
