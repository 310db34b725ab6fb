//! The training loop.
//!
//! [`train()`] takes data, settings and a [`Learner`] through the optimizer steps of a run. A
//! [`Host`] brings the clock and hears what happens; [`watchdog`] says when a run has
//! collapsed.

mod run;
pub mod steps;
#[cfg(test)]
mod tests;
pub mod watchdog;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use crate::log::record::{Decoded, Evaluation, Step};
pub use run::train;

use crate::config::Config;
use crate::data::DataSet;
use crate::learner::Learner;

/// A run.
#[derive(Debug)]
pub struct Run<'a> {
    /// Its settings.
    pub config: &'a Config,
    /// Hashes of data and model: a run goes on only with the same.
    pub identity: &'a BTreeMap<String, String>,
    /// What is learnt.
    pub data: &'a DataSet,
    /// What is not, and tells how well.
    pub held_out: Option<&'a DataSet>,
    /// Where logs and checkpoints go.
    pub folder: &'a Path,
    /// Whether to go on from the last checkpoint there.
    pub resume: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished(Summary),
    /// It was asked to stop, and has a checkpoint.
    Interrupted(Summary),
    /// The watchdog stopped it.
    Collapsed {
        /// What it saw.
        what: String,
        /// The checkpoint to use: the best, or the last before.
        keep: Option<PathBuf>,
    },
}

/// Where a run got to.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// The last checkpoint.
    pub last: PathBuf,
    /// The best checkpoint and its figure, if there were evaluations.
    pub best: Option<(PathBuf, f64)>,
    /// The last loss.
    pub loss: Option<f64>,
    /// Rows of all forwards.
    pub num_input_tokens_seen: u64,
}

/// What the program does for a run.
pub trait Host {
    /// Seconds since 1970.
    fn seconds(&mut self) -> f64;

    /// A record was logged; `total` steps are to be done.
    fn step(&mut self, _record: &Step, _total: u64) {}

    /// Held-out examples were evaluated.
    fn evaluated(&mut self, _record: &Evaluation) {}

    /// Something people should know.
    fn note(&mut self, _line: &str) {}

    /// Answers held-out prompts with the parameters as they are.
    ///
    /// # Errors
    /// Why it could not, in words.
    fn measure(&mut self, _learner: &mut dyn Learner) -> Result<Option<Decoded>, String> {
        Ok(None)
    }

    /// Whether to stop after the step under way.
    fn stop(&mut self) -> bool {
        false
    }
}
