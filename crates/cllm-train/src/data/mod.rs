//! From examples to the forwards of a training step.
//!
//! | file | is |
//! |---|---|
//! | [`example`] | a prompt with its answer and, for consistency, its trajectories |
//! | [`noise`] | which state of a block is shown |
//! | [`pack`] | the rows of examples, and what each is scored against |
//! | [`bundle`] | examples whose prompts begin alike |
//! | [`batches`] | the forwards of an epoch, in their seeded order |
//! | [`weigh`] | what a scored row weighs in its optimizer step |
//!
//! SFT is the case without trajectories: only the answer's tokens are scored. Everything
//! drawn at random depends on (seed, epoch, example) alone, so a run that is resumed in the
//! middle of an epoch draws the same.

pub mod batches;
pub mod bundle;
pub mod example;
pub mod noise;
pub mod pack;
#[cfg(test)]
mod tests;
pub mod weigh;

pub use batches::{BatchSize, Batches, DataSet, Forward};
pub use example::{Block, Example};
pub use noise::NoiseSchedule;
pub use pack::{ArAnswers, Consistency, History, Packing};
