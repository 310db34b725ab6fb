//! `cllm bench`: measurements, each ending with one JSON document.

pub(crate) mod accuracy;
pub(crate) mod decode;
pub(crate) mod forward;

use clap::Subcommand;

/// Measure decoders, single forwards or the accuracy of formats.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare decoders on a file of prompts: speed, acceptance, exactness.
    Decode(decode::DecodeBenchArgs),
    /// Time one forward for several row counts.
    Forward(forward::ForwardBenchArgs),
    /// Compare the output of faster formats with that of f32.
    Accuracy(accuracy::AccuracyBenchArgs),
}

/// Runs a measurement.
pub(crate) fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Decode(arguments) => decode::run(arguments),
        BenchCommand::Forward(arguments) => forward::run(arguments),
        BenchCommand::Accuracy(arguments) => accuracy::run(arguments),
    }
}
