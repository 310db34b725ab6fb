//! Log-probabilities of settled tokens.

use crate::lm::Token;

/// A token of the answer with its log-probability under the model itself: before bias,
/// penalties, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token: Token,
    /// ln p of it.
    pub logprob: f32,
    /// The most likely tokens with theirs, most likely first; the lower token among equals.
    pub top: Vec<(Token, f32)>,
}

impl TokenLogprobs {
    /// Of `token` and the `top` most likely, from a row's logits of shape `(vocab,)`.
    pub(crate) fn of(logits: &[f32], token: Token, top: usize) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|&z| f64::from(z - max).exp()).sum();
        let ln_total = total.ln();
        let ln_p = |token: Token| (f64::from(logits[token as usize] - max) - ln_total) as f32;
        let order = |a: &Token, b: &Token| {
            let z = |token: &Token| logits[*token as usize];
            z(b).total_cmp(&z(a)).then(a.cmp(b))
        };
        let mut best: Vec<Token> = Vec::with_capacity(top + 1);
        for candidate in 0..logits.len() as Token {
            let at = best.partition_point(|other| order(other, &candidate).is_lt());
            if at < top {
                best.insert(at, candidate);
                best.truncate(top);
            }
        }
        let top = best.into_iter().map(|token| (token, ln_p(token))).collect();
        Self { token, logprob: ln_p(token), top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_logs_of_softmax() {
        let logits = [1.0f32, 3.0, 2.0, 3.0];
        let found = TokenLogprobs::of(&logits, 2, 3);
        let total: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        let expected = |z: f64| (z - total.ln()) as f32;
        assert_eq!(found.token, 2);
        assert!((found.logprob - expected(2.0)).abs() < 1e-6);
        let tokens: Vec<Token> = found.top.iter().map(|t| t.0).collect();
        assert_eq!(tokens, [1, 3, 2]);
        assert!((found.top[0].1 - expected(3.0)).abs() < 1e-6);
        let all: f64 =
            TokenLogprobs::of(&logits, 0, 4).top.iter().map(|t| f64::from(t.1).exp()).sum();
        assert!((all - 1.0).abs() < 1e-6);
        assert!(TokenLogprobs::of(&logits, 0, 0).top.is_empty());
    }
}
