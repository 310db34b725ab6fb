//! From records and trajectories to examples.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cllm_train::data::Example;
use serde_json::Value;

use crate::answer_tokens::answer_tokens;
use crate::collect::rows;
use crate::console::note;
use crate::exit::{BadInput, bad_input};
use crate::record::{self, Reading};
use crate::session::Session;
use crate::source;

/// Prompts with the data's answers.
pub(crate) fn records(
    session: &Session,
    path: &Path,
    limit: Option<usize>,
    reading: &Reading,
) -> anyhow::Result<Vec<Example>> {
    let (_, records) = record::read(path, limit, reading)?;
    let example = |(i, record): (usize, &record::Record)| {
        let Some(answer) = record.answer.as_deref().filter(|answer| !answer.is_empty()) else {
            bad_input!("{}: record {}: no answer", path.display(), i + 1);
        };
        let at = || format!("{}: record {}", path.display(), i + 1);
        let prompt = session.encode(&record.prompt).with_context(at)?;
        let answer = answer_tokens(session, &record.prompt, answer).with_context(at)?;
        Example::new(prompt, answer).map_err(|what| BadInput(format!("{}: {what}", at())).into())
    };
    records.iter().enumerate().map(example).collect()
}

/// Trajectories, checked to be of this model with the adapters of `collector`.
pub(crate) fn trajectories(
    session: &Session,
    collector: &[PathBuf],
    folder: &Path,
    limit: Option<usize>,
) -> anyhow::Result<Vec<Example>> {
    let name = folder.display();
    let (settings, complete) = rows::settings(folder)?;
    let expected = [
        ("tokenizer_sha256", source::tokenizer_sha256(&session.model.tokenizer)),
        ("model_sha256", source::adapted_sha256(&session.model.path, collector)?),
    ];
    for (key, expected) in expected {
        let found = settings.get(key).and_then(Value::as_str).unwrap_or("nothing");
        if found != expected {
            let what = key.trim_end_matches("_sha256");
            bad_input!(
                "{name}: trajectories of another {what}: expected `{key}` {expected} of {}, \
                 found {found}",
                session.name
            );
        }
    }
    if !complete {
        note(format_args!("{name}: not complete: training on the parts that are there"));
    }
    let windows = rows::windows(&settings);
    let mut rows = rows::read(folder)?;
    rows.sort_by_key(|row| row.record);
    rows.truncate(limit.unwrap_or(usize::MAX));
    let example = |row: rows::Row| {
        let bad = |what: String| BadInput(format!("{name}: record {}: {what}", row.record));
        let stop = row.answer_tokens.last().copied();
        let example = Example::new(row.prompt_tokens, row.answer_tokens)
            .and_then(|example| match windows {
                true => example.with_windows(&row.starts, &row.trajectories),
                false => example.with_trajectories(&row.trajectories, &row.augmented),
            })
            .map_err(bad)?;
        let Some(reference) = row.reference else { return Ok(example) };
        // The teacher's answer ends as the data's would: with the stop token.
        let mut tokens = session.model.tokenizer.encode(&reference, false)?;
        tokens.extend(stop);
        Ok(example.with_reference(tokens))
    };
    rows.into_iter().map(example).collect()
}
