//! Text to tokens and back.
//!
//! Splitting and merging are the `tokenizers` crate's, because the ids have to be those the
//! model was trained on, in every corner case of Unicode and whitespace. What is ours:
//!
//! * `folder`: the Hugging Face files (`tokenizer.json` and its companions), validated
//!   before the crate sees them: it panics on some broken merge tables.
//! * `gguf`: the same tokenizer rebuilt from the tables inside a GGUF file.
//! * `export`: the other way: `tokenizer.json`, and a GGUF file's tables.
//! * `pre`: how a GGUF's `tokenizer.ggml.pre` splits text into words.
//! * `pieces`: the bytes of every token. Decoding concatenates them, so that a stream of
//!   tokens ([`TextStream`]) gives, piece by piece, exactly the text of the whole.
//!
//! Decoding differs from `tokenizers` in one case: in a SentencePiece vocabulary a run of
//! byte tokens that is not UTF-8 as a whole becomes one U+FFFD a byte there, valid
//! characters included. Here, as in llama.cpp, the valid characters of the run are kept.
//! transformers' `clean_up_tokenization_spaces` is left out: it changes what the model said.

mod export;
mod folder;
mod gguf;
mod pieces;
mod pre;
mod stream;

use std::borrow::Cow;
use std::path::Path;

use cllm_decode::Token;
use tokenizers::models::bpe::{BPE, Vocab};

use crate::error::ModelError;
pub(crate) use folder::read_json;
pub use gguf::GgufTables;
use pieces::Pieces;
pub use stream::TextStream;

/// Turns text into tokens and tokens into text, as the model's own files say.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    bos: Option<Token>,
    eos: Option<Token>,
    specials: Specials,
}

/// What `add_special` adds.
enum Specials {
    /// What the post-processor of `tokenizer.json` says.
    PostProcessor,
    /// These tokens.
    Around { before: Option<Token>, after: Option<Token> },
}

/// Tokens that end a turn or a text, by the spellings models use; the list llama.cpp goes
/// by, without its fill-in-the-middle tokens, which end no answer.
const END_OF_TURN: [&str; 12] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
];

impl Tokenizer {
    /// Reads `tokenizer.json`, and `tokenizer_config.json` and `special_tokens_map.json`
    /// where they exist, from a model folder.
    pub fn from_folder(dir: &Path) -> Result<Self, ModelError> {
        folder::read(dir)
    }

    /// Rebuilds the tokenizer that a GGUF file describes.
    pub fn from_gguf(tables: &GgufTables<'_>) -> Result<Self, ModelError> {
        gguf::build(tables)
    }

