//! The tokenizer out of a GGUF file's own tables.
//!
//! `tokenizer.ggml.model` names two kinds. `gpt2` is byte-level BPE: tokens and merges are
//! in the file, the word splitting is named ([`super::pre`]). `llama` is SentencePiece BPE:
//! tokens with scores, no merges. SentencePiece joins the adjacent pair whose result has the
//! best score; as ranked merges that is every way to cut a token into two tokens, best
//! score first. Cuts of the same token are ranked as transformers' converter does it,
//! longer left part first, so ids equal those of the model's `tokenizer.json`; llama.cpp
//! and SentencePiece take the leftmost instead, which differs only where two cuts of one
//! token overlap.
//!
//! Left out: WordPiece, Unigram and the other kinds, which no supported family uses.

use std::cmp::Ordering;

use cllm_decode::Token;
use tokenizers::models::bpe::{Merges, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};
use tokenizers::tokenizer::AddedToken;

use super::pieces::{Pieces, Spelling};
use super::pre::PreTokenizer;
use super::{BpeParts, Specials, Tokenizer};
use crate::chat::DEFAULT_TEMPLATE;
use crate::error::ModelError;
use crate::weights::gguf::Gguf;

/// The `tokenizer.ggml.*` entries of a GGUF file. Empty and `None` mean absent.
#[derive(Debug, Clone, Default)]
pub struct GgufTables<'a> {
    /// `model`: `gpt2` or `llama`.
    pub model: &'a str,
    /// `pre`: the name of the word splitting.
    pub pre: Option<&'a str>,
    /// `tokens`: the spelling of each id.
    pub tokens: Vec<&'a str>,
    /// `token_type`, one per token: 1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte.
    pub token_types: Vec<u32>,
    /// `scores`, one per token; higher is merged earlier.
    pub scores: Vec<f32>,
    /// `merges`: pairs separated by a space, earliest first.
    pub merges: Vec<&'a str>,
    /// `bos_token_id`.
    pub bos: Option<Token>,
    /// `eos_token_id`.
    pub eos: Option<Token>,
    /// `unknown_token_id`.
    pub unk: Option<Token>,
    /// `padding_token_id`; only templates ask for it.
    pub pad: Option<Token>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template` as `default`, `tokenizer.chat_template.NAME` as `NAME`.
    pub chat_templates: Vec<(&'a str, &'a str)>,
}

impl<'a> GgufTables<'a> {
    /// The entries of an open file.
    ///
    /// # Errors
    /// No `tokenizer.ggml.model` or `tokens`, or an entry of another type than it should be.
    pub fn read(gguf: &'a Gguf) -> Result<Self, ModelError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let model = key("model");
        let tokens = key("tokens");
        let mut chat_templates = Vec::new();
        for name in gguf.keys() {
            if let Some(rest) = name.strip_prefix("tokenizer.chat_template") {
                let source = gguf.get_str(name);
                match rest.strip_prefix('.') {
                    Some(title) => chat_templates.extend(source?.map(|source| (title, source))),
                    None if rest.is_empty() => {
                        chat_templates.extend(source?.map(|source| (DEFAULT_TEMPLATE, source)));
                    }
                    None => {}
                }
            }
        }
        Ok(Self {
            model: gguf.get_str(&model)?.ok_or_else(|| gguf.missing(&model))?,
            pre: gguf.get_str(&key("pre"))?,
            tokens: gguf.get_strings(&tokens)?.ok_or_else(|| gguf.missing(&tokens))?,
            token_types: gguf.get_u32s(&key("token_type"))?.unwrap_or_default(),
            scores: gguf.get_f32s(&key("scores"))?.unwrap_or_default(),
            merges: gguf.get_strings(&key("merges"))?.unwrap_or_default(),
            bos: gguf.get_u32(&key("bos_token_id"))?,
            eos: gguf.get_u32(&key("eos_token_id"))?,
            unk: gguf.get_u32(&key("unknown_token_id"))?,
            pad: gguf.get_u32(&key("padding_token_id"))?,
            add_bos: gguf.get_bool(&key("add_bos_token"))?,
            add_eos: gguf.get_bool(&key("add_eos_token"))?,
            add_space_prefix: gguf.get_bool(&key("add_space_prefix"))?,
            chat_templates,
        })
    }
}

const TYPE_UNKNOWN: u32 = 2;
const TYPE_CONTROL: u32 = 3;
const TYPE_USER_DEFINED: u32 = 4;

pub(super) fn build(tables: &GgufTables<'_>) -> Result<Tokenizer, ModelError> {
    build_inner(tables).map_err(|what| ModelError::Text(format!("GGUF tokenizer: {what}")))
}

fn build_inner(tables: &GgufTables<'_>) -> Result<Tokenizer, String> {
    let sentencepiece = match tables.model {
        "gpt2" => false,
        "llama" => true,
        other => {
            return Err(format!(
                "tokenizer.ggml.model is {other:?}, which is not supported; supported: gpt2 \
                 (byte-level BPE), llama (SentencePiece)"
            ));
        }
    };
    let count = tables.tokens.len();
    for (name, length) in
        [("token_type", tables.token_types.len()), ("scores", tables.scores.len())]
    {
        if length != 0 && length != count {
            return Err(format!("{count} tokens but {length} entries in tokenizer.ggml.{name}"));
        }
    }
    let special_ids = SpecialIds::new(tables, sentencepiece)?;
    let vocab = vocab(&tables.tokens)?;

    let (mut inner, spelling, add_bos) = if sentencepiece {
        sentencepiece_bpe(tables, vocab, special_ids.unk)?
    } else {
        byte_level_bpe(tables, vocab)?
    };
    inner
        .add_tokens(added_tokens(tables))
        .map_err(|error| format!("cannot add the special tokens: {error}"))?;

    let before = added_around("bos", tables.add_bos.unwrap_or(add_bos), special_ids.bos)?;
    let after = added_around("eos", tables.add_eos.unwrap_or(false), special_ids.eos)?;
    let names: Vec<(String, Token)> =
        tables.tokens.iter().zip(0..).map(|(&token, id)| (spelled(token, id), id)).collect();
    let is_special = |id: Token| match tables.token_types.get(id as usize) {
        Some(&kind) => matches!(kind, TYPE_CONTROL | TYPE_UNKNOWN),
        None => false,
    };
    let pieces = Pieces::new(&names, is_special, spelling)?;
    Ok(Tokenizer {
        inner,
        pieces,
        bos: special_ids.bos,
        eos: special_ids.eos,
        specials: Specials::Around { before, after },
    })
}

/// Ids of the tokens with a role; llama.cpp's defaults where the file names none.
struct SpecialIds {
    bos: Option<Token>,
    eos: Option<Token>,
    unk: Option<Token>,
}

impl SpecialIds {
    fn new(tables: &GgufTables<'_>, sentencepiece: bool) -> Result<Self, String> {
        let count = tables.tokens.len();
        let check = |name: &str, id: Option<Token>, default: Token| match id {
            Some(id) if (id as usize) < count => Ok(Some(id)),
            Some(id) => Err(format!(
                "tokenizer.ggml.{name}_token_id is {id}, but there are only {count} tokens"
            )),
            None => Ok(Some(default).filter(|_| sentencepiece && (default as usize) < count)),
        };
        Ok(Self {
            unk: check("unknown", tables.unk, 0)?,
            bos: check("bos", tables.bos, 1)?,
            eos: check("eos", tables.eos, 2)?,
        })
    }
}

fn added_around(name: &str, add: bool, id: Option<Token>) -> Result<Option<Token>, String> {
    match (add, id) {
        (true, None) => Err(format!(
            "texts are to have the {name} token, but tokenizer.ggml.{name}_token_id is missing"
        )),
        (true, id) => Ok(id),
        (false, _) => Ok(None),
    }
}

/// What an id is called. Some files leave the spelling of padding tokens empty.
fn spelled(token: &str, id: Token) -> String {
    if token.is_empty() { format!("[EMPTY_{id}]") } else { token.to_owned() }
}

fn vocab(tokens: &[&str]) -> Result<Vocab, String> {
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (&token, id) in tokens.iter().zip(0..) {
        if let Some(other) = vocab.insert(spelled(token, id), id) {
            return Err(format!("token {token:?} is there twice, as {other} and as {id}"));
        }
    }
    Ok(vocab)
}

/// Tokens matched whole in a text, whatever surrounds them.
fn added_tokens(tables: &GgufTables<'_>) -> Vec<AddedToken> {
    let kinds = tables.tokens.iter().zip(&tables.token_types);
    kinds
        .filter(|(token, _)| !token.is_empty())
        .filter_map(|(&token, &kind)| match kind {
            TYPE_CONTROL | TYPE_UNKNOWN => Some(AddedToken::from(token, true)),
            TYPE_USER_DEFINED => Some(AddedToken::from(token, false).normalized(false)),
            _ => None,
        })
        .collect()
}

/// The model, how it spells bytes, and whether it adds BOS unless the file says.
type Built = (tokenizers::Tokenizer, Spelling, bool);

fn byte_level_bpe(tables: &GgufTables<'_>, vocab: Vocab) -> Result<Built, String> {
    if tables.merges.is_empty() && vocab.len() > 256 {
        return Err("tokenizer.ggml.merges is missing or empty".into());
    }
    let mut merges = Merges::with_capacity(tables.merges.len());
    for (rank, merge) in tables.merges.iter().enumerate() {
        let (left, right) = merge
            .split_once(' ')
            .ok_or_else(|| format!("merge {rank} is {merge:?}, expected two tokens"))?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    let pre = PreTokenizer::named(tables.pre)?;
    let parts = BpeParts {
        vocab,
        merges,
        unk_token: None,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: pre.ignore_merges,
    };
    let mut inner = tokenizers::Tokenizer::new(parts.build()?);
    inner.with_normalizer(pre.normalizer()).map_err(|error| error.to_string())?;
    inner.with_pre_tokenizer(Some(pre.build()?));
    Ok((inner, Spelling::ByteLevel, pre.add_bos))
}

fn sentencepiece_bpe(
    tables: &GgufTables<'_>,
    vocab: Vocab,
    unk: Option<Token>,
) -> Result<Built, String> {
    let merges = merges_from_scores(&tables.tokens, &tables.scores, &vocab)?;
    let parts = BpeParts {
        vocab,
        merges,
        unk_token: unk.map(|id| spelled(tables.tokens[id as usize], id)),
        fuse_unk: true,
        byte_fallback: true,
        ignore_merges: false,
    };
    let mut inner = tokenizers::Tokenizer::new(parts.build()?);
    let prefix = tables.add_space_prefix.unwrap_or(true);
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if prefix {
        steps.push(Prepend::new("▁".into()).into());
    }
    steps.push(Replace::new(" ", "▁").map_err(|error| error.to_string())?.into());
    inner.with_normalizer(Some(Sequence::new(steps))).map_err(|error| error.to_string())?;
    Ok((inner, Spelling::SentencePiece { strip_first_space: prefix }, true))
}

/// Every way to cut a token into two tokens, the most urgent first.
fn merges_from_scores(tokens: &[&str], scores: &[f32], vocab: &Vocab) -> Result<Merges, String> {
    if scores.is_empty() {
        return Err("tokenizer.ggml.scores is missing, which a llama vocabulary needs".into());
    }
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        return Err(format!("the score of token {id} ({:?}) is not a number", tokens[id]));
    }
    struct Cut<'a> {
        score: f32,
        left: &'a str,
        right: &'a str,
        /// Lengths in characters.
        lengths: (usize, usize),
    }
    let mut cuts: Vec<Cut<'_>> = Vec::new();
    for (&token, &score) in tokens.iter().zip(scores) {
        let characters = token.chars().count();
        for (position, (byte, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(byte);
            if vocab.contains_key(left) && vocab.contains_key(right) {
                cuts.push(Cut { score, left, right, lengths: (position, characters - position) });
            }
        }
    }
    cuts.sort_by(|a, b| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then_with(|| b.lengths.cmp(&a.lengths))
    });
    Ok(cuts.into_iter().map(|cut| (cut.left.to_owned(), cut.right.to_owned())).collect())
}
