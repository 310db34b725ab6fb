//! `cllm train`: consistency training on trajectories.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use cllm_train::config::NoiseHistory;
use serde_json::Map;

use super::training::{self, Data, TrainingArgs, examples};
use crate::collect::{manifest, rows};
use crate::exit::bad_input;
use crate::session::Session;
use crate::source;

const HELP: &str = "\
The loss is consistency_weight * mean KL of noisy rows + ar_weight * mean cross-entropy of
answer tokens. Ctrl-C writes a checkpoint; --resume goes on from the last one and ends with
the same parameters.

Example:
  cllm train --trajectories trajectories --output-dir runs/cllm --eval-holdout 50";

/// Train a model on its trajectories to settle several tokens a forward.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct TrainArgs {
    /// Folder that `collect` wrote, with the same model.
    #[arg(long, env = "CLLM_TRAJECTORIES", value_name = "DIR")]
    trajectories: PathBuf,

    /// Adapter that `collect` ran with, if training starts from another: a student goes on
    /// with its teacher's trajectories [default: those of --adapter].
    #[arg(long, env = "CLLM_COLLECTED_WITH", value_name = "DIR")]
    collected_with: Vec<PathBuf>,

    /// Use only the first N prompts.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    #[command(flatten)]
    training: TrainingArgs,
}

/// Trains.
pub(crate) fn run(arguments: &TrainArgs) -> anyhow::Result<()> {
    let TrainArgs { trajectories, collected_with, limit, training } = arguments;
    let config = training.settings(Map::new())?;
    let limit = limit.map(NonZeroUsize::get);
    let mut identity = BTreeMap::from([
        ("objective".to_owned(), "consistency".to_owned()),
        ("data_sha256".to_owned(), folder_sha256(trajectories)?),
        ("limit".to_owned(), format!("{limit:?}")),
    ]);
    for folder in std::iter::once(trajectories).chain(&training.eval_data) {
        if config.noise_history == NoiseHistory::Noisy && rows::windows(&rows::settings(folder)?.0)
        {
            bad_input!(
                "{}: windows overlap: expected `noise_history: clean`, found `noisy`",
                folder.display()
            );
        }
    }
    let session = Session::load(&training.model)?;
    let collector = match &collected_with[..] {
        [] => &training.model.adapter,
        given => given,
    };
    let all = examples::trajectories(&session, collector, trajectories, limit)?;
    let (train, held_out) = match &training.eval_data {
        Some(folder) => {
            identity.insert("eval_data_sha256".into(), folder_sha256(folder)?);
            (all, examples::trajectories(&session, collector, folder, None)?)
        }
        None => training::hold_out(all, training.eval_holdout.unwrap_or(0), config.seed)?,
    };
    training::run(training, &config, session, Data { train, held_out, identity })
}

/// The hashes of a folder's parts.
fn folder_sha256(folder: &Path) -> anyhow::Result<String> {
    let parts = manifest::parts(folder)?;
    let hashes: Result<Vec<_>, _> = parts.iter().map(|part| source::sha256(part)).collect();
    Ok(hashes?.join(" "))
}
