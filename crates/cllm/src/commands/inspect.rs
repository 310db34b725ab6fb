//! `cllm inspect`: what a model file holds and what it needs.

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::cli::{JsonArgs, ModelArgs};

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

/// Prints the report.
pub(crate) fn run(_arguments: InspectArgs) -> anyhow::Result<()> {
    Ok(())
}
