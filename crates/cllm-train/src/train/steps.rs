//! Which forwards make up which optimizer step.
//!
//! `gradient_accumulation_steps` forwards make a step; the last step of an epoch takes what
//! is left, as transformers does.

use crate::config::Config;
use crate::data::{DataSet, Forward};

/// A place in the data: (epoch, forward in it).
#[derive(Debug)]
pub struct Steps<'a> {
    data: &'a DataSet,
    accumulate: usize,
    epoch: u64,
    forward: usize,
    /// The forwards of the epoch.
    forwards: Vec<Forward>,
}

impl<'a> Steps<'a> {
    /// Starts at a place. The data is not empty.
    #[must_use]
    pub fn at(data: &'a DataSet, accumulate: usize, epoch: u64, forward: usize) -> Self {
        Self { data, accumulate, epoch, forward, forwards: data.epoch(epoch) }
    }

    /// The forwards of the next step, each with its epoch.
    pub fn advance(&mut self) -> (u64, &[Forward]) {
        if self.forward >= self.forwards.len() {
            self.epoch += 1;
            self.forward = 0;
            self.forwards = self.data.epoch(self.epoch);
        }
        let from = self.forward;
        self.forward = (from + self.accumulate).min(self.forwards.len());
        (self.epoch, &self.forwards[from..self.forward])
    }

    /// (epoch, forwards done in it).
    #[must_use]
    pub fn place(&self) -> (u64, usize) {
        (self.epoch, self.forward)
    }

    /// Epochs done, with a fraction.
    #[must_use]
    pub fn epochs(&self) -> f64 {
        self.epoch as f64 + self.forward as f64 / self.forwards.len().max(1) as f64
    }
}

/// The optimizer steps of a run.
#[must_use]
pub fn total(data: &DataSet, config: &Config) -> u64 {
    if config.max_steps > 0 {
        return config.max_steps as u64;
    }
    let steps = |epoch: u64| {
        data.epoch(epoch).len().div_ceil(config.gradient_accumulation_steps.max(1)) as u64
    };
    let whole = config.num_train_epochs.floor();
    let rest = config.num_train_epochs - whole;
    let all: u64 = (0..whole as u64).map(steps).sum();
    let part = if rest > 0.0 { (steps(whole as u64) as f64 * rest).ceil() as u64 } else { 0 };
    (all + part).max(1)
}
