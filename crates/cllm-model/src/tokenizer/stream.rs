//! Text as it comes, token by token, without ever cutting a character in two.
//!
//! A character may be spread over several tokens. The bytes of an unfinished one are kept
//! back until it is complete, until a byte shows that it never will be, or until the end.
//! Broken UTF-8 turns into U+FFFD by the rule of the Unicode standard (one for each
//! maximal prefix of a character), the rule of [`String::from_utf8_lossy`].

use cllm_decode::Token;

use super::pieces::{Pieces, Spelling};

/// Decodes a sequence of tokens piece by piece.
pub struct TextStream<'a> {
    pieces: &'a Pieces,
    keep_special: bool,
    strip_space: bool,
    /// The beginning of a character: at most three bytes between calls.
    pending: Vec<u8>,
    text: String,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(pieces: &'a Pieces) -> Self {
        let strip_space =
            matches!(pieces.spelling, Spelling::SentencePiece { strip_first_space: true });
        Self { pieces, keep_special: false, strip_space, pending: Vec::new(), text: String::new() }
    }

    /// Shows special tokens too.
    pub fn with_special(mut self) -> Self {
        self.keep_special = true;
        self
    }

    /// For tokens that continue a text: a SentencePiece vocabulary's first space is then
    /// part of the text and stays.
    pub fn continuing(mut self) -> Self {
        self.strip_space = false;
        self
    }

    /// Adds a token and returns the text that it completes, often empty or several
    /// characters.
    pub fn push(&mut self, token: Token) -> &str {
        self.text.clear();
        if self.keep_special || !self.pieces.is_special(token) {
            let mut bytes = self.pieces.bytes(token);
            if self.strip_space && !bytes.is_empty() {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
                self.strip_space = false;
            }
            self.pending.extend_from_slice(bytes);
            self.complete();
        }
        &self.text
    }

    /// Ends the text: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }

    /// Moves everything but an unfinished character from `pending` to `text`.
    fn complete(&mut self) {
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(length) => {
                            self.text.push(char::REPLACEMENT_CHARACTER);
                            rest = &broken[length..];
                        }
                        None => {
                            rest = broken;
                            break;
                        }
                    }
                }
            }
        }
        let kept = rest.len();
        self.pending.drain(..self.pending.len() - kept);
    }
}
