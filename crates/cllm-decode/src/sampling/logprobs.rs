//! Log-probabilities to report: those of the model itself, before bias, penalties,
//! temperature and filters, as vLLM and OpenAI report them. They so do not depend on how
//! tokens are chosen.

use super::filter::exp;
use crate::lm::{Token, argmax};

/// How likely a token of the answer was, and what else was.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The token of the answer.
    pub token: Token,
    /// `ln p(token)`.
    pub logprob: f32,
    /// The most likely tokens and their log-probabilities, in descending order; the lower id
    /// first among equals. The token of the answer need not be among them.
    pub top: Vec<(Token, f32)>,
}

impl Logprobs {
    /// Of `token` and the `top` likeliest, from a row's logits, shape `(vocab,)`.
    pub(super) fn new(logits: &[f32], token: Token, top: usize) -> Self {
        let largest = f64::from(argmax(logits).map_or(0.0, |t| logits[t as usize]));
        let total: f64 = logits.iter().map(|&l| exp(f64::from(l) - largest)).sum();
        let shift = largest + libm::log(total);
        let logprob = |token: Token| (f64::from(logits[token as usize]) - shift) as f32;
        let mut best: Vec<Token> = Vec::with_capacity(top + 1);
        for (v, &logit) in logits.iter().enumerate() {
            if best.len() == top && best.last().is_none_or(|&t| logits[t as usize] >= logit) {
                continue;
            }
            let place = best.partition_point(|&t| logits[t as usize] >= logit);
            best.insert(place, v as Token);
            best.truncate(top);
        }
        let top = best.into_iter().map(|t| (t, logprob(t))).collect();
        Self { token, logprob: logprob(token), top }
    }
}
