//! Which state of a block the model is shown.
//!
//! * Uniform over the states before y* (Kou et al. 2024): one drawn for each block.
//! * Progressive (Jacobi Forcing, arXiv 2512.14681): block j takes the state whose share of
//!   unsettled tokens `(n - first wrong) / n` is nearest `linspace(0, 1, w)[j mod w]`; of two
//!   as near, the noisier. y* counts with 0. Our departure: copy c and epoch e shift j by
//!   c + e, so that a block does not show the same state every time.

use cllm_decode::counter;

use super::example::Block;

/// How states are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseSchedule {
    /// Uniform over the states before y*.
    Uniform,
    /// By share of unsettled tokens, `window` blocks from 0 to 1.
    Progressive {
        /// w, at least 1.
        window: usize,
    },
}

/// A state of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Its index; k, the number of states before y*, is y* itself.
    pub state: usize,
    /// Whether the augmented copy is shown.
    pub augmented: bool,
}

/// Where a draw takes place: with the seed it decides what is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Epoch.
    pub epoch: u64,
    /// Index of the example in its data.
    pub example: usize,
    /// Which noisy copy.
    pub copy: usize,
    /// Index of the block in its answer.
    pub block: usize,
}

impl NoiseSchedule {
    /// Draws a state; with probability `augmented_share` its augmented copy.
    #[must_use]
    pub fn draw(self, seed: u64, augmented_share: f64, place: Place, block: &Block) -> Drawn {
        let k = block.unfinished();
        let key = counter::hash(counter::hash(seed, place.epoch), place.example as u64);
        let counter = (place.copy as u64) << 33 | (place.block as u64) << 1;
        let state = match self {
            Self::Uniform if k == 0 => 0,
            Self::Uniform => counter::index(key, counter, k),
            Self::Progressive { window } => {
                let at = (place.block + place.copy + place.epoch as usize) % window.max(1);
                nearest(block, linspace(at, window))
            }
        };
        // 53 bits: every value is a multiple of 2^-53 below 1.
        let coin = (counter::hash(key, counter | 1) >> 11) as f64 / (1u64 << 53) as f64;
        Drawn { state, augmented: coin < augmented_share }
    }
}

/// `linspace(0, 1, w)[at]`.
fn linspace(at: usize, w: usize) -> f64 {
    if w <= 1 { 0.0 } else { at as f64 / (w - 1) as f64 }
}

/// The state with the share of unsettled tokens nearest `ratio`.
fn nearest(block: &Block, ratio: f64) -> usize {
    let n = block.len() as f64;
    let distance = |j: usize| ((n - block.first_wrong(j) as f64) / n - ratio).abs();
    // `min_by` keeps the first of equals: the noisier.
    (0..=block.unfinished()).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
}
