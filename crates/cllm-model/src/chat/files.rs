//! Where a model folder keeps its chat templates.
//!
//! In transformers' order: `chat_template.jinja` wins over `chat_template` in
//! `tokenizer_config.json`, which is one template or a list of named ones, and that over
//! the older `chat_template.json`. `additional_chat_templates/NAME.jinja` adds named ones.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;
use crate::tokenizer::read_json;

pub(super) struct Found {
    /// Names and sources.
    pub(super) templates: Vec<(String, String)>,
    /// `bos_token` and the like with their spelling.
    pub(super) special_tokens: Map<String, Value>,
}

pub(super) fn read(dir: &Path) -> Result<Found, ModelError> {
    let config_path = dir.join("tokenizer_config.json");
    let config = read_json(&config_path)?;
    let special_map = read_json(&dir.join("special_tokens_map.json"))?;

    let mut templates = match read_text(&dir.join("chat_template.jinja"))? {
        Some(source) => vec![(super::DEFAULT_TEMPLATE.to_owned(), source)],
        None => match config.get("chat_template") {
            Some(entry) if !entry.is_null() => named(entry, &config_path)?,
            _ => {
                let path = dir.join("chat_template.json");
                match read_json(&path)?.get("chat_template") {
                    Some(entry) => named(entry, &path)?,
                    None => Vec::new(),
                }
            }
        },
    };
    templates.extend(additional(&dir.join("additional_chat_templates"))?);

    let mut special_tokens = Map::new();
    for file in [&special_map, &config] {
        for (name, value) in file.as_object().into_iter().flatten() {
            let spelling = value.as_str().or_else(|| value.get("content")?.as_str());
            if let (true, Some(spelling)) = (is_special_token(name), spelling) {
                special_tokens.insert(name.clone(), spelling.into());
            }
        }
    }
    Ok(Found { templates, special_tokens })
}

/// The roles that transformers offers to templates.
fn is_special_token(name: &str) -> bool {
    let roles = [
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "sep_token",
        "cls_token",
        "mask_token",
    ];
    roles.contains(&name)
}

/// One template, or a list of objects with `name` and `template`.
fn named(entry: &Value, path: &Path) -> Result<Vec<(String, String)>, ModelError> {
    if let Some(source) = entry.as_str() {
        return Ok(vec![(super::DEFAULT_TEMPLATE.to_owned(), source.to_owned())]);
    }
    let pair = |item: &Value| {
        Some((item.get("name")?.as_str()?.to_owned(), item.get("template")?.as_str()?.to_owned()))
    };
    let pairs = entry.as_array().and_then(|items| items.iter().map(pair).collect());
    pairs.ok_or_else(|| ModelError::Format {
        path: path.into(),
        what: "chat_template: expected a string, or a list of objects with the strings name and \
               template"
            .into(),
    })
}

fn additional(dir: &Path) -> Result<Vec<(String, String)>, ModelError> {
    let io = |source| ModelError::Io { path: dir.into(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut templates = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(name), true) = (name, path.extension().is_some_and(|end| end == "jinja"))
            && let Some(source) = read_text(&path)?
        {
            templates.push((name.to_owned(), source));
        }
    }
    templates.sort();
    Ok(templates)
}

/// A text file, or nothing where there is none.
fn read_text(path: &Path) -> Result<Option<String>, ModelError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Io { path: path.into(), source }),
    }
}
