//! Which files of a repository make up the model: enough to run it, nothing twice.
//!
//! Repositories carry the same weights in several formats (`.bin`, ONNX, a `consolidated`
//! copy beside the shards). As transformers does, `model.safetensors` is taken first, else
//! the shards its index names, else every safetensors file at the top. The rule is the
//! same for a listing from the Hub and for a snapshot in the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::source::SourceError;
use crate::source::reference::{HubRef, is_relative};

/// Taken when they exist, beside the weights.
const SMALL: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// An index has some 100 bytes a tensor; the largest models have 100,000 tensors.
const INDEX_BYTES: u64 = 64 << 20;

/// What to take.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// One GGUF.
    Gguf(String),
    /// A model folder.
    Folder {
        /// Configuration and tokenizer.
        small: Vec<String>,
        /// The weights.
        weights: Weights,
    },
}

/// The weights of a model folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights {
    /// These files.
    Files(Vec<String>),
    /// The files that this index names, see [`shards`].
    Index(String),
}

/// The GGUFs among the names.
pub(super) fn ggufs(names: &BTreeSet<String>) -> Vec<&str> {
    names.iter().map(String::as_str).filter(|name| name.ends_with(".gguf")).collect()
}

/// Chooses from the names of a repository's files.
pub(super) fn choose(reference: &HubRef, names: &BTreeSet<String>) -> Result<Choice, SourceError> {
    let no_model = |why| SourceError::NoModel { what: reference.to_string(), why };
    let ggufs = ggufs(names);
    if let Some(file) = &reference.file {
        if names.contains(file) {
            return Ok(Choice::Gguf(file.clone()));
        }
        return Err(no_model(match ggufs.as_slice() {
            [] => format!("the repository has no `{file}`, nor any other .gguf"),
            there => format!("the repository has no `{file}`; it has {}", list(there)),
        }));
    }
    let top: Vec<&String> =
        names.iter().filter(|n| n.ends_with(".safetensors") && !n.contains('/')).collect();
    if names.contains("config.json") && !top.is_empty() {
        let weights = if names.contains(SINGLE) {
            Weights::Files(vec![SINGLE.into()])
        } else if names.contains(INDEX) {
            Weights::Index(INDEX.into())
        } else {
            Weights::Files(top.into_iter().cloned().collect())
        };
        let there = SMALL.into_iter().filter(|name| names.contains(*name));
        return Ok(Choice::Folder { small: there.map(Into::into).collect(), weights });
    }
    match ggufs.as_slice() {
        [name] => Ok(Choice::Gguf((*name).to_owned())),
        [] => {
            Err(no_model("no model here: neither config.json with .safetensors nor a .gguf".into()))
        }
        many => Err(no_model(format!(
            "{} .gguf files; choose one as {}:FILE, of {}",
            many.len(),
            reference,
            list(many)
        ))),
    }
}

fn list(names: &[&str]) -> String {
    const MOST: usize = 40;
    let more = match names.len().saturating_sub(MOST) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    names[..names.len().min(MOST)].join(", ") + &more
}

/// The files an index names, each once. `what` is for errors.
pub(super) fn shards(index: &Path, what: &str) -> Result<Vec<String>, SourceError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let damaged = |why| SourceError::Damaged { what: format!("{what}: {INDEX}"), why };
    let mut text = Vec::new();
    File::open(index)
        .and_then(|file| file.take(INDEX_BYTES + 1).read_to_end(&mut text))
        .map_err(|e| SourceError::io(index, e))?;
    if text.len() as u64 > INDEX_BYTES {
        return Err(damaged(format!("longer than {INDEX_BYTES} bytes")));
    }
    let index: Index = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    match files.iter().find(|f| !is_relative(f) || !f.ends_with(".safetensors")) {
        Some(bad) => Err(damaged(format!("names {bad:?}, expected .safetensors files"))),
        None if files.is_empty() => Err(damaged("names no files".into())),
        None => Ok(files.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(file: Option<&str>, names: &[&str]) -> Result<Choice, SourceError> {
        let reference = HubRef { repo: "o/n".into(), revision: None, file: file.map(Into::into) };
        choose(&reference, &names.iter().map(|n| n.to_string()).collect())
    }

    fn folder(small: &[&str], weights: Weights) -> Choice {
        Choice::Folder { small: small.iter().map(|n| n.to_string()).collect(), weights }
    }

    #[test]
    fn weights_are_taken_once_and_other_formats_are_left() {
        let others = ["pytorch_model.bin", "onnx/model.onnx", "onnx/x.safetensors", "README.md"];
        let with = |names: &[&'static str]| {
            let all: Vec<&str> = others.iter().chain(names).copied().collect();
            chosen(None, &all).unwrap()
        };
        assert_eq!(
            with(&["config.json", "tokenizer.json", "model.safetensors", "model.gguf"]),
            folder(&["config.json", "tokenizer.json"], Weights::Files(vec![SINGLE.into()]))
        );
        assert_eq!(
            with(&["config.json", INDEX, "model-1.safetensors", "consolidated.safetensors"]),
            folder(&["config.json"], Weights::Index(INDEX.into()))
        );
        assert_eq!(
            with(&["config.json", "b.safetensors", "a.safetensors"]),
            folder(
                &["config.json"],
                Weights::Files(vec!["a.safetensors".into(), "b.safetensors".into()])
            )
        );
        assert_eq!(with(&["q4/m.gguf"]), Choice::Gguf("q4/m.gguf".into()));
    }

    #[test]
    fn a_gguf_is_chosen_by_name() {
        let names = ["a.gguf", "b.gguf", "config.json", "model.safetensors"];
        assert_eq!(chosen(Some("b.gguf"), &names).unwrap(), Choice::Gguf("b.gguf".into()));
        let error = chosen(Some("c.gguf"), &names).unwrap_err().to_string();
        assert!(error.contains("it has a.gguf, b.gguf"), "{error}");
        let error = chosen(None, &names[..2]).unwrap_err().to_string();
        assert!(error.contains("hf:o/n:FILE, of a.gguf, b.gguf"), "{error}");
        assert!(chosen(None, &["pytorch_model.bin", "config.json"]).is_err());
    }

    #[test]
    fn an_index_is_untrusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(INDEX);
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            shards(&path, "hf:o/n").map_err(|e| e.to_string())
        };
        let good =
            r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        assert_eq!(read(good).unwrap(), ["1.safetensors", "2.safetensors"]);
        for bad in [
            "{",
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": "../1.safetensors"}}"#,
            r#"{"weight_map": {"a": "1.bin"}}"#,
            r#"{"weight_map": {"a": 1}}"#,
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.starts_with("hf:o/n: model.safetensors.index.json:"), "{error}");
        }
    }
}
