//! What is logged, by the names that transformers' Trainer has.

use serde::{Deserialize, Serialize};

use crate::data::weigh::Coefficients;
use crate::learner::Losses;

/// Optimizer steps since the last record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: f64,
    /// What is minimised: the weighted sum of the two below.
    pub loss: f64,
    /// Mean cross-entropy of answer tokens, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ar_loss: Option<f64>,
    /// Mean KL divergence of noisy rows, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency_loss: Option<f64>,
    /// Of the last step.
    pub learning_rate: f64,
    /// Of the last step, before clipping.
    pub grad_norm: f64,
    /// Rows of all forwards so far.
    pub num_input_tokens_seen: u64,
    /// Rows a second, noisy ones and prompts included.
    pub tokens_per_second: Option<f64>,
}

/// Held-out examples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: f64,
    /// As in training.
    pub eval_loss: f64,
    /// As in training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_ar_loss: Option<f64>,
    /// As in training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_consistency_loss: Option<f64>,
    /// What decoding held-out prompts gave, if it was done.
    #[serde(flatten)]
    pub decoded: Option<Decoded>,
}

/// Answers to held-out prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Decoded {
    /// Tokens settled a forward, pooled over the answers that ended.
    #[serde(rename = "eval_mean_acceptance_length")]
    pub mean_acceptance_length: f64,
    /// Share of 4-grams that stood earlier in the same answer.
    #[serde(rename = "eval_repetition_rate")]
    pub repetition_rate: f64,
    /// Share of answers that ended with a stop token.
    #[serde(rename = "eval_eos_share")]
    pub eos_share: f64,
}

/// Sums over the steps since the last record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Steps.
    pub steps: u64,
    /// Of [`Losses::tokens`].
    pub tokens: f64,
    /// Of [`Losses::rows`].
    pub rows: f64,
}

impl Sums {
    /// Adds a step.
    pub fn add(&mut self, losses: Losses) {
        self.steps += 1;
        self.tokens += losses.tokens;
        self.rows += losses.rows;
    }

    /// Mean loss, mean cross-entropy and mean divergence.
    #[must_use]
    pub fn means(&self, of: Coefficients) -> (f64, Option<f64>, Option<f64>) {
        let steps = self.steps.max(1) as f64;
        let mean = |sum: f64, weight: f64| (weight > 0.0).then(|| sum / steps / weight);
        let total = (self.tokens + self.rows) / steps;
        (total, mean(self.tokens, of.ar), mean(self.rows, of.consistency))
    }
}
