//! A tokenizer written for other programs: `tokenizer.json` and the tables of GGUF.

use serde_json::{Value, json};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::processors::template::TemplateProcessing;

use super::pieces::Spelling;
use super::pre::PreTokenizer;
use super::{Specials, Tokenizer};
use crate::error::ModelError;

/// GGUF's kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The `tokenizer.ggml.*` entries that describe a tokenizer: see
/// [`GgufTables`](super::GgufTables), their reader's side.
pub(crate) struct Tables {
    pub(crate) model: &'static str,
    pub(crate) pre: &'static str,
    pub(crate) tokens: Vec<String>,
    pub(crate) token_types: Vec<i32>,
    /// Of SentencePiece alone.
    pub(crate) scores: Option<Vec<f32>>,
    /// Of byte-level BPE alone.
    pub(crate) merges: Option<Vec<String>>,
    pub(crate) unk: Option<u32>,
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    /// Of SentencePiece alone.
    pub(crate) add_space_prefix: Option<bool>,
}

impl Tokenizer {
    /// `tokenizer.json`. What a GGUF file's tables leave to the reader, decoding and the
    /// tokens around a text, is written out.
    pub(crate) fn to_json(&self) -> Result<Value, ModelError> {
        let failed = |e: &dyn std::fmt::Display| {
            ModelError::Text(format!("the tokenizer cannot be written as tokenizer.json: {e}"))
        };
        let mut inner = self.inner.clone();
        if let Specials::Around { before, after } = self.specials {
            let spelled = |id: Option<u32>| id.and_then(|id| Some((inner.id_to_token(id)?, id)));
            let (before, after) = (spelled(before), spelled(after));
            let mut pieces = vec!["$A".to_owned()];
            pieces.splice(0..0, before.iter().map(|(token, _)| token.clone()));
            pieces.extend(after.iter().map(|(token, _)| token.clone()));
            let mut special: Vec<(String, u32)> = before.into_iter().chain(after).collect();
            special.dedup();
            let template = TemplateProcessing::builder()
                .try_single(pieces)
                .map_err(|e| failed(&e))?
                .special_tokens(special)
                .build()
                .map_err(|e| failed(&e))?;
            inner.with_post_processor(Some(template));
        }
        if inner.get_decoder().is_none() {
            let decoder = match self.pieces.spelling {
                Spelling::ByteLevel => json!({
                    "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true
                }),
                Spelling::SentencePiece { strip_first_space } => {
                    let mut steps = vec![
                        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                        json!({"type": "ByteFallback"}),
                        json!({"type": "Fuse"}),
                    ];
                    if strip_first_space {
                        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
                        steps.push(strip);
                    }
                    json!({"type": "Sequence", "decoders": steps})
                }
            };
            let decoder: DecoderWrapper =
                serde_json::from_value(decoder).map_err(|e| failed(&e))?;
            inner.with_decoder(Some(decoder));
        }
        serde_json::to_value(&inner).map_err(|e| failed(&e))
    }

