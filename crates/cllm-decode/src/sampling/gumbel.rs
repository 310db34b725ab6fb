//! The noise, and the token that wins with it.
//!
//! `g = -ln(-ln u)` with u uniform on (0, 1), made of the upper 52 bits of a hash, so that
//! every u is exact and none is 0 or 1. It costs two logarithms, and of a vocabulary nearly
//! all tokens have no chance. Two bounds leave a handful:
//!
//! * g is below `53 ln 2`, about 36.7: a score further than that below the best is out
//!   without a hash;
//! * with k leading ones in the hash, `1 - u > 2^-(k+1)`, and `-ln u > 1 - u`, so
//!   `g < (k + 1) ln 2`: one instruction instead of two logarithms. Half of all tokens have
//!   `g < 0.7` by it, and only one in 2^k has a bound above `(k + 1) ln 2`.
//!
//! The most likely token is tried first, which makes the best high from the start. Both bounds are
//! proofs: the winner is the same as if all noise had been computed. `libm` instead of the
//! platform's logarithm makes it the same token on every machine.

use std::f64::consts::LN_2;

use crate::counter;
use crate::lm::Token;

/// No noise is larger; see the module.
const LARGEST: f64 = 53.0 * LN_2;

/// What rounding may do to a bound: scores have 52 bits and are below a million.
const SLACK: f64 = 1e-9;

/// The noise of a hash.
fn noise(word: u64) -> f64 {
    let uniform = ((word >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    -libm::log(-libm::log(uniform))
}

/// The token whose score plus noise is largest, the lowest id among equals. `likely` is the
/// one with the largest score, `key` a [`counter::key`] for the position.
pub(super) fn pick(
    key: u64,
    likely: (Token, f64),
    scores: impl Iterator<Item = (Token, f64)>,
) -> Token {
    let noisy = |(token, score): (Token, f64)| score + noise(counter::at(key, u64::from(token)));
    let (mut winner, mut best) = (likely.0, noisy(likely));
    for (token, score) in scores {
        if score + LARGEST + SLACK < best {
            continue;
        }
        let word = counter::at(key, u64::from(token));
        let bound = f64::from(word.leading_ones() + 1) * LN_2;
        if score + bound + SLACK < best {
            continue;
        }
        let value = score + noise(word);
        if value > best || (value == best && token < winner) {
            (winner, best) = (token, value);
        }
    }
    winner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_at_the_edges() {
        for word in [0, 1 << 11, 1 << 63, u64::MAX, u64::MAX << 12, u64::MAX << 11, !(1 << 12)] {
            let g = noise(word);
            assert!(g.is_finite() && g <= LARGEST + SLACK, "{word:x}: {g}");
            assert!(g <= f64::from(word.leading_ones() + 1) * LN_2 + SLACK, "{word:x}: {g}");
        }
        for counter in 0..100_000 {
            let word = counter::hash(1, counter);
            assert!(noise(word) <= f64::from(word.leading_ones() + 1) * LN_2);
        }
    }

    #[test]
    fn shortcuts_change_no_winner() {
        for position in 0..2_000 {
            let key = counter::key(position);
            let score = |token: u64| (counter::hash(position, token) % 1_000) as f64 / 40.0;
            let scores = || (0..100u64).map(|token| (token as Token, score(token)));
            let likely = scores().max_by(|a, b| a.1.total_cmp(&b.1)).expect("a hundred");
            let all = scores()
                .map(|(t, s)| (t, s + noise(counter::at(key, u64::from(t)))))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            assert_eq!(Some(pick(key, likely, scores())), all.map(|(token, _)| token));
        }
    }
}
