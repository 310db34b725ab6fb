//! Prompts as people write them, and the files they come in.
//!
//! A prompt is raw text or a conversation. A file of prompts has one JSON object a line
//! with exactly one of the keys `prompt`, `messages`, `question`, `prompt_tokens`; other keys are
//! ignored,
//! so data sets with answers beside their questions can be used as they are.

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

/// A file of prompts, the first `limit` of them, each with its line number. An empty file
/// is an error.
pub(crate) fn read_prompts(
    path: &Path,
    limit: Option<usize>,
) -> anyhow::Result<Vec<(usize, Prompt)>> {
    let name = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => bad_input!("{name}: {error}"),
    };
    let mut prompts = Vec::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if limit.is_some_and(|limit| prompts.len() == limit) {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match prompt_in(line) {
            Ok(prompt) => prompts.push((i + 1, prompt)),
            Err(what) => bad_input!("{name}: line {}: {what}", i + 1),
        }
    }
    if prompts.is_empty() {
        bad_input!("{name}: no prompts: expected one JSON object a line");
    }
    Ok(prompts)
}

const KEYS: [&str; 4] = ["prompt", "messages", "question", "prompt_tokens"];

fn prompt_in(line: &[u8]) -> Result<Prompt, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        // Every line is line 1 to the parser; only its column helps.
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default().to_owned();
        format!("not JSON: {what} at column {}", error.column())
    })?;
    let object = value.as_object().ok_or_else(|| expected("an object", &value))?;
    let mut found = KEYS.into_iter().filter_map(|key| Some((key, object.get(key)?)));
    let Some((key, value)) = found.next() else {
        let keys: Vec<_> = object.keys().take(8).map(|key| format!("`{key}`")).collect();
        return Err(format!(
            "expected one of the keys `prompt`, `messages`, `question`, `prompt_tokens`, found {}",
            if keys.is_empty() { "none".into() } else { keys.join(", ") }
        ));
    };
    if let Some((other, _)) = found.next() {
        return Err(format!("both `{key}` and `{other}`: expected one of them"));
    }
    if key == "messages" {
        return messages(value).map(Prompt::Chat).map_err(|what| format!("`messages`: {what}"));
    }
    if key == "prompt_tokens" {
        let tokens = serde_json::from_value(value.clone());
        return tokens.map(Prompt::Tokens).map_err(|error| format!("`prompt_tokens`: {error}"));
    }
    let text = value.as_str().ok_or_else(|| format!("`{key}`: {}", expected("a string", value)))?;
    if text.is_empty() {
        return Err(format!("`{key}` is empty"));
    }
    Ok(match key {
        "prompt" => Prompt::Raw(text.into()),
        _ => Prompt::Chat(vec![Message::new("user", text)]),
    })
}

fn messages(value: &Value) -> Result<Vec<Message>, String> {
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

fn expected(what: &str, found: &Value) -> String {
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
    fn lines_become_prompts() {
        let check = |line: &str, expected: Prompt| {
            assert_eq!(prompt_in(line.as_bytes()), Ok(expected), "{line}");
        };
        check(r#"{"prompt": "Once"}"#, Prompt::Raw("Once".into()));
        check(
            r#"{"question": "2 + 2?", "answer": "4"}"#,
            Prompt::Chat(vec![Message::new("user", "2 + 2?")]),
        );
        check(
            r#"{"id": 1, "messages": [{"role": "system", "content": ""},
                {"role": "user", "content": "hi"}]}"#,
            Prompt::Chat(vec![Message::new("system", ""), Message::new("user", "hi")]),
        );
    }

    #[test]
    fn bad_lines_say_what_was_expected() {
        let check = |line: &str, part: &str| {
            let error = prompt_in(line.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        };
        check("{", "not JSON: EOF while parsing an object at column 1");
        check("[]", "expected an object, found an array");
        check("{}", "`prompt_tokens`, found none");
        check(r#"{"text": "x"}"#, "found `text`");
        check(r#"{"prompt": "x", "question": "y"}"#, "both `prompt` and `question`");
        check(r#"{"prompt": ""}"#, "`prompt` is empty");
        check(r#"{"question": 7}"#, "`question`: expected a string, found a number");
        check(r#"{"messages": []}"#, "no messages");
        check(r#"{"messages": [{"role": "user"}]}"#, "message 1: no `content`");
        check(r#"{"messages": [{"role": null, "content": ""}]}"#, "`role`: expected a string");
        check(r#"{"messages": [{"role": "user", "content": 1}]}"#, "`content`: expected a string");
        check(r#"{"messages": ["hi"]}"#, "message 1: expected an object, found a string");
        check("{\"prompt\": \"\u{1}\"}", "not JSON");
    }

    #[test]
    fn files_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        let read = |content: &[u8], limit| {
            std::fs::write(&path, content).unwrap();
            read_prompts(&path, limit).map_err(|error| error.to_string())
        };
        let good = b"{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\"}\r\nbad\n";
        let lines: Vec<_> = read(good, Some(2)).unwrap().iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3], "the limit counts prompts, not lines");
        assert!(read(good, None).unwrap_err().contains("prompts.jsonl: line 4: not JSON"));
        assert!(read(b"{\"prompt\": \"\xff\"}", None).unwrap_err().contains("line 1: not JSON"));
        assert!(read(b" \n\n", None).unwrap_err().contains("no prompts"));
        assert!(read_prompts(&folder.path().join("missing"), None).is_err());
    }

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