    /// The tokens of a text. Special tokens spelled out in it are recognised, which is what
    /// a rendered chat template needs. `add_special` adds the beginning-of-text token (and
    /// whatever else the files ask for); a rendered template has it already.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<Token>, ModelError> {
        if longest_space(text) > MAX_SPACE {
            return Err(ModelError::Text(format!(
                "the text has more than {MAX_SPACE} white-space characters in a row, which cannot \
                 be tokenized exactly"
            )));
        }
        let post_process = add_special && matches!(self.specials, Specials::PostProcessor);
        let encoding = self
            .inner
            .encode_fast(text, post_process)
            .map_err(|error| ModelError::Text(format!("cannot tokenize the text: {error}")))?;
        match self.specials {
            Specials::Around { before, after } if add_special => Ok(before
                .into_iter()
                .chain(encoding.get_ids().iter().copied())
                .chain(after)
                .collect()),
            _ => Ok(encoding.get_ids().to_vec()),
        }
    }

    /// The text of a sequence of tokens. Bytes that are not UTF-8 become U+FFFD, tokens
    /// outside the vocabulary nothing. `skip_special` leaves special tokens out.
    pub fn decode(&self, tokens: &[Token], skip_special: bool) -> String {
        let mut stream = self.stream();
        if !skip_special {
            stream = stream.with_special();
        }
        let mut text = String::new();
        for &token in tokens {
            text.push_str(stream.push(token));
        }
        text.push_str(stream.finish());
        text
    }

    /// Decodes token by token; all pieces together are `decode(tokens, true)`.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(&self.pieces)
    }

    /// The bytes a token stands for, not always UTF-8 on their own. Empty outside the
    /// vocabulary.
    pub fn token_bytes(&self, token: Token) -> &[u8] {
        self.pieces.bytes(token)
    }

    /// The text of one token on its own, to show it: broken UTF-8 as U+FFFD.
    pub fn token_text(&self, token: Token) -> Cow<'_, str> {
        String::from_utf8_lossy(self.token_bytes(token))
    }

    /// One more than the highest token id. The model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The token with this spelling in the vocabulary, such as `<|im_end|>`.
    pub fn token_id(&self, spelling: &str) -> Option<Token> {
        self.inner.token_to_id(spelling)
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<Token> {
        self.bos
    }

    /// The token that ends a text, if the model names one.
    pub fn eos(&self) -> Option<Token> {
        self.eos
    }

    /// Whether the token is a control token, which `decode` can leave out.
    pub fn is_special(&self, token: Token) -> bool {
        self.pieces.is_special(token)
    }

    /// Tokens that end a turn by their well-known spelling, whether or not the model's
    /// files list them as end-of-text tokens; ascending. Only tokens matched whole in the
    /// text count, so an ordinary word never ends an answer.
    pub fn end_of_turn_tokens(&self) -> Vec<Token> {
        let added = self.inner.get_added_vocabulary().get_vocab();
        let mut tokens: Vec<Token> =
            END_OF_TURN.iter().filter_map(|&spelling| added.get(spelling).copied()).collect();
        tokens.extend(self.eos);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }
}

/// White-space characters in a row that a text may have. `fancy-regex` gives up silently
/// after a million steps back, which such a run takes one each; measured against onig, ids
/// are the same at 600,000 and differ at 1,100,000.
const MAX_SPACE: usize = 500_000;

/// Length of the longest run of white space, in characters, if it can matter.
fn longest_space(text: &str) -> usize {
    if text.len() <= MAX_SPACE {
        return 0;
    }
    let runs = text.split(|c: char| !c.is_whitespace());
    runs.map(|run| run.chars().count()).max().unwrap_or(0)
}

/// The parts of a byte-pair model, from whichever file.
struct BpeParts {
    vocab: Vocab,
    merges: Vec<(String, String)>,
    unk_token: Option<String>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
}

/// The most tokens a vocabulary may have. The largest published ones have about 260,000;
/// ids index tables, so an id out of a file must be bounded before anything is allocated.
const MAX_VOCAB: usize = 1 << 22;

impl BpeParts {
    /// Checks the parts against each other and builds the model. `Err` says what is wrong.
    fn build(self) -> Result<BPE, String> {
        if self.vocab.is_empty() {
            return Err("the vocabulary is empty".into());
        }
        if let Some((token, id)) = self.vocab.iter().find(|(_, id)| **id as usize >= MAX_VOCAB) {
            return Err(format!("token {token:?} has id {id}, expected less than {MAX_VOCAB}"));
        }
        let mut merged = String::new();
        for (rank, (left, right)) in self.merges.iter().enumerate() {
            merged.clear();
            merged.push_str(left);
            merged.push_str(right);
            for part in [left, right, &merged] {
                if !self.vocab.contains_key(part) {
                    return Err(format!(
                        "merge {rank} ({left:?} + {right:?}) names {part:?}, which is not in the \
                         vocabulary"
                    ));
                }
            }
        }
        let mut builder = BPE::builder()
            .vocab_and_merges(self.vocab, self.merges)
            .fuse_unk(self.fuse_unk)
            .byte_fallback(self.byte_fallback)
            .ignore_merges(self.ignore_merges);
        if let Some(unk) = self.unk_token {
            builder = builder.unk_token(unk);
        }
        builder.build().map_err(|error| error.to_string())
    }
}
