//! The seam between the training loop and the numerics.
//!
//! The loop knows data, schedules, logs and checkpoints and nothing of tensors; a learner
//! knows tensors and nothing of files. Real learners compute on burn; tests of the loop use
//! one of a few lines.

use crate::packed::Packed;

/// Sums over the targets of one or more forwards.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Losses {
    /// Sum of weight times cross-entropy over rows scored against tokens.
    pub tokens: f64,
    /// Sum of weight times KL divergence over rows scored against rows.
    pub rows: f64,
}

impl Losses {
    /// What is minimised.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.tokens + self.rows
    }
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.rows += other.rows;
    }
}

/// A named tensor on the host, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its name: of a parameter as PEFT or Hugging Face call it, with a prefix where a
    /// checkpoint holds more than parameters (`exp_avg.`, `exp_avg_sq.`).
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: Vec<f32>,
}

/// AdamW's settings that stay the same for a whole run (Loshchilov and Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second.
    pub epsilon: f64,
    /// Decoupled weight decay, times the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// A network in training.
pub trait Learner {
    /// One forward and backward; gradients add up until [`Learner::step`].
    ///
    /// # Errors
    /// A batch the network cannot run, in words.
    fn accumulate(&mut self, packed: &Packed) -> Result<Losses, String>;

    /// One forward without gradients: no dropout.
    ///
    /// # Errors
    /// As [`Learner::accumulate`].
    fn evaluate(&mut self, packed: &Packed) -> Result<Losses, String>;

    /// Clips the gradients' norm to `max_norm` if given, updates the parameters with AdamW
    /// at learning rate `lr` and clears the gradients. Returns the norm before clipping. If
    /// the norm is not finite nothing is updated; gradients are cleared all the same.
    fn step(&mut self, lr: f64, max_norm: Option<f64>) -> f64;

    /// The trainable parameters.
    fn parameters(&self) -> Vec<NamedTensor>;

    /// Everything beside the parameters that a resumed run needs for the same next step:
    /// the optimizer's moments, and its counts.
    fn state(&self) -> Vec<NamedTensor>;

    /// Takes back what [`Learner::parameters`] and [`Learner::state`] gave.
    ///
    /// # Errors
    /// A tensor that is missing, unknown or of another shape.
    fn restore(&mut self, parameters: &[NamedTensor], state: &[NamedTensor]) -> Result<(), String>;
}
