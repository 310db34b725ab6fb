//! A folder of trajectories, read to train on.

use std::path::Path;

use anyhow::Context;
use cllm_decode::Token;
use parquet::file::reader::FileReader;
use serde::Deserialize;
use serde_json::Value;

use super::{manifest, part};
use crate::exit::bad_input;

/// A prompt with its answer and trajectories: a row of a part.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    /// Index of the prompt in the data it was collected from.
    pub(crate) record: u64,
    pub(crate) prompt_tokens: Vec<Token>,
    pub(crate) answer_tokens: Vec<Token>,
    pub(crate) reference: Option<String>,
    /// `[block][state][position]`, y* the last state.
    pub(crate) trajectories: Vec<Vec<Vec<Token>>>,
    /// Index in the answer of each block's first token; empty in version 1.
    #[serde(default)]
    pub(crate) starts: Vec<usize>,
    /// The same without y*; empty where there are none.
    pub(crate) augmented: Vec<Vec<Vec<Token>>>,
}

/// Settings that the whole folder was collected with.
pub(crate) fn settings(folder: &Path) -> anyhow::Result<(Value, bool)> {
    let manifest = manifest::Manifest::of(folder)?;
    let paths = manifest::parts(folder)?;
    let Some(first) = paths.first() else { bad_input!("{}: no parts", folder.display()) };
    Ok((part::info(first)?.0.settings, manifest.complete))
}

/// Whether the folder holds the states of sliding windows, not of blocks.
pub(crate) fn windows(settings: &Value) -> bool {
    settings.get("states").and_then(Value::as_str) == Some("window")
}

/// Reads all rows of a folder, in the order of their records.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for path in manifest::parts(folder)? {
        let (_, reader) = part::info(&path)?;
        let name = path.display().to_string();
        for row in reader.get_row_iter(None).with_context(|| name.clone())? {
            let value = row.with_context(|| name.clone())?.to_json_value();
            match serde_json::from_value::<Row>(value) {
                Ok(row) => rows.push(row),
                Err(error) => bad_input!("{name}: row {}: {error}", rows.len() + 1),
            }
        }
    }
    if rows.is_empty() {
        bad_input!("{}: no trajectories: every prompt was dropped", folder.display());
    }
    Ok(rows)
}
