//! Tasks with answers that can be checked: how a question becomes a prompt, what in an
//! answer counts, and whether it is right.
//!
//! Prompts are made here and nowhere else, so that a model is trained, measured and used
//! on the same text.

pub(crate) mod gsm8k;
pub(crate) mod spider;
