//! Checkpoints: all that a run needs to go on as if it had never stopped.
//!
//! A folder `checkpoint-STEP` has
//!
//! | file | is |
//! |---|---|
//! | `parameters.safetensors` | the trained parameters, f32 |
//! | `optimizer.safetensors` | the optimizer's state, f32 |
//! | `trainer_state.json` | [`State`] |
//!
//! It is written under another name and renamed when all of it is on the disk, so a
//! checkpoint is complete or not there. Schedule and draws depend on the step, the seed and
//! the position in the data alone; those are the state of the random numbers.

pub mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::Config;
use crate::learner::Learner;
use crate::log::Mark;
use crate::log::record::Sums;

const PREFIX: &str = "checkpoint-";
/// Checkpoints under way; what a killed run leaves is removed by the next.
const UNDER_WAY: &str = ".under-way-";
const PARAMETERS: &str = "parameters.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "trainer_state.json";
const VERSION: u32 = 1;

/// The best held-out figure so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The step after which it was measured.
    pub step: u64,
    /// The figure.
    pub value: f64,
}

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Of the format.
    pub version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// The epoch under way.
    pub epoch: u64,
    /// Forwards of it that are done.
    pub forward: usize,
    /// Rows of all forwards.
    pub num_input_tokens_seen: u64,
    /// Losses of the last steps, for the watchdog.
    pub recent_losses: Vec<f64>,
    /// Steps not logged yet.
    pub sums: Sums,
    /// The best evaluation.
    pub best: Option<Best>,
    /// How far the logs are written.
    pub log: Mark,
    /// The settings.
    pub config: Config,
    /// Hashes of data and model.
    pub identity: BTreeMap<String, String>,
}

impl State {
    /// The version that is written.
    pub(crate) const VERSION: u32 = VERSION;
}

/// The folder of a checkpoint.
#[must_use]
pub fn path(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{step}"))
}

/// The checkpoints of a run, by step.
///
/// # Errors
/// A folder that cannot be read; one that is not there has none.
pub fn list(folder: &Path) -> Result<BTreeMap<u64, PathBuf>, TrainError> {
    let mut found = BTreeMap::new();
    for (name, path) in entries(folder)? {
        if let Some(step) = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok()) {
            found.insert(step, path);
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, TrainError> {
    let failed = || TrainError::io(folder);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(found)
}

/// Removes what a killed run left behind.
///
/// # Errors
/// A folder that cannot be read or removed.
pub fn clean(folder: &Path) -> Result<(), TrainError> {
    for (name, path) in entries(folder)? {
        if name.starts_with(UNDER_WAY) {
            fs::remove_dir_all(&path).map_err(TrainError::io(&path))?;
        }
    }
    Ok(())
}

/// Writes a checkpoint and returns its folder.
///
/// # Errors
/// A full disk; no other checkpoint suffers.
pub fn save(folder: &Path, state: &State, learner: &dyn Learner) -> Result<PathBuf, TrainError> {
    let under_way = tempfile::Builder::new()
        .prefix(UNDER_WAY)
        .tempdir_in(folder)
        .map_err(TrainError::io(folder))?;
    let done = path(folder, state.step);
    fill(under_way.path(), state, learner).map_err(|error| match error {
        // The file that shall be: the temporary folder will be gone when this is read.
        TrainError::Io { path, source } => TrainError::Io {
            path: path.strip_prefix(under_way.path()).map_or(done.clone(), |p| done.join(p)),
            source,
        },
        other => other,
    })?;
    let failed = || TrainError::io(&done);
    if done.exists() {
        fs::remove_dir_all(&done).map_err(failed())?;
    }
    fs::rename(under_way.path(), &done).map_err(failed())?;
    // Nothing is left under the old name for the guard to remove.
    let _ = under_way.keep();
    // The rename itself has to reach the disk too, where folders can be synced.
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(done)
}

/// Writes the files of a checkpoint.
fn fill(folder: &Path, state: &State, learner: &dyn Learner) -> Result<(), TrainError> {
    tensors::write(&folder.join(PARAMETERS), &learner.parameters())?;
    tensors::write(&folder.join(OPTIMIZER), &learner.state())?;
    let json = serde_json::to_vec_pretty(state)
        .map_err(|error| TrainError::BadInput(error.to_string()))?;
    write(&folder.join(STATE), &json)
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let file = fs::File::create(path);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(TrainError::io(path))
}

/// Reads where a checkpoint is.
///
/// # Errors
/// A file that is missing or of another form.
pub fn state(checkpoint: &Path) -> Result<State, TrainError> {
    let path = checkpoint.join(STATE);
    let bytes = fs::read(&path).map_err(TrainError::io(&path))?;
    let bad = |what: String| TrainError::BadInput(format!("{}: {what}", path.display()));
    let state: State = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if state.version != VERSION {
        return Err(bad(format!("expected version {VERSION}, found {}", state.version)));
    }
    Ok(state)
}

/// Puts a learner where a checkpoint is.
///
/// # Errors
/// A file that is missing or broken, or tensors of another network.
pub fn restore(checkpoint: &Path, learner: &mut dyn Learner) -> Result<(), TrainError> {
    let parameters = tensors::read(&checkpoint.join(PARAMETERS))?;
    let optimizer = tensors::read(&checkpoint.join(OPTIMIZER))?;
    learner
        .restore(&parameters, &optimizer)
        .map_err(|what| TrainError::BadInput(format!("{}: {what}", checkpoint.display())))
}

/// The last complete checkpoint of a run.
///
/// # Errors
/// A folder that cannot be read.
pub fn last(folder: &Path) -> Result<Option<(PathBuf, State)>, TrainError> {
    for path in list(folder)?.into_values().rev() {
        let complete = [PARAMETERS, OPTIMIZER].iter().all(|name| path.join(name).is_file());
        if let (true, Ok(state)) = (complete, state(&path)) {
            return Ok(Some((path, state)));
        }
    }
    Ok(None)
}

/// Removes the oldest checkpoints until `limit` are left (0: all stay), never the best.
///
/// # Errors
/// A folder that cannot be read or removed.
pub fn rotate(folder: &Path, limit: usize, best: Option<u64>) -> Result<(), TrainError> {
    let all = list(folder)?;
    let surplus = if limit == 0 { 0 } else { all.len().saturating_sub(limit) };
    for (step, path) in all.into_iter().take(surplus) {
        if Some(step) != best {
            fs::remove_dir_all(&path).map_err(TrainError::io(&path))?;
        }
    }
    Ok(())
}
