//! `cllm doctor`: what this machine offers and what is missing.

use std::num::NonZeroUsize;

use clap::Args;

use crate::cli::JsonArgs;

/// Check this machine: CPU, memory, cache folder, tools.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Threads to measure with [default: one per usable core].
    #[arg(short, long, env = "CLLM_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,

    #[command(flatten)]
    json: JsonArgs,
}

/// Prints the report.
pub(crate) fn run(_arguments: DoctorArgs) -> anyhow::Result<()> {
    Ok(())
}
