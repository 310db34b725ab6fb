//! `cllm bench`: measurements, each ending with one JSON document.

pub(crate) mod accuracy;
pub(crate) mod decode;
pub(crate) mod forward;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cllm_model::Compute;

use crate::cli::{ModelArgs, RunArgs};
use crate::session::Session;
use crate::source::ModelRef;

/// Measure decoders, single forwards or the accuracy of formats.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare decoders on a file of prompts: speed, acceptance, exactness.
    Decode(Box<decode::DecodeBenchArgs>),
    /// Time one forward for several row counts.
    Forward(forward::ForwardBenchArgs),
    /// Compare the output of faster formats with that of f32.
    Accuracy(accuracy::AccuracyBenchArgs),
}

/// A model to be measured in several formats.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct FormatsArgs {
    /// Model: as for `cllm generate`.
    #[arg(short, long, env = "CLLM_MODEL", value_name = "MODEL", default_value = "default")]
    model: ModelRef,

    /// Folder of a LoRA adapter: as for `cllm generate`.
    #[arg(long, env = "CLLM_ADAPTER", value_name = "DIR")]
    adapter: Vec<PathBuf>,

    /// Threads that compute [default: one per usable core].
    #[arg(short, long, env = "CLLM_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Formats the weights are computed in, separated by commas: see `cllm generate`.
    // Each command has its own default.
    #[arg(long, env = "CLLM_COMPUTE", value_name = "LIST", value_delimiter = ',')]
    compute: Vec<Compute>,
}

impl FormatsArgs {
    /// The model in one format.
    fn load(&self, compute: Compute) -> anyhow::Result<Session> {
        let run = RunArgs { threads: self.threads, compute };
        let (model, adapter) = (self.model.clone(), self.adapter.clone());
        Session::load(&ModelArgs { model, adapter, context: None, run })
    }

    /// The model in each of the formats that were asked for.
    fn load_all(&self) -> anyhow::Result<Vec<Session>> {
        self.compute.iter().map(|&compute| self.load(compute)).collect()
    }
}

/// Runs a measurement.
pub(crate) fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Decode(arguments) => decode::run(*arguments),
        BenchCommand::Forward(arguments) => forward::run(arguments),
        BenchCommand::Accuracy(arguments) => accuracy::run(arguments),
    }
}
