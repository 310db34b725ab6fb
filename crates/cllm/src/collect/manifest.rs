//! A folder of trajectories: its parts, summed up.
//!
//! `manifest.json` is made from what the parts say of themselves, so it can be made again
//! at any time, by any shard, and the shard that ends last leaves the whole.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use parquet::file::reader::FileReader;
use serde::Serialize;
use serde_json::Value;

use super::part::{self, Counts};
use super::whole;
use crate::console;
use crate::exit::bad_input;

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Manifest {
    format: &'static str,
    version: u32,
    /// Whether no part is missing.
    pub(crate) complete: bool,
    settings: Value,
    /// Names of the parts, in order.
    parts: Vec<String>,
    counts: Counts,
    mean_convergence_iterations: Option<f64>,
    /// Tokens per forward of a block-by-block decoder, pooled.
    mean_acceptance_length: Option<f64>,
}

/// The parts in a folder, in order.
pub(crate) fn parts(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => bad_input!("{}: {error}", folder.display()),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("part-") && name.ends_with(".parquet") {
            parts.push(path);
        }
    }
    parts.sort();
    Ok(parts)
}

/// Says how the settings of a part differ from the expected ones, if they do.
pub(crate) fn difference(found: &Value, expected: &Value) -> Option<String> {
    let (found, expected) = (found.as_object()?, expected.as_object()?);
    let keys = expected.keys().chain(found.keys());
    // How the model was named on the command line is for people; its hash stands beside it.
    let keys = keys.filter(|key| *key != "model");
    let mut differing = keys.filter(|key| found.get(*key) != expected.get(*key));
    let show = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
    differing.next().map(|key| {
        format!("`{key}`: expected {}, found {}", show(expected.get(key)), show(found.get(key)))
    })
}

impl Manifest {
    /// Sums up the parts of a folder, which must all have the same settings.
    pub(crate) fn of(folder: &Path) -> anyhow::Result<Self> {
        let paths = parts(folder)?;
        let Some(first) = paths.first() else {
            bad_input!("{}: no trajectories: expected part-*.parquet", folder.display());
        };
        let settings = part::info(first)?.0.settings;
        let mut counts = Counts::default();
        let mut names = Vec::with_capacity(paths.len());
        for path in &paths {
            let info = part::info(path)?.0;
            if let Some(what) = difference(&info.settings, &settings) {
                bad_input!("{}: made with other settings: {what}", path.display());
            }
            counts.add(&info.counts);
            names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        let ratio = |a: usize, b: usize| (b > 0).then(|| a as f64 / b as f64);
        Ok(Self {
            format: part::FORMAT,
            version: part::VERSION,
            complete: settings.get("parts").and_then(Value::as_u64) == Some(names.len() as u64),
            parts: names,
            mean_convergence_iterations: ratio(counts.iterations, counts.blocks),
            mean_acceptance_length: ratio(counts.answer_tokens, counts.forwards),
            settings,
            counts,
        })
    }

    /// Writes `manifest.json`, again if another shard added a part meanwhile.
    pub(crate) fn write(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("manifest.json");
        // Shards may write it at the same time.
        let tag = std::process::id().to_string();
        loop {
            let manifest = Self::of(folder)?;
            whole::write(&path, &tag, |file| {
                serde_json::to_writer_pretty(&mut *file, &manifest)?;
                Ok(file.write_all(b"\n")?)
            })?;
            if parts(folder)?.len() == manifest.parts.len() {
                return Ok(manifest);
            }
        }
    }
}

/// `cllm inspect DIR`: the summary and the first example.
pub(crate) fn inspect(folder: &Path, json: bool) -> anyhow::Result<()> {
    let manifest = Manifest::of(folder)?;
    let mut out = console::out();
    if json {
        writeln!(out, "{}", serde_json::to_string(&manifest)?)?;
        return Ok(());
    }
    writeln!(out, "{}", serde_json::to_string_pretty(&manifest)?)?;
    for path in parts(folder)? {
        let (_, reader) = part::info(&path)?;
        if let Some(row) = reader.get_row_iter(None)?.next() {
            let row = row?.to_json_value();
            let first = row.pointer("/trajectories/0").cloned().unwrap_or_default();
            writeln!(out, "record {}: {}", row["record"], row["answer"])?;
            writeln!(out, "its first block, state by state:")?;
            for state in first.as_array().into_iter().flatten() {
                writeln!(out, "  {state}")?;
            }
            break;
        }
    }
    Ok(())
}
