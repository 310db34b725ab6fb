//! The steps for one row, and the memory they re-use from row to row.

use super::penalty::History;
use super::{Logprobs, Sampling, filter, gumbel};
use crate::counter;
use crate::lm::{Token, argmax};

/// Keeps the noise apart from other uses of the same seed, such as first guesses.
const NOISE: u64 = 0x6775_6d62_656c;

/// Draws the tokens of one answer.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    /// Of the seed and the choice.
    seed: u64,
    history: History,
    /// The row's logits with bias and penalties, if there are any.
    logits: Vec<f32>,
    /// Tokens that passed the filters.
    kept: Vec<filter::Score>,
}

impl Sampler {
    /// A sampler for an answer to a prompt of `prompt_len` tokens. The settings are taken to be
    /// [valid](Sampling::validate).
    pub fn new(sampling: Sampling, prompt_len: usize) -> Self {
        let seed = counter::hash(counter::hash(sampling.seed, NOISE), sampling.choice);
        let history = History::new(prompt_len);
        Self { sampling, seed, history, logits: Vec::new(), kept: Vec::new() }
    }

    /// The settings.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The token after `text` and `more`, whose logits are `logits`, shape `(vocab,)`.
    ///
    /// `text` is settled text, or a beginning of it: from call to call it is a longer or
    /// shorter piece of the same. `more` may be anything.
    pub fn draw(
        &mut self,
        logits: &[f32],
        text: &[Token],
        more: impl Iterator<Item = Token> + Clone,
    ) -> Token {
        let Self { sampling, history, kept, .. } = self;
        let position = text.len() + more.clone().count();
        let logits = if sampling.changes_logits() {
            self.logits.clear();
            self.logits.extend_from_slice(logits);
            for &(token, bias) in &sampling.logit_bias {
                // A draft model may have fewer tokens than the model the settings are for.
                if let Some(logit) = self.logits.get_mut(token as usize) {
                    *logit += bias;
                }
            }
            if sampling.has_penalties() {
                history.see(text, more);
                history.penalise(sampling, &mut self.logits);
                history.truncate(text.len());
            }
            &self.logits[..]
        } else {
            logits
        };
        // A model reports logits without a largest as an error, so there is one.
        let likely = argmax(logits).unwrap_or_default();
        if sampling.temperature == 0.0 {
            return likely;
        }
        // One division instead of one for each token.
        let inverse = 1.0 / f64::from(sampling.temperature);
        let noise = gumbel::Noise::new(self.seed, position);
        if !filter::any(sampling) {
            return noise.pick(logits, inverse, likely);
        }
        let largest = logits[likely as usize];
        filter::apply(sampling, (logits, inverse), largest, kept);
        let largest = f64::from(largest) * inverse;
        // Typical-p may have cut the most likely token.
        let likeliest = kept.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
        noise.pick_of(likeliest.unwrap_or((likely, largest)), kept)
    }

    /// What to report of `token`, if log-probabilities were asked for.
    pub fn logprobs(&self, logits: &[f32], token: Token) -> Option<Logprobs> {
        self.sampling.logprobs.map(|top| Logprobs::new(logits, token, top))
    }
}
