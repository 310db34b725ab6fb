//! Training consistency models (Kou et al. 2024, arXiv 2403.00835).
//!
//! [`data`] makes [`packed`] forwards of examples, a [`learner`] computes on them, and
//! [`train`] is the loop around both, with its [`schedule`], [`config`], [`log`] and
//! [`checkpoint`]s. No clock, terminal or argument is read here: the program brings them.

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod fake;
pub mod learner;
pub mod log;
pub mod model;
pub mod packed;
pub mod schedule;
pub mod train;

pub use error::TrainError;
