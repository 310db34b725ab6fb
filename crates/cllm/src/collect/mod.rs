//! From prompts to files of trajectories: what `cllm collect` is made of.
//!
//! [`record`](crate::record) reads prompts and the answers they come with, [`clean`] says which
//! answers are no use, [`check`] which are right, [`part`] writes and reads a file of trajectories,
//! [`manifest`] sums up a folder of them, [`whole`] writes files that are complete or not
//! there. The iteration itself is [`cllm_decode::collect`].

pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod manifest;
pub(crate) mod part;
pub(crate) mod rows;
pub(crate) mod whole;
