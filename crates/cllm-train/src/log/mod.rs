//! The logs of a run: JSON lines, and an event file for TensorBoard.
//!
//! Both are appended to, and lose what came after a checkpoint when the run goes on from
//! it: a log never has a step twice.

pub mod events;
pub mod record;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use record::{Evaluation, Step};

use crate::TrainError;

/// The JSON lines in the folder of a run.
pub const JSON_LINES: &str = "log.jsonl";

/// How far the logs had been written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    lines: u64,
    events: String,
    events_bytes: u64,
}

/// The logs, open for appending.
#[derive(Debug)]
pub struct Log {
    lines: (PathBuf, File),
    events: (PathBuf, File),
}

impl Log {
    /// Opens the logs in `folder`, new at time `now` (seconds since 1970), or as they were
    /// at `mark`.
    ///
    /// # Errors
    /// Files that cannot be opened or truncated.
    pub fn open(folder: &Path, mark: Option<&Mark>, now: f64) -> Result<Self, TrainError> {
        let fresh = format!("events.out.tfevents.{:010}.cllm", now as u64);
        let name = mark.map_or(fresh.as_str(), |mark| mark.events.as_str());
        let open = |name: &str, keep: u64| {
            let path = folder.join(name);
            let file = append(&path, keep).map_err(TrainError::io(&path))?;
            Ok::<_, TrainError>((path, file))
        };
        let lines = open(JSON_LINES, mark.map_or(0, |mark| mark.lines))?;
        let events = open(name, mark.map_or(0, |mark| mark.events_bytes))?;
        let mut log = Self { lines, events };
        if mark.is_none() {
            log.event(&events::header(now))?;
        }
        Ok(log)
    }

    /// Adds a record; numbers go to TensorBoard under `folder/`, without `prefix`.
    ///
    /// # Errors
    /// A full disk.
    pub fn add(
        &mut self,
        record: &impl Serialize,
        folder: &str,
        prefix: &str,
        step: u64,
        now: f64,
    ) -> Result<(), TrainError> {
        let value = serde_json::to_value(record)
            .map_err(|error| TrainError::BadInput(error.to_string()))?;
        let (path, file) = &mut self.lines;
        writeln!(file, "{value}").map_err(TrainError::io(path))?;
        let numbers = value.as_object().into_iter().flatten().filter_map(|(key, value)| {
            let key = key.strip_prefix(prefix).unwrap_or(key);
            match value {
                Value::Number(number) if key != "step" => {
                    Some((format!("{folder}/{key}"), number.as_f64()? as f32))
                }
                _ => None,
            }
        });
        let numbers: Vec<_> = numbers.collect();
        self.event(&events::scalars(now, step, &numbers))
    }

    /// Brings all to the disk and says how far that is.
    ///
    /// # Errors
    /// A full disk.
    pub fn mark(&mut self) -> Result<Mark, TrainError> {
        let length = |(path, file): &mut (PathBuf, File)| {
            file.sync_data().and_then(|()| file.stream_position()).map_err(TrainError::io(path))
        };
        let (lines, events_bytes) = (length(&mut self.lines)?, length(&mut self.events)?);
        let events = self.events.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Mark { lines, events, events_bytes })
    }

    fn event(&mut self, record: &[u8]) -> Result<(), TrainError> {
        let (path, file) = &mut self.events;
        file.write_all(record).map_err(TrainError::io(path))
    }
}

/// Opens a file and drops what is behind its first `keep` bytes.
fn append(path: &Path, keep: u64) -> std::io::Result<File> {
    let mut file =
        OpenOptions::new().create(true).truncate(false).write(true).read(true).open(path)?;
    // A file shorter than that was cut by somebody else: no hole of zeros.
    let keep = keep.min(file.metadata()?.len());
    file.set_len(keep)?;
    file.seek(SeekFrom::Start(keep))?;
    Ok(file)
}
