//! The metadata of a GGUF file: copied from another GGUF file, or made from a folder under
//! the keys that llama.cpp's converter writes.

use std::path::Path;

use super::GgufType;
use crate::chat::{self, DEFAULT_TEMPLATE};
use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::error::ModelError;
use crate::tokenizer::Tokenizer;
use crate::weights::gguf::ValueType;
use crate::weights::{Checkpoint, Gguf};

/// A key with its value as it will stand in the file.
pub(super) struct Entry {
    key: String,
    kind: ValueType,
    value: Vec<u8>,
}

impl Entry {
    /// The key's length, the key, the type, the value.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = text(&self.key);
        bytes.extend((self.kind as u32).to_le_bytes());
        bytes.extend(&self.value);
        bytes
    }

    fn new(key: impl Into<String>, kind: ValueType, value: Vec<u8>) -> Self {
        Self { key: key.into(), kind, value }
    }

    fn u32(key: impl Into<String>, value: u32) -> Self {
        Self::new(key, ValueType::U32, value.to_le_bytes().into())
    }

    fn f32(key: impl Into<String>, value: f32) -> Self {
        Self::new(key, ValueType::F32, value.to_le_bytes().into())
    }

    fn bool(key: impl Into<String>, value: bool) -> Self {
        Self::new(key, ValueType::Bool, vec![value.into()])
    }

    fn text(key: impl Into<String>, value: &str) -> Self {
        Self::new(key, ValueType::Str, text(value))
    }

    fn array(
        key: impl Into<String>,
        element: ValueType,
        items: impl ExactSizeIterator<Item = Vec<u8>>,
    ) -> Self {
        let mut value: Vec<u8> = (element as u32).to_le_bytes().into();
        value.extend((items.len() as u64).to_le_bytes());
        items.for_each(|item| value.extend(item));
        Self::new(key, ValueType::Array, value)
    }

    fn texts(key: impl Into<String>, items: &[String]) -> Self {
        Self::array(key, ValueType::Str, items.iter().map(|item| text(item)))
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = (text.len() as u64).to_le_bytes().into();
    bytes.extend(text.as_bytes());
    bytes
}

/// All entries of the new file.
pub(super) fn entries(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    kind: GgufType,
) -> Result<Vec<Entry>, ModelError> {
    let mut entries = match (checkpoint.gguf(), checkpoint.dir()) {
        (Some(gguf), _) => copied(gguf),
        (None, Some(dir)) => {
            let mut entries = network(config, dir)?;
            entries.extend(tokenizer(config, dir)?);
            entries
        }
        (None, None) => Vec::new(),
    };
    entries.push(Entry::u32("general.file_type", kind.file_type()));
    entries.push(Entry::u32("general.quantization_version", 2));
    Ok(entries)
}

/// Everything but what speaks of the old file's tensors.
fn copied(gguf: &Gguf) -> Vec<Entry> {
    let keep = |key: &&str| {
        !matches!(*key, "general.alignment" | "general.file_type" | "general.quantization_version")
            && !key.starts_with("quantize.")
            && !key.starts_with("split.")
    };
    let entry = |key: &str| {
        let (kind, value) = gguf.raw(key)?;
        Some(Entry::new(key, kind, value.into()))
    };
    gguf.keys().filter(keep).filter_map(entry).collect()
}

fn network(c: &ModelConfig, dir: &Path) -> Result<Vec<Entry>, ModelError> {
    let unsupported = |what: &str| {
        Err(ModelError::Unsupported {
            path: dir.into(),
            what: format!("{what}, which a GGUF file cannot say"),
        })
    };
    let mut windows = c.sliding_window.clone();
    windows.dedup();
    if windows.len() > 1 {
        return unsupported("layers with different attention windows");
    }
    let unrotated = (0..c.num_layers)
        .any(|i| c.rope_layers[i] == (c.architecture == Architecture::SmolLm3 && (i + 1) % 4 == 0));
    if unrotated {
        return unsupported("rotation left out in layers other than every fourth");
    }
    let prefix = match c.architecture {
        Architecture::Mistral => Architecture::Llama.model_type(),
        other => other.model_type(),
    };
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let key = |name: &str| format!("{prefix}.{name}");
    // Sizes are checked to be below 2^28.
    let size = |name: &str, value: usize| Entry::u32(key(name), value as u32);
    let mut entries = vec![
        Entry::text("general.architecture", prefix),
        Entry::text("general.type", "model"),
        Entry::text("general.name", &name),
        size("block_count", c.num_layers),
        size("context_length", c.context_length),
        size("embedding_length", c.hidden_size),
        size("feed_forward_length", c.intermediate_size),
        size("attention.head_count", c.num_heads),
        size("attention.head_count_kv", c.num_kv_heads),
        size("attention.key_length", c.head_dim),
        size("attention.value_length", c.head_dim),
        size("rope.dimension_count", c.head_dim),
        size("vocab_size", c.vocab_size),
        Entry::f32(key("attention.layer_norm_rms_epsilon"), c.rms_norm_eps),
        Entry::f32(key("rope.freq_base"), c.rope_theta),
    ];
    if let RopeScaling::Linear { factor } = c.rope_scaling {
        entries.push(Entry::text(key("rope.scaling.type"), "linear"));
        entries.push(Entry::f32(key("rope.scaling.factor"), factor));
    }
    if let Some(Some(window)) = windows.first() {
        entries.push(size("attention.sliding_window", *window));
    }
    Ok(entries)
}

fn tokenizer(c: &ModelConfig, dir: &Path) -> Result<Vec<Entry>, ModelError> {
    let tokenizer = Tokenizer::from_folder(dir)?;
    let tables = tokenizer.to_tables(c.vocab_size)?;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let types = tables.token_types.iter().map(|kind| kind.to_le_bytes().to_vec());
    let mut entries = vec![
        Entry::text(key("model"), tables.model),
        Entry::text(key("pre"), tables.pre),
        Entry::texts(key("tokens"), &tables.tokens),
        Entry::array(key("token_type"), ValueType::I32, types),
        Entry::bool(key("add_bos_token"), tables.add_bos),
        Entry::bool(key("add_eos_token"), tables.add_eos),
    ];
    if let Some(scores) = &tables.scores {
        let scores = scores.iter().map(|score| score.to_le_bytes().to_vec());
        entries.push(Entry::array(key("scores"), ValueType::F32, scores));
    }
    if let Some(merges) = &tables.merges {
        entries.push(Entry::texts(key("merges"), merges));
    }
    if let Some(prefix) = tables.add_space_prefix {
        entries.push(Entry::bool(key("add_space_prefix"), prefix));
    }
    let eos = tokenizer.eos().or(c.eos_tokens.first().copied());
    let eot = c.eos_tokens.iter().copied().find(|&token| Some(token) != eos);
    let roles = [
        ("bos", tokenizer.bos().or(c.bos_token)),
        ("eos", eos),
        ("eot", eot),
        ("unknown", tables.unk),
    ];
    for (name, id) in roles {
        entries.extend(id.map(|id| Entry::u32(key(&format!("{name}_token_id")), id)));
    }
    for (name, source) in chat::sources(dir)? {
        let key = match name.as_str() {
            DEFAULT_TEMPLATE => "tokenizer.chat_template".to_owned(),
            name => format!("tokenizer.chat_template.{name}"),
        };
        entries.push(Entry::text(key, &source));
    }
    Ok(entries)
}
