//! What can go wrong in training.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the training loop.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting, a checkpoint or data that cannot be used.
    #[error("{0}")]
    BadInput(String),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network could not run a forward.
    #[error("step {step}: {what}")]
    Learner {
        /// The optimizer step.
        step: u64,
        /// What it said.
        what: String,
    },
}

impl TrainError {
    /// Adds a path to an error of the system.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_path_buf(), source }
    }
}
