//! Gumbel noise by hash, and the token that wins with it.

use crate::counter;
use crate::lm::Token;

/// What the noise of a position is hashed from.
pub(super) fn key(seed: u64, choice: u64, position: usize) -> u64 {
    counter::hash(counter::hash(seed, choice), position as u64)
}

/// The token of `tokens`, pairs of token and z, with the highest z plus noise; the lowest
/// token among equals. `None` if there is no token.
///
/// With u uniform, g = -ln(-ln u), and as -ln u >= 1 - u, g is at most -ln(1 - u). With l
/// leading zeros 1 - u is at least 2^-(l+1). So most tokens are known to lose by a count of
/// zeros; which of them, depends on who leads so far, the result does not.
pub(super) fn winner(key: u64, tokens: impl Iterator<Item = (Token, f32)>) -> Option<Token> {
    let mut best: Option<(Token, f64)> = None;
    for (token, z) in tokens {
        if z == f32::NEG_INFINITY {
            continue;
        }
        let (z, word) = (f64::from(z), !counter::hash(key, u64::from(token)));
        if let Some((_, score)) = best {
            let zeros = word.leading_zeros().min(52) + 1;
            if z + f64::from(zeros) * std::f64::consts::LN_2 < score {
                continue;
            }
        }
        let score = z + noise(word);
        let wins =
            best.is_none_or(|(leader, lead)| score > lead || (score == lead && token < leader));
        if wins {
            best = Some((token, score));
        }
    }
    best.map(|(token, _)| token)
}

/// Standard Gumbel noise from 64 random bits: 1 - u is the top 52 of them and a half, in
/// units of 2^-52, never 0 nor 1.
fn noise(word: u64) -> f64 {
    let v = ((word >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    // ln u = ln(1 - v), exact for small v too.
    -(-(-v).ln_1p()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_cut_changes_no_winner() {
        for position in 0..2_000 {
            let key = key(7, 1, position);
            let z = |token: Token| (counter::hash(3, u64::from(token)) % 1000) as f32 / 50.0;
            let tokens = || (0..300).map(|token| (token, z(token)));
            let slow = tokens().max_by(|a, b| {
                let score =
                    |(t, z): (Token, f32)| f64::from(z) + noise(!counter::hash(key, u64::from(t)));
                score(*a).total_cmp(&score(*b)).then(b.0.cmp(&a.0))
            });
            assert_eq!(winner(key, tokens()), slow.map(|(token, _)| token));
            let reversed = (0..300).rev().map(|token| (token, z(token)));
            assert_eq!(winner(key, reversed), winner(key, tokens()), "order does not matter");
        }
        assert_eq!(winner(0, std::iter::empty()), None);
        assert_eq!(winner(0, [(4, f32::NEG_INFINITY)].into_iter()), None);
    }

    #[test]
    fn noise_is_finite_at_both_ends_and_has_gumbels_mean() {
        assert!(noise(0) > 36.0 && noise(0).is_finite());
        assert!(noise(u64::MAX) < -3.5 && noise(u64::MAX).is_finite());
        let n = 100_000;
        let mean = (0..n).map(|i| noise(counter::hash(11, i))).sum::<f64>() / n as f64;
        // Euler's constant; the deviation of the mean is 1.28 / sqrt(n) = 0.004.
        assert!((mean - 0.577_215_664).abs() < 0.02, "{mean}");
    }
}