    /// The tables of GGUF, `count` tokens long: a network may have more rows than its
    /// vocabulary has tokens.
    pub(crate) fn to_tables(&self, count: usize) -> Result<Tables, ModelError> {
        let json = self.to_json()?;
        let unsupported = |what: String| {
            ModelError::Text(format!("a GGUF file cannot hold this tokenizer: {what}"))
        };
        let model = &json["model"];
        let sentencepiece = matches!(self.pieces.spelling, Spelling::SentencePiece { .. });
        let added: Vec<(u32, bool)> = json["added_tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|token| Some((token["id"].as_u64()? as u32, token["special"] == true)))
            .collect();
        let unk = model["unk_token"].as_str().and_then(|token| self.inner.token_to_id(token));

        let count = count.max(self.vocab_size());
        let mut tokens: Vec<String> = (0..count).map(|id| format!("[PAD{id}]")).collect();
        let mut token_types = vec![UNUSED; count];
        for (token, id) in self.inner.get_vocab(true) {
            let kind = match added.iter().find(|(added, _)| *added == id) {
                _ if Some(id) == unk => UNKNOWN,
                Some((_, true)) => CONTROL,
                Some((_, false)) => USER_DEFINED,
                None if sentencepiece && is_byte(&token) => BYTE,
                None => NORMAL,
            };
            // Ids are below `vocab_size`.
            token_types[id as usize] = kind;
            tokens[id as usize] = token;
        }
        let merges: Vec<(&str, &str)> = model["merges"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|merge| match merge {
                Value::String(line) => line.split_once(' '),
                pair => Some((pair[0].as_str()?, pair[1].as_str()?)),
            })
            .collect();
        let around = self.encode("", true)?;
        let tables = Tables {
            model: if sentencepiece { "llama" } else { "gpt2" },
            pre: "default",
            tokens,
            token_types,
            scores: None,
            merges: None,
            unk,
            add_bos: self.bos.is_some() && around.first().copied() == self.bos,
            add_eos: self.eos.is_some() && around.last().copied() == self.eos,
            add_space_prefix: None,
        };
        if sentencepiece {
            let prefix = space_prefix(&json).ok_or_else(|| {
                unsupported(format!(
                    "normalizer {} and splitting {}",
                    json["normalizer"], json["pre_tokenizer"]
                ))
            })?;
            let scores = self.scores(count, &merges);
            return Ok(Tables { scores: Some(scores), add_space_prefix: Some(prefix), ..tables });
        }
        let ignore_merges = model["ignore_merges"] == true;
        let (cut, normalizer) = (&json["pre_tokenizer"], &json["normalizer"]);
        let pre = PreTokenizer::name_of(cut, normalizer, ignore_merges).ok_or_else(|| {
            unsupported(format!(
                "llama.cpp has no name that we know for the splitting {cut} with normalizer \
                 {normalizer}"
            ))
        })?;
        if let Some((left, right)) = merges.iter().find(|(l, r)| l.contains(' ') || r.contains(' '))
        {
            return Err(unsupported(format!("the merge of {left:?} and {right:?} has a space")));
        }
        let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        Ok(Tables { pre, merges: Some(merges), ..tables })
    }

    /// A score for each token, from the order of merges: the earlier the better. Nothing
    /// merges to the others.
    fn scores(&self, count: usize, merges: &[(&str, &str)]) -> Vec<f32> {
        let mut scores = vec![0.0; count];
        for (rank, (left, right)) in merges.iter().enumerate().rev() {
            if let Some(id) = self.inner.token_to_id(&format!("{left}{right}")) {
                // Counted from 1: 0 is left to bytes and control tokens.
                scores[id as usize] = -(rank as f32) - 1.0;
            }
        }
        scores
    }
}

/// `<0x0A>`
fn is_byte(token: &str) -> bool {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok())
}

/// Whether a SentencePiece vocabulary puts a space before a text; `None` for a way to do so
/// that GGUF does not have.
fn space_prefix(json: &Value) -> Option<bool> {
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    if !json["pre_tokenizer"].is_null() {
        return None;
    }
    let normalizer = &json["normalizer"];
    let steps = normalizer["normalizers"].as_array().cloned();
    match steps.unwrap_or_else(|| vec![normalizer.clone()]).as_slice() {
        [first, second] if *first == prepend && *second == spaces => Some(true),
        [only] if *only == spaces => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tokenizer::GgufTables;
    use crate::weights::Gguf;

    const STYLES: [&str; 6] = ["gpt2", "llama2", "llama3", "qwen2", "smollm", "tekken"];
    const TEXT: &str = "  The year 1984, it's   here.\n\n\tNaïve café ﬁ — 你好 🙂 don't<0x0A>▁";

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/text").join(name)
    }

    fn same(a: &Tokenizer, b: &Tokenizer, what: &str) {
        for special in [false, true] {
            let ids = a.encode(TEXT, special).unwrap();
            assert_eq!(ids, b.encode(TEXT, special).unwrap(), "{what}");
            assert_eq!(a.decode(&ids, true), b.decode(&ids, true), "{what}");
        }
    }

    #[test]
    fn tables_of_gguf_as_tokenizer_json() {
        for style in STYLES {
            let gguf = Gguf::open(&golden(&format!("{style}.gguf"))).unwrap();
            let tokenizer = Tokenizer::from_gguf(&GgufTables::read(&gguf).unwrap()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let json = tokenizer.to_json().unwrap().to_string();
            std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
            same(&tokenizer, &Tokenizer::from_folder(dir.path()).unwrap(), style);
        }
    }

    #[test]
    fn tokenizer_json_as_tables_of_gguf() {
        for style in STYLES {
            let tokenizer = Tokenizer::from_folder(&golden(style)).unwrap();
            let tables = tokenizer.to_tables(700).unwrap();
            assert_eq!((tables.tokens.len(), tables.token_types.len()), (700, 700));
            let merges = tables.merges.as_deref().unwrap_or_default();
            let read = GgufTables {
                model: tables.model,
                pre: Some(tables.pre),
                tokens: tables.tokens.iter().map(String::as_str).collect(),
                token_types: tables.token_types.iter().map(|&kind| kind as u32).collect(),
                scores: tables.scores.clone().unwrap_or_default(),
                merges: merges.iter().map(String::as_str).collect(),
                bos: tokenizer.bos(),
                eos: tokenizer.eos(),
                unk: tables.unk,
                add_bos: Some(tables.add_bos),
                add_eos: Some(tables.add_eos),
                add_space_prefix: tables.add_space_prefix,
                ..GgufTables::default()
            };
            same(&tokenizer, &Tokenizer::from_gguf(&read).unwrap(), style);
        }
    }
}
