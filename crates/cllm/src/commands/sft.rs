//! `cllm sft`: fine-tune on prompts with answers.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use super::training::{self, Data, TrainingArgs, examples};
use crate::cli::ReadingArgs;
use crate::session::Session;
use crate::source;

const HELP: &str = "\
Only the tokens of answers are scored, their stop token included. Ctrl-C writes a
checkpoint; --resume goes on from the last one and ends with the same parameters.

Example:
  cllm sft --data gsm8k/train.jsonl --output-dir runs/teacher --eval-holdout 50";

/// Fine-tune a model on prompts with answers: the teacher.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SftArgs {
    /// Prompts with answers: JSON lines or Parquet, as `collect` reads them.
    #[arg(long, env = "CLLM_DATA", value_name = "FILE")]
    data: PathBuf,

    #[command(flatten)]
    reading: ReadingArgs,

    /// Use only the first N records.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    #[command(flatten)]
    training: TrainingArgs,
}

/// Fine-tunes.
pub(crate) fn run(arguments: &SftArgs) -> anyhow::Result<()> {
    let SftArgs { data: path, reading: ReadingArgs { tables, template }, limit, training } =
        arguments;
    let fixed = Map::from_iter([("consistency_weight".to_owned(), Value::from(0.0))]);
    let config = training.settings(fixed)?;
    let reading = arguments.reading.reading()?;
    let limit = limit.map(NonZeroUsize::get);
    let mut identity = BTreeMap::from([
        ("objective".to_owned(), "sft".to_owned()),
        ("data_sha256".to_owned(), source::sha256(path)?),
        ("limit".to_owned(), format!("{limit:?}")),
        ("template".to_owned(), template.clone().unwrap_or_default()),
    ]);
    if let Some(tables) = tables {
        identity.insert("tables_sha256".into(), source::sha256(tables)?);
    }
    let session = Session::load(&training.model)?;
    let all = examples::records(&session, path, limit, &reading)?;
    let (train, held_out) = match &training.eval_data {
        Some(path) => {
            identity.insert("eval_data_sha256".into(), source::sha256(path)?);
            (all, examples::records(&session, path, None, &reading)?)
        }
        None => training::hold_out(all, training.eval_holdout.unwrap_or(0), config.seed)?,
    };
    training::run(training, &config, session, Data { train, held_out, identity })
}
