//! Prompts as people write them: raw text or a conversation. Files of many are
//! [`crate::record`]'s.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use cllm_decode::Token;
use cllm_model::Message;
use serde_json::Value;

use crate::exit::bad_input;

/// What a model is asked to continue or to answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Prompt {
    /// Text to continue, as it is.
    Raw(String),
    /// Tokens to continue, as `cllm prompts` prints them.
    Tokens(Vec<Token>),
    /// A conversation to answer, through the model's chat template.
    Chat(Vec<Message>),
}

/// The file, or standard input for `-`, as text. One newline at its end is dropped: shells
/// and editors put it there.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    let (name, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("standard input")?;
        ("standard input".to_owned(), bytes)
    } else {
        let name = path.display().to_string();
        match fs::read(path) {
            Ok(bytes) => (name, bytes),
            Err(error) => bad_input!("{name}: {error}"),
        }
    };
    match String::from_utf8(bytes) {
        Ok(mut text) => {
            if text.ends_with('\n') {
                text.pop();
                if text.ends_with('\r') {
                    text.pop();
                }
            }
            Ok(text)
        }
        Err(error) => bad_input!(
            "{name}: not UTF-8 text: invalid byte at offset {}",
            error.utf8_error().valid_up_to()
        ),
    }
}

/// A file that holds one conversation: a JSON array of messages.
pub(crate) fn read_messages(path: &Path) -> anyhow::Result<Vec<Message>> {
    let text = read_text(path)?;
    let messages = serde_json::from_str(&text)
        .map_err(|error| format!("not JSON: {error}"))
        .and_then(|value| messages(&value));
    match messages {
        Ok(messages) => Ok(messages),
        Err(what) => bad_input!("{}: {what}", path.display()),
    }
}

/// A conversation, checked.
pub(crate) fn messages(value: &Value) -> Result<Vec<Message>, String> {
    let array = value.as_array().ok_or_else(|| expected("an array of messages", value))?;
    if array.is_empty() {
        return Err("no messages: expected at least one".into());
    }
    let message = |(i, value): (usize, &Value)| {
        check_message(value).map_err(|what| format!("message {}: {what}", i + 1))?;
        serde_json::from_value(value.clone()).map_err(|error| error.to_string())
    };
    array.iter().enumerate().map(message).collect()
}

/// What every template relies on. Other fields (`tool_calls`, `name` ...) are passed on.
fn check_message(value: &Value) -> Result<(), String> {
    let object = value.as_object().ok_or_else(|| expected("an object", value))?;
    match object.get("role") {
        Some(Value::String(_)) => {}
        Some(other) => return Err(format!("`role`: {}", expected("a string", other))),
        None => return Err("no `role`".into()),
    }
    match object.get("content") {
        Some(Value::String(_) | Value::Array(_)) => Ok(()),
        Some(Value::Null) | None if object.contains_key("tool_calls") => Ok(()),
        Some(other) => Err(format!("`content`: {}", expected("a string", other))),
        None => Err("no `content`".into()),
    }
}

/// What was expected, and what a value is.
pub(crate) fn expected(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    format!("expected {what}, found {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_files_lose_one_newline_and_must_be_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompt.txt");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read_text(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"one\ntwo\n\n").as_deref(), Ok("one\ntwo\n"));
        assert_eq!(read(b"one\r\n").as_deref(), Ok("one"));
        assert!(read(b"ab\xffcd").unwrap_err().contains("invalid byte at offset 2"));
        std::fs::write(&path, r#"[{"role": "user", "content": "hi"}]"#).unwrap();
        assert_eq!(read_messages(&path).unwrap(), [Message::new("user", "hi")]);
        std::fs::write(&path, "{}").unwrap();
        assert!(read_messages(&path).unwrap_err().to_string().contains("an array of messages"));
    }
}
