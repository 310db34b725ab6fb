//! The tokenizer out of a Hugging Face model folder.
//!
//! `tokenizer.json` holds the pieces of the `tokenizers` crate. They are read one by one
//! and not by the crate's own reader: that one panics on a merge longer than every token,
//! and it keeps truncation, padding and BPE dropout, which have no place in generation.
//! `tokenizer_config.json` names the beginning- and end-of-text tokens and, if it sets
//! `add_bos_token` or `add_eos_token`, replaces the post-processor, as in transformers.

use std::path::{Path, PathBuf};

use cllm_decode::Token;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::Vocab;
use tokenizers::tokenizer::AddedToken;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use super::pieces::{Pieces, Spelling};
use super::{BpeParts, Specials, Tokenizer};
use crate::error::ModelError;

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    model: ModelEntry,
}

#[derive(Deserialize)]
struct AddedEntry {
    id: Token,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct ModelEntry {
    #[serde(rename = "type", default = "bpe")]
    kind: String,
    vocab: VocabEntry,
    #[serde(default)]
    merges: MergesEntry,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

fn bpe() -> String {
    "BPE".into()
}

/// A table, or what other kinds of model have.
#[derive(Deserialize)]
#[serde(untagged)]
enum VocabEntry {
    Table(Vocab),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MergesEntry {
    Pairs(Vec<(String, String)>),
    /// Older files: two tokens separated by a space.
    Lines(Vec<String>),
}

impl Default for MergesEntry {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

pub(super) fn read(dir: &Path) -> Result<Tokenizer, ModelError> {
    let path = dir.join("tokenizer.json");
    if !path.exists() && dir.join("tokenizer.model").exists() {
        return Err(ModelError::Unsupported {
            path: dir.join("tokenizer.model"),
            what: "a SentencePiece file without tokenizer.json beside it; convert it with \
                   transformers: AutoTokenizer.from_pretrained(dir).save_pretrained(dir)"
                .into(),
        });
    }
    let bytes =
        std::fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    let file: TokenizerFile = serde_json::from_slice(&bytes)
        .map_err(|error| ModelError::Format { path: path.clone(), what: error.to_string() })?;
    let config = Companions::read(dir)?;
    build(file, &config).map_err(|problem| match problem {
        Problem::Format(what) => ModelError::Format { path, what },
        Problem::Unsupported(what) => ModelError::Unsupported { path, what },
    })
}

enum Problem {
    Format(String),
    Unsupported(String),
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self::Format(what)
    }
}

fn build(file: TokenizerFile, config: &Companions) -> Result<Tokenizer, Problem> {
    let spelling = spelling(file.decoder.as_ref())?;
    let mut inner = tokenizers::Tokenizer::new(file.model.into_parts()?.build()?);
    inner.with_normalizer(file.normalizer).map_err(|error| error.to_string())?;
    inner.with_pre_tokenizer(file.pre_tokenizer);
    inner.with_post_processor(file.post_processor);
    add_tokens(&mut inner, file.added_tokens, "added_tokens")?;
    add_tokens(&mut inner, config.added_tokens()?, "tokenizer_config.json, added_tokens_decoder")?;

    let token = |name: &str| match config.special(name) {
        None => Ok(None),
        Some(spelling) => match inner.token_to_id(&spelling) {
            Some(id) => Ok(Some(id)),
            None => Err(format!("{name} is {spelling:?}, which is not in the vocabulary")),
        },
    };
    let (bos, eos) = (token("bos_token")?, token("eos_token")?);
    let specials = match (config.flag("add_bos_token"), config.flag("add_eos_token")) {
        (None, None) => Specials::PostProcessor,
        (add_bos, add_eos) => Specials::Around {
            before: bos.filter(|_| add_bos == Some(true)),
            after: eos.filter(|_| add_eos == Some(true)),
        },
    };
    let vocab: Vec<(String, Token)> = inner.get_vocab(true).into_iter().collect();
    let added = inner.get_added_tokens_decoder();
    let is_special = |id: Token| added.get(&id).is_some_and(|token| token.special);
    let pieces = Pieces::new(&vocab, is_special, spelling)?;
    Ok(Tokenizer { inner, pieces, bos, eos, specials })
}

/// Adds tokens in the order of their ids and checks that they got these ids.
fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    mut entries: Vec<AddedEntry>,
    place: &str,
) -> Result<(), Problem> {
    entries.sort_by_key(|entry| entry.id);
    let expected: Vec<(String, Token)> =
        entries.iter().map(|entry| (entry.token.content.clone(), entry.id)).collect();
    inner
        .add_tokens(entries.into_iter().map(|entry| entry.token))
        .map_err(|error| format!("{place}: {error}"))?;
    for (content, id) in expected {
        match inner.token_to_id(&content) {
            Some(found) if found == id => {}
            found => {
                return Err(Problem::Format(format!(
                    "{place}: token {content:?} says its id is {id}, but the vocabulary makes it \
                     {found:?}"
                )));
            }
        }
    }
    Ok(())
}

impl ModelEntry {
    fn into_parts(self) -> Result<BpeParts, Problem> {
        let VocabEntry::Table(vocab) = self.vocab else {
            return Err(Problem::Unsupported(format!(
                "model type {:?} with a vocabulary that is no table of ids; supported: BPE",
                self.kind
            )));
        };
        if self.kind != "BPE" {
            return Err(Problem::Unsupported(format!(
                "model type {:?}; supported: BPE",
                self.kind
            )));
        }
        for (name, value) in [
            ("continuing_subword_prefix", self.continuing_subword_prefix),
            ("end_of_word_suffix", self.end_of_word_suffix),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                return Err(Problem::Unsupported(format!(
                    "model.{name} is {value:?}; no supported family marks words so"
                )));
            }
        }
        let merges = match self.merges {
            MergesEntry::Pairs(pairs) => pairs,
            MergesEntry::Lines(lines) => {
                let mut pairs = Vec::with_capacity(lines.len());
                for (rank, line) in lines.iter().enumerate() {
                    let (left, right) = line
                        .split_once(' ')
                        .ok_or_else(|| format!("merge {rank} is {line:?}, expected two tokens"))?;
                    pairs.push((left.to_owned(), right.to_owned()));
                }
                pairs
            }
        };
        Ok(BpeParts {
            vocab,
            merges,
            unk_token: self.unk_token,
            fuse_unk: self.fuse_unk,
            byte_fallback: self.byte_fallback,
            ignore_merges: self.ignore_merges,
        })
    }
}

/// Which of the two spellings the decoder undoes.
fn spelling(decoder: Option<&DecoderWrapper>) -> Result<Spelling, Problem> {
    let described = serde_json::to_value(decoder).map_err(|error| error.to_string())?;
    let steps = match described.get("decoders").and_then(Value::as_array) {
        Some(steps) => steps.clone(),
        None => vec![described.clone()],
    };
    let kind = |step: &Value| step.get("type").and_then(Value::as_str).unwrap_or("").to_owned();
    let kinds: Vec<String> = steps.iter().map(kind).collect();
    match kinds.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ByteLevel"] => Ok(Spelling::ByteLevel),
        ["Replace", "ByteFallback", "Fuse"] => {
            Ok(Spelling::SentencePiece { strip_first_space: false })
        }
        ["Replace", "ByteFallback", "Fuse", "Strip"]
            if steps[3].get("start") == Some(&Value::from(1))
                && steps[3].get("stop") == Some(&Value::from(0))
                && steps[3].get("content") == Some(&Value::from(" ")) =>
        {
            Ok(Spelling::SentencePiece { strip_first_space: true })
        }
        _ => Err(Problem::Unsupported(format!(
            "decoder {described}; supported: ByteLevel, and Replace + ByteFallback + Fuse with or \
             without Strip of one leading space"
        ))),
    }
}

