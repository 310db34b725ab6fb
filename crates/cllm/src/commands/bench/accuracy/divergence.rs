//! How far one distribution over the vocabulary is from another.
//!
//! With reference logits a and logits b, p = softmax(a) and q = softmax(b),
//!
//! ```text
//! KL(p || q) = sum_i p_i (log p_i - log q_i)
//! ```
//!
//! in nats (Kullback and Leibler 1951): zero if and only if both are the same, and large
//! where q finds unlikely what p says. Computed in f64, each softmax shifted by its maximum.

use cllm_decode::Token;

/// `log sum_i exp(x_i)`.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

/// `KL(softmax(reference) || softmax(logits))`; the two have one length.
pub(super) fn kl(reference: &[f32], logits: &[f32]) -> f64 {
    let (log_p, log_q) = (log_sum_exp(reference), log_sum_exp(logits));
    let term = |(&a, &b): (&f32, &f32)| {
        let (log_p, log_q) = (f64::from(a) - log_p, f64::from(b) - log_q);
        log_p.exp() * (log_p - log_q)
    };
    // Rounding can leave a tiny negative sum where both are the same.
    reference.iter().zip(logits).map(term).sum::<f64>().max(0.0)
}

/// What one position said, against the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Position {
    /// `KL(reference || this)`.
    pub(super) kl: f64,
    /// Whether both have the same argmax.
    pub(super) agrees: bool,
    /// `-log q(next token of the text)`.
    pub(super) loss: f64,
}

impl Position {
    /// Compares logits and argmax of a row; `next` is what the text says there.
    pub(super) fn new(reference: (&[f32], Token), found: (&[f32], Token), next: Token) -> Self {
        Self {
            kl: kl(reference.0, found.0),
            agrees: reference.1 == found.1,
            loss: log_sum_exp(found.0) - f64::from(found.0[next as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_distributions() {
        let (p, q) = ([0.5f64, 0.25, 0.25], [0.25f64, 0.5, 0.25]);
        let logits = |p: [f64; 3], shift: f64| p.map(|p| (p.ln() + shift) as f32);
        let expected = 0.5 * 2.0f64.ln() - 0.25 * 2.0f64.ln();
        assert!((kl(&logits(p, 3.0), &logits(q, -40.0)) - expected).abs() < 1e-5);
        // 0 log 0 is 0, and logits beyond what exp can hold are no problem.
        assert!((kl(&[1000.0, 0.0], &[1000.0, 1000.0]) - 2.0f64.ln()).abs() < 1e-9);
        assert_eq!(kl(&[5.0, -1e4, 2.0], &[5.0, -1e4, 2.0]), 0.0);
    }

    #[test]
    fn a_position_has_the_texts_loss() {
        let (reference, found) = ([0.0, 1.0, 0.0], [2.0f32.ln(), 0.0, 0.0]);
        let position = Position::new((&reference, 1), (&found, 0), 2);
        assert!(!position.agrees && position.kl > 0.0);
        assert!((position.loss - 4.0f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn never_negative_and_blind_to_shifts() {
        // Logits spread over -20 to 20 by two strides that never meet.
        let spread = |i: usize, stride: usize| (i * stride % 401) as f32 / 10.0 - 20.0;
        for len in 1..50 {
            let a: Vec<_> = (0..len).map(|i| spread(i + len, 97)).collect();
            let b: Vec<_> = (0..len).map(|i| spread(i + len, 131)).collect();
            let shifted: Vec<_> = b.iter().map(|b| b + 7.5).collect();
            let divergence = kl(&a, &b);
            assert!(divergence >= 0.0 && (len == 1 || divergence > 0.0), "{len}: {divergence}");
            assert!((kl(&a, &shifted) - divergence).abs() < 1e-3 * (1.0 + divergence), "{len}");
        }
    }
}
