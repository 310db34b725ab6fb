//! `cllm prompts`: records as the model reads them.
//!
//! What a record becomes on its way into a model (schema, chat template, special tokens) is
//! where results of two programs part most often. Here it can be looked at, and its tokens
//! given to another program, or back to `bench decode`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::cli::{ModelArgs, ReadingArgs};
use crate::console;
use crate::record;
use crate::session::Session;

const HELP: &str = "\
Each line has `record` (from 0), `prompt_tokens` and `text`, what they stand for.

Example:
  cllm prompts --data spider/dev.jsonl --tables spider/tables.json --limit 3";

/// Print prompts as the model reads them: text with the template's marks, and tokens.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct PromptsArgs {
    /// Records as for `collect`: JSON lines or Parquet.
    #[arg(long, env = "CLLM_DATA", value_name = "FILE")]
    data: PathBuf,

    #[command(flatten)]
    reading: ReadingArgs,

    /// Use only the first N records.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    #[command(flatten)]
    model: ModelArgs,
}

/// Prints.
pub(crate) fn run(arguments: &PromptsArgs) -> anyhow::Result<()> {
    let PromptsArgs { data, reading, limit, model } = arguments;
    let limit = limit.map(NonZeroUsize::get);
    let (_, records) = record::read(data, limit, &reading.reading()?)?;
    let session = Session::load(model)?;
    let mut out = console::out();
    for (i, record) in records.iter().enumerate() {
        let at = || format!("{}: record {}", data.display(), i + 1);
        let tokens = session.encode(&record.prompt).with_context(at)?;
        let text = session.model.tokenizer.decode(&tokens, false);
        writeln!(out, "{}", json!({"record": i, "prompt_tokens": tokens, "text": text}))?;
    }
    Ok(())
}
