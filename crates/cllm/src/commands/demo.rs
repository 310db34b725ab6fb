//! `cllm demo`: Jacobi beside autoregressive decoding on a handful of prompts.

use std::num::NonZeroUsize;

use clap::Args;

use crate::cli::ModelArgs;
use crate::decoder::DecoderSpec;

/// Fetch the default model and compare Jacobi with autoregressive decoding.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The decoder that is compared with `ar`.
    #[arg(short, long, env = "CLLM_DECODER", value_name = "DECODER", default_value = "jacobi:16")]
    decoder: DecoderSpec,

    /// Longest answer, in tokens.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "96")]
    max_new_tokens: NonZeroUsize,

    #[command(flatten)]
    model: ModelArgs,
}

/// Runs the demonstration.
pub(crate) fn run(_arguments: DemoArgs) -> anyhow::Result<()> {
    Ok(())
}
