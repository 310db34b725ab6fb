//! The noise, and the token that wins with it.
//!
//! Gumbel noise is `g = -ln e` with e exponential, and of a vocabulary nearly all tokens have no
//! chance. To know that without computing their noise, it is made of blocks of B = 64 tokens:
//! the *least* e of a block has 1/B of an exponential's length and stands at a uniform place, and
//! all others exceed it by exponentials of their own (the order statistics of exponentials;
//! they have no memory). That is the joint distribution of 64 independent ones, so a
//! draw is as good as ever, and one hash bounds a block:
//!
//! * no g is above `53 ln 2 + ln B`, about 41, as uniforms have 52 bits;
//! * with k leading ones in the block's hash u, `-ln u > 1 - u > 2^-(k+1)`, so all its g are below
//!   `(k + 1) ln 2 + ln B`: an instruction instead of logarithms, and only one block in 2^k
//!   gets further than k;
//! * then two logarithms give the block's largest g, and only a block whose largest score
//!   would win with it is looked into, where the same bound holds for each token's own hash.
//!
//! The most likely token is tried first, which makes the best high from the start. The bounds
//! are proofs: the winner is the same as if all noise had been computed. Cost: one pass of
//! maxima, a hash for each block, a few dozen logarithms. `libm` instead of the platform's
//! logarithm makes it the same token on every machine.

use std::f64::consts::LN_2;

use crate::counter;
use crate::lm::Token;

/// Tokens of a block.
pub(super) const BLOCK: usize = 64;
/// ln B.
const LN_BLOCK: f64 = 6.0 * LN_2;
/// No noise is larger; see the module.
const LARGEST: f64 = 53.0 * LN_2 + LN_BLOCK;
/// Blocks are hashed apart from tokens, whose ids have 32 bits.
const OF_BLOCK: u64 = 1 << 32;
/// What rounding may do to a bound.
const SLACK: f64 = 1e-9;

/// An exponential variable of the upper 52 bits of a hash, so that every uniform is exact and
/// none is 0 or 1.
fn exponential(word: u64) -> f64 {
    -libm::log(((word >> 12) as f64 + 0.5) / (1u64 << 52) as f64)
}

/// The noise of a position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    key: u64,
}

impl Noise {
    pub(super) fn new(seed: u64, position: usize) -> Self {
        Self { key: counter::key(counter::hash(seed, position as u64)) }
    }

    /// The hash of the block with this index: it says the least e, and in its lowest six bits
    /// where it stands.
    fn block(self, block: usize) -> u64 {
        counter::at(self.key, OF_BLOCK | block as u64)
    }

    /// The noise of a token in a block with hash `word`, whose least e is `least`.
    fn in_block(self, (word, least): (u64, f64), token: Token) -> f64 {
        if token as usize % BLOCK == word as usize % BLOCK {
            return -libm::log(least);
        }
        -libm::log(least + exponential(counter::at(self.key, u64::from(token))))
    }

    /// The noise of a token.
    fn of(self, token: Token) -> f64 {
        let word = self.block(token as usize / BLOCK);
        self.in_block((word, exponential(word) / BLOCK as f64), token)
    }

    /// Whether `score` and the largest noise of the block reach `best`, with the cheapest bounds
    /// first. Returns the block's hash, its least e and its largest noise.
    fn reaches(self, block: usize, score: f64, best: f64) -> Option<(u64, f64, f64)> {
        let out = |noise: f64| score + noise + SLACK < best;
        if out(LARGEST) {
            return None;
        }
        let word = self.block(block);
        if out(f64::from(word.leading_ones() + 1) * LN_2 + LN_BLOCK) {
            return None;
        }
        let least = exponential(word) / BLOCK as f64;
        let most = -libm::log(least);
        (!out(most)).then_some((word, least, most))
    }

    /// The same for a token of that block other than the one with the least e.
    fn token_reaches(self, token: Token, score: f64, best: f64) -> bool {
        let word = counter::at(self.key, u64::from(token));
        score + f64::from(word.leading_ones() + 1) * LN_2 + SLACK >= best
    }