/// The files beside `tokenizer.json`; either may be absent.
struct Companions {
    config: Value,
    config_path: PathBuf,
    special_map: Value,
}

impl Companions {
    fn read(dir: &Path) -> Result<Self, ModelError> {
        let config_path = dir.join("tokenizer_config.json");
        let config = read_json(&config_path)?;
        let special_map = read_json(&dir.join("special_tokens_map.json"))?;
        Ok(Self { config, config_path, special_map })
    }

    /// The spelling of a special token, given as a string or as an object with `content`.
    fn special(&self, name: &str) -> Option<String> {
        [&self.config, &self.special_map].into_iter().find_map(|file| {
            let entry = file.get(name)?;
            entry.as_str().or_else(|| entry.get("content")?.as_str()).map(str::to_owned)
        })
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.config.get(name).and_then(Value::as_bool)
    }

    /// Tokens known to the configuration; those of `tokenizer.json` are among them.
    fn added_tokens(&self) -> Result<Vec<AddedEntry>, Problem> {
        let Some(table) = self.config.get("added_tokens_decoder").and_then(Value::as_object) else {
            return Ok(Vec::new());
        };
        let entry = |(id, token): (&String, &Value)| {
            let broken = |why: String| {
                format!("{}: added_tokens_decoder, {id:?}: {why}", self.config_path.display())
            };
            let token: AddedToken =
                serde_json::from_value(token.clone()).map_err(|error| broken(error.to_string()))?;
            let id = id.parse().map_err(|_| broken("expected a token id".into()))?;
            Ok(AddedEntry { id, token })
        };
        table.iter().map(entry).collect()
    }
}

/// A JSON file, or null where there is none.
pub(crate) fn read_json(path: &Path) -> Result<Value, ModelError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| ModelError::Format { path: path.into(), what: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(source) => Err(ModelError::Io { path: path.into(), source }),
    }
}
