//! `cllm generate`: one prompt, one answer.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::cli::{DecodeArgs, JsonArgs, ModelArgs};

const EXAMPLES: &str = "Examples:
  cllm generate -p 'What is 17 * 23?'
  echo 'Write a haiku about rivers.' | cllm generate --decoder jacobi:16
  cllm generate -m model.gguf -p 'def add(a, b):' --raw --max-new-tokens 64
  cllm generate --messages chat.json --trace run.jsonl";

/// Answer one prompt and print the text as it settles.
///
/// The prompt comes from -p, from --messages, or from standard input. A model with a chat
/// template gets it as a user message, unless --raw is given. The answer goes to standard
/// output, figures to standard error.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// The prompt.
    #[arg(short, long, env = "CLLM_PROMPT", value_name = "TEXT")]
    prompt: Option<String>,

    /// A conversation: a JSON file with an array of {"role", "content"}; `-` is standard
    /// input.
    #[arg(long, env = "CLLM_MESSAGES", value_name = "FILE", conflicts_with = "prompt")]
    messages: Option<PathBuf>,

    /// A system message before the prompt.
    #[arg(long, env = "CLLM_SYSTEM", value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,

    /// Take the prompt as it is, without a chat template.
    #[arg(long, env = "CLLM_RAW", conflicts_with = "messages")]
    #[arg(value_parser = FalseyValueParser::new())]
    raw: bool,

    /// Print the answer when it is complete, not as it settles.
    #[arg(long, env = "CLLM_NO_STREAM", value_parser = FalseyValueParser::new())]
    no_stream: bool,

    /// Write every forward to this file, as JSON lines.
    #[arg(long, env = "CLLM_TRACE", value_name = "FILE")]
    trace: Option<PathBuf>,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    decode: DecodeArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// Answers the prompt.
pub(crate) fn run(_arguments: GenerateArgs) -> anyhow::Result<()> {
    Ok(())
}