    /// Of all tokens, the one whose score, `logit * inverse`, plus noise is largest; the lowest id
    /// among equals. `likely` is the one with the largest logit.
    pub(super) fn pick(self, logits: &[f32], inverse: f64, likely: Token) -> Token {
        let score = |logit: f32| f64::from(logit) * inverse;
        let mut best = Best::new(likely, score(logits[likely as usize]) + self.of(likely));
        for (block, logits) in logits.chunks(BLOCK).enumerate() {
            let reaches = self.reaches(block, score(largest(logits)), best.value);
            let Some((word, least, most)) = reaches else { continue };
            let first = word as usize % BLOCK;
            for (i, &logit) in logits.iter().enumerate() {
                let (token, score) = ((block * BLOCK + i) as Token, score(logit));
                if score + most + SLACK >= best.value
                    && (i == first || self.token_reaches(token, score, best.value))
                {
                    best.offer(token, score + self.in_block((word, least), token));
                }
            }
        }
        best.token
    }

    /// The same of these tokens and their scores; `likely` is the one with the largest score.
    pub(super) fn pick_of(self, likely: (Token, f64), scores: &[(Token, f64)]) -> Token {
        let mut best = Best::new(likely.0, likely.1 + self.of(likely.0));
        for &(token, score) in scores {
            let reaches = self.reaches(token as usize / BLOCK, score, best.value);
            if let Some((word, least, _)) = reaches {
                best.offer(token, score + self.in_block((word, least), token));
            }
        }
        best.token
    }
}

/// The largest of a block's logits, of which none is NaN.
pub(super) fn largest(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = logits.as_chunks::<16>();
    let mut most = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (most, &logit) in most.iter_mut().zip(chunk) {
            *most = larger(*most, logit);
        }
    }
    most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// The winner so far.
struct Best {
    token: Token,
    value: f64,
}

impl Best {
    fn new(token: Token, value: f64) -> Self {
        Self { token, value }
    }

    fn offer(&mut self, token: Token, value: f64) {
        if value > self.value || (value == self.value && token < self.token) {
            *self = Self { token, value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcuts_change_no_winner() {
        for position in 0..2_000 {
            let noise = Noise::new(3, position);
            let logits: Vec<f32> = (0..200)
                .map(|token| (counter::hash(position as u64, token) % 1_000) as f32 / 40.0)
                .collect();
            let likely = crate::lm::argmax(&logits).expect("finite");
            let scores: Vec<(Token, f64)> =
                (0..).zip(&logits).map(|(token, &logit)| (token, f64::from(logit) * 0.7)).collect();
            let all = scores
                .iter()
                .map(|&(token, score)| (token, score + noise.of(token)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .map(|(token, _)| token);
            assert_eq!(Some(noise.pick(&logits, 0.7, likely)), all);
            assert_eq!(Some(noise.pick_of(scores[likely as usize], &scores)), all);
        }
    }

    /// Noise is finite, and its maximum over blocks is within the bounds.
    #[test]
    fn bounds_hold() {
        for word in [0, 63, 1 << 63, u64::MAX, u64::MAX << 12, u64::MAX << 11, !(1 << 12)] {
            let most = LN_BLOCK - libm::log(exponential(word));
            assert!(most <= LARGEST + SLACK, "{word:x}: {most}");
            let bound = f64::from(word.leading_ones() + 1) * LN_2 + LN_BLOCK;
            assert!(most <= bound + SLACK, "{word:x}: {most}");
            let block = (word, exponential(word) / 64.0);
            assert!((0..64).all(|t| Noise { key: 1 }.in_block(block, t) <= most + SLACK));
        }
    }

    /// Mean and variance are those of Gumbel's distribution, and neighbours in a block are
    /// independent.
    #[test]
    fn noise_is_gumbel() {
        const N: usize = 40_000;
        let (mut sum, mut squares, mut products) = (0.0, 0.0, 0.0);
        for position in 0..N {
            let noise = Noise::new(1, position);
            let (a, b) = (noise.of(5), noise.of(6));
            sum += a;
            squares += a * a;
            products += (a - 0.577_216) * (b - 0.577_216);
        }
        let n = N as f64;
        let (mean, variance) = (sum / n, squares / n - (sum / n).powi(2));
        assert!((mean - 0.577_216).abs() < 0.03, "{mean}");
        assert!((variance - 1.644_934).abs() < 0.1, "{variance}");
        assert!((products / n).abs() < 0.05, "{}", products / n);
    }
}
