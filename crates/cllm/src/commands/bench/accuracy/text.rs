//! The texts to score: JSON lines with `text`, or `question` and `answer`.
//!
//! A question goes through the model's chat template and the answer follows its tokens, as
//! if the model had said it; only the answer is scored, since only there the model decodes.
//! All of a `text` is scored but its first token, which nothing predicts.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use cllm_decode::{CausalLm, Token};
use cllm_model::Message;
use serde::Deserialize;

use crate::exit::bad_input;
use crate::prompt::Prompt;
use crate::session::Session;

/// Tokens, and the rows among them whose next token is scored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) tokens: Vec<Token>,
    pub(super) scored: Range<usize>,
}

#[derive(Deserialize)]
struct Line {
    text: Option<String>,
    question: Option<String>,
    answer: Option<String>,
}

/// Reads texts until `positions` rows are scored or the file ends. A text longer than the
/// context is cut.
pub(super) fn read(path: &Path, session: &Session, positions: usize) -> anyhow::Result<Vec<Text>> {
    let name = path.display();
    let content = match fs::read_to_string(path) {
        Ok(content) => content,
        Err(error) => bad_input!("{name}: {error}"),
    };
    let context = session.model.lm.context_length();
    let (mut texts, mut left) = (Vec::new(), positions);
    for (i, line) in content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if left == 0 {
            break;
        }
        let at = || format!("{name}: line {}", i + 1);
        let line: Line = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => bad_input!("{}: expected a JSON object: {error}", at()),
        };
        let mut text = match (line.text, line.question, line.answer) {
            (Some(text), None, None) => plain(session, text),
            (None, Some(question), Some(answer)) => dialogue(session, &question, &answer),
            _ => bad_input!("{}: expected either `text`, or `question` and `answer`", at()),
        }
        .with_context(at)?;
        // The last row needs no forward: no token follows it.
        text.tokens.truncate(context);
        text.scored.end = text.scored.end.min(text.tokens.len().saturating_sub(1));
        text.scored.end = text.scored.end.min(text.scored.start.saturating_add(left));
        left -= text.scored.len();
        if !text.scored.is_empty() {
            texts.push(text);
        }
    }
    if texts.is_empty() {
        bad_input!("{name}: nothing to score: expected a text of at least two tokens");
    }
    Ok(texts)
}

fn plain(session: &Session, text: String) -> anyhow::Result<Text> {
    let tokens = session.encode(&Prompt::Raw(text))?;
    Ok(Text { scored: 0..tokens.len() - 1, tokens })
}

fn dialogue(session: &Session, question: &str, answer: &str) -> anyhow::Result<Text> {
    let mut tokens = session.encode(&Prompt::Chat(vec![Message::new("user", question)]))?;
    let first = tokens.len() - 1;
    tokens.extend(session.model.tokenizer.encode(answer, false)?);
    Ok(Text { scored: first..tokens.len() - 1, tokens })
}
