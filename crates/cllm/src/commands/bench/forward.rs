//! `cllm bench forward`: the time of one forward against its number of rows.

use std::num::NonZeroUsize;

use clap::Args;

use crate::cli::{JsonArgs, RunArgs};

const HELP: &str = "\
T(n)/T(1) is what n rows cost in units of one autoregressive step: Jacobi decoding with a
block of n pays off when it settles more tokens a forward than that.

Example:
  cllm bench forward --rows 1,2,4,8,16,32 --context 256";

/// Time one forward for several row counts.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ForwardBenchArgs {
    /// Row counts, separated by commas.
    #[arg(long, env = "CLLM_ROWS", value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "1,2,4,8,16,32")]
    rows: Vec<NonZeroUsize>,

    /// Tokens in the cache that every row attends to.
    #[arg(short, long, env = "CLLM_CONTEXT", value_name = "N", default_value = "256")]
    context: usize,

    /// Measurements per row count; the median is reported.
    #[arg(long, env = "CLLM_REPEAT", value_name = "N", default_value = "30")]
    repeat: NonZeroUsize,

    #[command(flatten)]
    json: JsonArgs,

    /// Model: as for `cllm generate`.
    #[arg(short, long, env = "CLLM_MODEL", value_name = "MODEL", default_value = "default")]
    model: String,

    #[command(flatten)]
    run: RunArgs,
}

/// Measures.
pub(crate) fn run(_arguments: ForwardBenchArgs) -> anyhow::Result<()> {
    Ok(())
}
