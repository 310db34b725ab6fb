//! A Hugging Face folder.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde_json::{Map, Value, json};

use super::describe;
use crate::adapter::FloatType;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::tokenizer::read_json;
use crate::weights::Checkpoint;

/// Where `transformers` starts another file.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// What is taken over from a folder besides its configuration and weights.
const COMPANIONS: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// Writes `config.json`, the tokenizer and the weights of a checkpoint, its adapters merged
/// in. Above `shard_bytes` of weights there are several files and an index.
///
/// # Errors
/// What the new files cannot express, and what the operating system says; then there is no
/// folder. One that was there is replaced only at the end.
pub fn write_folder(
    checkpoint: &Checkpoint,
    out: &Path,
    kind: FloatType,
    shard_bytes: u64,
) -> Result<(), ModelError> {
    let config = checkpoint.config()?;
    crate::files::replace_folder(out, |staged| {
        match checkpoint.dir() {
            Some(dir) => copy_companions(dir, staged, kind)?,
            None => describe::write(checkpoint, &config, staged, kind)?,
        }
        write_weights(checkpoint, &config, staged, kind, shard_bytes)
    })
}

fn copy_companions(from: &Path, to: &Path, kind: FloatType) -> Result<(), ModelError> {
    let copy = |from: &Path, to: &Path| {
        let io = |source| ModelError::Io { path: from.into(), source };
        fs::copy(from, to).map(drop).map_err(io)
    };
    for name in COMPANIONS {
        if from.join(name).is_file() {
            copy(&from.join(name), &to.join(name))?;
        }
    }
    let extra = Path::new("additional_chat_templates");
    if from.join(extra).is_dir() {
        let io = |source| ModelError::Io { path: from.join(extra), source };
        fs::create_dir(to.join(extra)).map_err(io)?;
        for entry in fs::read_dir(from.join(extra)).map_err(io)? {
            let entry = entry.map_err(io)?;
            copy(&entry.path(), &to.join(extra).join(entry.file_name()))?;
        }
    }
    let mut config = read_json(&from.join("config.json"))?;
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = kind.torch_name().into();
    write_json(&to.join("config.json"), &config)
}

/// Pretty, as transformers writes them.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    let io = |source| ModelError::Io { path: path.into(), source };
    let text = serde_json::to_string_pretty(value).map_err(|e| io(e.into()))?;
    fs::write(path, text + "\n").map_err(io)
}

/// A tensor that is read when the `safetensors` crate comes to write it. The crate has no
/// place for an error: it goes to `failure`.
struct Lazy<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    kind: FloatType,
    name: &'a str,
    shape: &'a [usize],
    failure: &'a RefCell<Option<ModelError>>,
}

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        self.kind.dtype()
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        match super::tensor(self.checkpoint, self.config, self.name, self.kind.largest()) {
            Ok(values) => self.kind.encode(&values).into(),
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                vec![0; self.data_len()].into()
            }
        }
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.kind.bytes()
    }
}

fn write_weights(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    dir: &Path,
    kind: FloatType,
    shard_bytes: u64,
) -> Result<(), ModelError> {
    let tensors = config.tensors();
    let failure = RefCell::new(None);
    let views = tensors.iter().map(|(name, shape)| {
        let view = Lazy { checkpoint, config, kind, name, shape, failure: &failure };
        (name.as_str(), view)
    });
    let mut shards: Vec<Vec<(&str, Lazy<'_>)>> = Vec::new();
    let (mut filled, mut total) = (0, 0);
    for (name, view) in views {
        let bytes = view.data_len() as u64;
        total += bytes;
        match shards.last_mut().filter(|_| filled + bytes <= shard_bytes) {
            Some(shard) => {
                shard.push((name, view));
                filled += bytes;
            }
            None => {
                shards.push(vec![(name, view)]);
                filled = bytes;
            }
        }
    }
    let count = shards.len();
    let mut weight_map = Map::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        weight_map.extend(shard.iter().map(|(name, _)| ((*name).to_owned(), file.clone().into())));
        let path = dir.join(file);
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        safetensors::serialize_to_file(shard, Some(metadata), &path).map_err(|error| {
            ModelError::Io { path: path.clone(), source: std::io::Error::other(error) }
        })?;
        if let Some(error) = failure.take() {
            return Err(error);
        }
    }
    if count > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_json(&dir.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}
