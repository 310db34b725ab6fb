//! From the tokens of an answer to the text that is shown.
//!
//! Text appears as soon as it cannot change: bytes of an unfinished character are held
//! back, and so is what could be the beginning of a stop string. A stop string ends the
//! answer and is never shown.

use cllm_decode::Token;
use cllm_model::{ModelError, StopStrings, TextStream, Tokenizer};

/// The text of an answer while it grows.
pub(crate) struct AnswerText<'a> {
    stream: TextStream<'a>,
    stop: StopStrings,
    text: String,
}

impl<'a> AnswerText<'a> {
    /// An empty answer that ends before any of the strings `stop`, none of them empty.
    pub(crate) fn new(tokenizer: &'a Tokenizer, stop: &[String]) -> Result<Self, ModelError> {
        let stop = StopStrings::new(stop.iter().map(String::as_str))?;
        Ok(Self { stream: tokenizer.stream().continuing(), stop, text: String::new() })
    }

    /// Adds a token and returns the text it releases, often none.
    pub(crate) fn push(&mut self, token: Token) -> &str {
        let from = self.text.len();
        let piece = self.stop.push(self.stream.push(token));
        self.text.push_str(&piece);
        &self.text[from..]
    }

    /// Whether a stop string has come.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.hit().is_some()
    }

    /// Ends the answer and returns what was held back in vain.
    pub(crate) fn finish(&mut self) -> &str {
        let from = self.text.len();
        let piece = self.stop.push(self.stream.finish());
        self.text.push_str(&piece);
        let rest = self.stop.finish();
        self.text.push_str(&rest);
        &self.text[from..]
    }

    /// All text there was.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}
