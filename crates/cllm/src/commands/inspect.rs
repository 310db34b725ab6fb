//! `cllm inspect`: what a model file holds and what it needs.
//!
//! Only headers are read, so it is quick for a file of any size. The memory is computed
//! from shapes, as a load would need it.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use clap::builder::FalseyValueParser;
use cllm_kernels::{Format, KvStore};
use cllm_model::config::RopeScaling;
use cllm_model::{Checkpoint, Model, ModelConfig};
use serde::Serialize;

use crate::cli::{JsonArgs, ModelArgs};
use crate::console::{self, BOLD};
use crate::progress::Meter;
use crate::source::{self, SourceOptions};
use crate::table::{Table, bytes, count};

/// Show what a model file holds and what it needs.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// List every tensor.
    #[arg(long, env = "CLLM_TENSORS", value_parser = FalseyValueParser::new())]
    tensors: bool,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    model: ModelArgs,
}
pub(crate) fn run(_arguments: InspectArgs) -> anyhow::Result<()> {
    Ok(())
}
