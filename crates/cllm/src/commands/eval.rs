//! `cllm eval`: how well a model answers, and what its answers cost.

mod gsm8k;
mod log;
mod record;
mod report;
mod run;
pub(crate) mod settling;
mod spider;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Subcommand};

use crate::cli::{JsonArgs, ModelArgs};
use crate::decoder::{DecoderSpec, DraftArgs};

/// Measure how well a model answers: GSM8K, Spider.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Grade-school mathematics: the number after `####`.
    Gsm8k(gsm8k::Gsm8kArgs),
    /// Questions about databases: the result of the query on SQLite.
    Spider(spider::SpiderArgs),
}

/// What every task takes.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The questions with their answers, JSON lines.
    #[arg(long, env = "CLLM_DATA", value_name = "FILE")]
    data: PathBuf,

    /// Decoder, as for `generate`.
    #[arg(short, long, env = "CLLM_DECODER", value_name = "DECODER", default_value = "ar")]
    decoder: DecoderSpec,

    /// Answer with `ar` too, compare the tokens and the time.
    #[arg(long, env = "CLLM_CHECK", value_parser = FalseyValueParser::new())]
    check: bool,

    /// Longest answer, in tokens.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "512")]
    max_new_tokens: NonZeroUsize,

    /// Use only the first N questions.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    /// Write a JSON line for each answer, as it comes. If the file is there, the answers in
    /// it are not asked for again.
    #[arg(long, env = "CLLM_OUT", value_name = "FILE")]
    out: Option<PathBuf>,

    /// Seed of the first guesses.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    draft: DraftArgs,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// Runs a task.
pub(crate) fn run(command: EvalCommand) -> anyhow::Result<()> {
    match command {
        EvalCommand::Gsm8k(arguments) => gsm8k::run(&arguments),
        EvalCommand::Spider(arguments) => spider::run(arguments),
    }
}
