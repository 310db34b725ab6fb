//! A file of trajectories: Parquet, one row a prompt, version 2.
//!
//! | column | type | is |
//! |---|---|---|
//! | `record` | u64 | index of the prompt in the data, from 0 |
//! | `prompt_tokens` | list of u32 | the prompt |
//! | `answer_tokens` | list of u32 | the answer, its stop token last |
//! | `answer` | string | the answer as text |
//! | `reference` | string, may be null | the data's own answer |
//! | `trajectories` | list of list of list of u32 | `[block][state][position]`, y* last |
//! | `starts` | list of u32 | index in the answer of each block's first token |
//! | `augmented` | the same | see `Trajectory::augmented`; empty unless asked for |
//!
//! Version 1 has no `starts`: its blocks follow one another.
//!
//! The file's metadata has under `cllm` a JSON document, [`Info`]: the settings it was made
//! with and its counts. A file is put in place when it is complete and depends on nothing
//! but the settings and its records, so a second run writes the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, UInt32Builder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use cllm_decode::collect::Collected;
use cllm_decode::trajectory::Measures;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::whole;
use crate::exit::bad_input;

/// What the metadata says it is.
pub(crate) const FORMAT: &str = "cllm-trajectories";
/// Of columns and metadata.
pub(crate) const VERSION: u32 = 2;
const KEY: &str = "cllm";

/// What a part says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) format: String,
    pub(crate) version: u32,
    /// What decides its content.
    pub(crate) settings: Value,
    pub(crate) counts: Counts,
}

/// Counts of a part or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Prompts read.
    pub(crate) prompts: usize,
    /// Prompts kept.
    pub(crate) kept: usize,
    /// The others, by reason.
    pub(crate) dropped: BTreeMap<String, usize>,
    /// Tokens of the answers kept.
    pub(crate) answer_tokens: usize,
    pub(crate) blocks: usize,
    /// Sum of the convergence iterations.
    pub(crate) iterations: usize,
    /// Forwards a block-by-block decoder would take.
    pub(crate) forwards: usize,
    pub(crate) fast_forwarded: usize,
    pub(crate) stationary: usize,
}

impl Counts {
    /// Adds others.
    pub(crate) fn add(&mut self, other: &Self) {
        self.prompts += other.prompts;
        self.kept += other.kept;
        self.answer_tokens += other.answer_tokens;
        self.blocks += other.blocks;
        self.iterations += other.iterations;
        self.forwards += other.forwards;
        self.fast_forwarded += other.fast_forwarded;
        self.stationary += other.stationary;
        for (reason, count) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += count;
        }
    }
}

/// A prompt that was kept.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) collected: Collected,
    pub(crate) answer: String,
    pub(crate) reference: Option<String>,
}

/// The name of part `index` in a folder.
pub(crate) fn path(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("part-{index:05}.parquet"))
}

/// Writes a part; `augment` is the seed of augmented states, if they are wanted.
pub(crate) fn write(
    path: &Path,
    settings: &Value,
    rows: &[Row],
    dropped: BTreeMap<String, usize>,
    augment: Option<u64>,
) -> anyhow::Result<Counts> {
    let mut measures = Measures::default();
    rows.iter().for_each(|row| measures.add(&row.collected.measures));
    let counts = Counts {
        prompts: rows.len() + dropped.values().sum::<usize>(),
        kept: rows.len(),
        dropped,
        answer_tokens: measures.tokens,
        blocks: measures.blocks,
        iterations: measures.iterations,
        forwards: measures.forwards,
        fast_forwarded: measures.fast_forwarded,
        stationary: measures.stationary,
    };
    let info = Info {
        format: FORMAT.into(),
        version: VERSION,
        settings: settings.clone(),
        counts: counts.clone(),
    };
    let metadata = KeyValue::new(KEY.to_owned(), serde_json::to_string(&info)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("cllm".into())
        .set_key_value_metadata(Some(vec![metadata]))
        .build();

    let batch = batch(rows, augment)?;
    // One shard makes a part, so nobody else writes it now.
    whole::write(path, "part", |file| {
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(())
    })?;
    Ok(counts)
}

type States = ListBuilder<ListBuilder<ListBuilder<UInt32Builder>>>;

fn batch(rows: &[Row], augment: Option<u64>) -> anyhow::Result<RecordBatch> {
    let mut record = UInt64Builder::new();
    let mut prompt = ListBuilder::new(UInt32Builder::new());
    let mut answer_tokens = ListBuilder::new(UInt32Builder::new());
    let mut starts = ListBuilder::new(UInt32Builder::new());
    let (mut answer, mut reference) = (StringBuilder::new(), StringBuilder::new());
    let states = || ListBuilder::new(ListBuilder::new(ListBuilder::new(UInt32Builder::new())));
    let (mut trajectories, mut augmented): (States, States) = (states(), states());
    for Row { collected, answer: text, reference: own } in rows {
        record.append_value(collected.id);
        prompt.append_value(collected.prompt.iter().map(|&token| Some(token)));
        answer_tokens.append_value(collected.answer.iter().map(|&token| Some(token)));
        answer.append_value(text);
        reference.append_option(own.as_deref());
        for trajectory in &collected.trajectories {
            append(trajectories.values(), trajectory.states());
            if let Some(seed) = augment {
                // Another coin for every prompt.
                let seed = seed ^ collected.id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                append(augmented.values(), trajectory.augmented(seed));
            }
        }
        let places = collected.trajectories.iter().map(|t| u32::try_from(t.start()).ok());
        starts.append_value(places);
        trajectories.append(true);
        augmented.append(true);
    }
    let columns: [(&str, ArrayRef, bool); 8] = [
        ("record", Arc::new(record.finish()), false),
        ("prompt_tokens", Arc::new(prompt.finish()), false),
        ("answer_tokens", Arc::new(answer_tokens.finish()), false),
        ("answer", Arc::new(answer.finish()), false),
        ("reference", Arc::new(reference.finish()), true),
        ("starts", Arc::new(starts.finish()), false),
        ("trajectories", Arc::new(trajectories.finish()), false),
        ("augmented", Arc::new(augmented.finish()), false),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// One block: its states, each a list of tokens.
fn append(
    block: &mut ListBuilder<ListBuilder<UInt32Builder>>,
    states: impl Iterator<Item = Vec<u32>>,
) {
    for state in states {
        block.values().append_value(state.into_iter().map(Some));
    }
    block.append(true);
}

/// Opens a part and reads what it says of itself.
pub(crate) fn info(path: &Path) -> anyhow::Result<(Info, SerializedFileReader<File>)> {
    let name = path.display();
    let reader = match File::open(path) {
        Ok(file) => SerializedFileReader::new(file),
        Err(error) => bad_input!("{name}: {error}"),
    };
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => bad_input!("{name}: not readable Parquet: {error}"),
    };
    let entries = reader.metadata().file_metadata().key_value_metadata();
    let entry = entries.into_iter().flatten().find(|entry| entry.key == KEY);
    let Some(text) = entry.and_then(|entry| entry.value.as_deref()) else {
        bad_input!("{name}: not a file of trajectories: no metadata `{KEY}`");
    };
    let info: Info = match serde_json::from_str(text) {
        Ok(info) => info,
        Err(error) => bad_input!("{name}: metadata `{KEY}`: {error}"),
    };
    if info.format != FORMAT || !(1..=VERSION).contains(&info.version) {
        bad_input!(
            "{name}: expected {FORMAT} version {VERSION}, found {} version {}",
            info.format,
            info.version
        );
    }
    Ok((info, reader))
}
