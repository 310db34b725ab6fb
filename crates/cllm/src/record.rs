//! Files of prompts, in the shapes data sets have, with the answers they come with.
//!
//! | keys | prompt | answer |
//! |---|---|---|
//! | `prompt_tokens` | the tokens, as `cllm prompts` prints them | |
//! | `prompt` | the text as it is | `answer` or `completion`, if there |
//! | `messages` | the conversation up to the last assistant message | that message |
//! | `question`, `query`, `db_id` | schema and question (Spider, needs the tables) | `query` |
//! | `question` | a user message | `answer`, if there |
//! | `instruction` | a user message, with `input` below it if any (alpaca) | `output` |
//! | `turns` | the first turn, a user message (MT-bench) | |
//! | `conversations` | as `messages` (sharegpt: `from`, `value`) | the last `gpt` turn |
//!
//! A file to learn from has one shape: that of its first record. Prompts of GSM8K and Spider are those
//! that `cllm eval` asks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use cllm_model::Message;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};

use crate::exit::bad_input;
use crate::prompt::{self, Prompt, expected};
use crate::task::spider::schema::Schema;
use crate::task::spider::{self, Problem};

type Object = Map<String, Value>;

/// A prompt and the answer the data has for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Where it stands in its file: the line, or of Parquet the record, from 1.
    pub(crate) at: usize,
    /// What the model is asked.
    pub(crate) prompt: Prompt,
    /// The data's own answer.
    pub(crate) answer: Option<String>,
    /// Spider: the question as its judge wants it.
    pub(crate) problem: Option<Problem>,
}

/// The shape of a file's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Tokens,
    Prompt,
    Messages,
    Spider,
    Question,
    Alpaca,
    ShareGpt,
    Turns,
}

impl Shape {
    fn of(object: &Object) -> Result<Self, String> {
        let has = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
        match () {
            () if has("prompt_tokens") => Ok(Self::Tokens),
            () if has("messages") => Ok(Self::Messages),
            () if has("conversations") => Ok(Self::ShareGpt),
            () if has("turns") => Ok(Self::Turns),
            () if has("question") && has("query") && has("db_id") => Ok(Self::Spider),
            () if has("question") => Ok(Self::Question),
            () if has("instruction") => Ok(Self::Alpaca),
            () if has("prompt") => Ok(Self::Prompt),
            () => {
                let keys: Vec<_> = object.keys().take(8).map(|key| format!("`{key}`")).collect();
                Err(format!(
                    "expected one of `prompt`, `messages`, `question`, `instruction`, `turns`, \
                     `conversations` or `prompt_tokens`, found {}",
                    if keys.is_empty() { "no keys".into() } else { keys.join(", ") }
                ))
            }
        }
    }
}

/// What reading records needs to know.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Text with `{field}` in place of fields of the record; the user message.
    pub(crate) template: Option<String>,
    /// The schema of each database.
    pub(crate) schemas: Option<HashMap<String, Schema>>,
}

/// Reads records of one shape: Parquet if the name ends so, else JSON lines. All are checked.
pub(crate) fn read(
    path: &Path,
    limit: Option<usize>,
    reading: &Reading,
) -> anyhow::Result<(Shape, Vec<Record>)> {
    read_with(path, limit, reading, true)
}

/// The same, of any shapes: where nothing is learnt from them, prompts of all kinds may stand
/// together.
pub(crate) fn read_mixed(
    path: &Path,
    limit: Option<usize>,
    reading: &Reading,
) -> anyhow::Result<Vec<Record>> {
    Ok(read_with(path, limit, reading, false)?.1)
}

/// What a file of records consists of.
fn unit(path: &Path) -> &'static str {
    let parquet = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
    if parquet { "record" } else { "line" }
}

/// Where [`Record::at`] is, for a message.
pub(crate) fn place(path: &Path, at: usize) -> String {
    format!("{}: {} {at}", path.display(), unit(path))
}

fn read_with(
    path: &Path,
    limit: Option<usize>,
    reading: &Reading,
    one_shape: bool,
) -> anyhow::Result<(Shape, Vec<Record>)> {
    let name = path.display();
    let limit = limit.unwrap_or(usize::MAX);
    let (unit, objects) = match unit(path) {
        unit @ "record" => (unit, parquet_objects(path, limit)),
        unit => (unit, json_lines(path, limit)),
    };
    let objects = match objects {
        Ok(objects) => objects,
        Err(what) => bad_input!("{name}: {what}"),
    };
    let Some((_, first)) = objects.first() else {
        bad_input!("{name}: no prompts: expected one record a line");
    };
    let shape = match Shape::of(first) {
        Ok(shape) => shape,
        Err(what) => bad_input!("{name}: {unit} {}: {what}", objects[0].0),
    };
    let mut records = Vec::with_capacity(objects.len());
    for (at, object) in &objects {
        let record = Shape::of(object).and_then(|found| {
            if one_shape && found != shape {
                return Err(format!(
                    "mixed schemas: expected {shape:?} as in {unit} {}, found {found:?}",
                    objects[0].0
                ));
            }
            Ok(Record { at: *at, ..reading.record(found, object)? })
        });
        match record {
            Ok(record) => records.push(record),
            Err(what) => bad_input!("{name}: {unit} {at}: {what}"),
        }
    }
    Ok((shape, records))
}

fn json_lines(path: &Path, limit: usize) -> Result<Vec<(usize, Object)>, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let lines = bytes.split(|&b| b == b'\n').enumerate();
    let full = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).take(limit);
    full.map(|(i, line)| match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok((i + 1, object)),
        Ok(other) => Err(format!("line {}: {}", i + 1, expected("an object", &other))),
        Err(error) => {
            // Every line is line 1 to the parser; only its column helps.
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            Err(format!("line {}: not JSON: {what} at column {}", i + 1, error.column()))
        }
    })
    .collect()
}

fn parquet_objects(path: &Path, limit: usize) -> Result<Vec<(usize, Object)>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let failed = |error: parquet::errors::ParquetError| format!("not readable Parquet: {error}");
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    let rows = reader.get_row_iter(None).map_err(failed)?.take(limit);
    rows.enumerate()
        .map(|(i, row)| match row.map_err(failed)?.to_json_value() {
            Value::Object(object) => Ok((i + 1, object)),
            _ => Err(format!("record {}: expected columns with names", i + 1)),
        })
        .collect()
}

/// A field that has to be text.
fn text<'a>(object: &'a Object, key: &str) -> Result<&'a str, String> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("`{key}`: {}", expected("a string", other))),
        None => Err(format!("no `{key}`")),
    }
}

fn optional(object: &Object, key: &str) -> Option<String> {
    object.get(key)?.as_str().map(str::to_owned)
}

/// A prompt on its own.
impl From<Prompt> for Record {
    fn from(prompt: Prompt) -> Self {
        Self { at: 0, prompt, answer: None, problem: None }
    }
}

fn user(text: &str) -> Prompt {
    Prompt::Chat(vec![Message::new("user", text)])
}

impl Reading {
    fn record(&self, shape: Shape, object: &Object) -> Result<Record, String> {
        let mut record: Record = match shape {
            Shape::Tokens => {
                let tokens = serde_json::from_value(object["prompt_tokens"].clone());
                Prompt::Tokens(tokens.map_err(|error| format!("`prompt_tokens`: {error}"))?).into()
            }
            Shape::Prompt => Record {
                answer: optional(object, "answer").or_else(|| optional(object, "completion")),
                ..Prompt::Raw(text(object, "prompt")?.into()).into()
            },
            Shape::Question => Record {
                answer: optional(object, "answer"),
                ..user(text(object, "question")?).into()
            },
            Shape::Alpaca => {
                let (instruction, input) =
                    (text(object, "instruction")?, optional(object, "input"));
                let prompt = match input.filter(|input| !input.trim().is_empty()) {
                    Some(input) => format!("{instruction}\n\n{input}"),
                    None => instruction.into(),
                };
                Record { answer: optional(object, "output"), ..user(&prompt).into() }
            }
            Shape::Spider => {
                let (schemas, db) = (self.schemas.as_ref(), text(object, "db_id")?);
                let schemas = schemas.ok_or("Spider's records need their schemas: --tables")?;
                let schema = schemas
                    .get(db)
                    .ok_or_else(|| format!("`db_id`: no schema of `{db}` in the tables"))?;
                let (question, query) = (text(object, "question")?, text(object, "query")?);
                let (answer, db_id) = (Some(query.to_owned()), db.to_owned());
                let problem = Problem { db_id, question: question.into(), query: query.into() };
                let prompt = user(&spider::prompt(schema, question));
                Record { answer, problem: Some(problem), ..prompt.into() }
            }
            Shape::Turns => {
                let first = object.get("turns").and_then(Value::as_array).and_then(|t| t.first());
                let first = first.and_then(Value::as_str);
                user(first.ok_or("`turns`: expected an array of texts")?).into()
            }
            Shape::Messages => {
                let messages = prompt::messages(&object["messages"]);
                before_answer(messages.map_err(|what| format!("`messages`: {what}"))?, "messages")?
            }
            Shape::ShareGpt => before_answer(sharegpt(object)?, "conversations")?,
        };
        if let Some(template) = &self.template {
            record.prompt = user(&fill(template, object)?);
        }
        match &record.prompt {
            Prompt::Raw(text) if text.is_empty() => Err("`prompt` is empty".into()),
            Prompt::Tokens(tokens) if tokens.is_empty() => Err("`prompt_tokens` is empty".into()),
            _ => Ok(record),
        }
    }
}

/// The messages of sharegpt.
fn sharegpt(object: &Object) -> Result<Vec<Message>, String> {
    let turns = object.get("conversations").and_then(Value::as_array);
    let turns = turns.ok_or("`conversations`: expected an array")?;
    let message = |(i, turn): (usize, &Value)| {
        let at = |what: String| format!("`conversations`: message {}: {what}", i + 1);
        let turn = turn.as_object().ok_or_else(|| at(expected("an object", turn)))?;
        let role = match text(turn, "from").map_err(at)? {
            "human" => "user",
            "gpt" => "assistant",
            other => other,
        };
        Ok(Message::new(role, text(turn, "value").map_err(at)?))
    };
    turns.iter().enumerate().map(message).collect()
}

/// A conversation up to the last assistant message, which is the answer.
fn before_answer(mut messages: Vec<Message>, key: &str) -> Result<Record, String> {
    // What follows the last answer is not answered.
    let last = messages.iter().rposition(|message| message.role() == Some("assistant"));
    let answer = last.and_then(|last| messages[last].get("content")?.as_str().map(str::to_owned));
    messages.truncate(last.unwrap_or(messages.len()));
    if messages.is_empty() {
        return Err(format!("`{key}`: no message to answer"));
    }
    Ok(Record { answer, ..Prompt::Chat(messages).into() })
}

/// Puts fields of the record in place of `{field}`. Other braces stay.
fn fill(template: &str, object: &Object) -> Result<String, String> {
    let (mut out, mut rest, mut used) = (String::new(), template, false);
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let field = rest.find('}').map(|close| (&rest[1..close], close + 1));
        match field.and_then(|(key, end)| Some((object.get(key)?, end))) {
            Some((Value::String(text), end)) => {
                (out, rest, used) = (out + text, &rest[end..], true);
            }
            _ => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    if used { Ok(out) } else { Err("the template names no text field of this record".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str, reading: &Reading) -> Result<Record, String> {
        let object: Object = serde_json::from_str(line).unwrap();
        Shape::of(&object).and_then(|shape| reading.record(shape, &object))
    }

    #[test]
    fn shapes_of_data_sets_become_prompts_and_answers() {
        let schemas = HashMap::from([("shop".to_owned(), spider::schema::tests::shop())]);
        let reading = Reading { schemas: Some(schemas), template: None };
        let check = |line: &str, prompt: Prompt, answer: Option<&str>| {
            let found = one(line, &reading).unwrap();
            assert_eq!((found.prompt, found.answer.as_deref()), (prompt, answer), "{line}");
            assert_eq!(found.problem.is_some(), line.contains("db_id"), "{line}");
        };
        check(r#"{"prompt": "Once"}"#, Prompt::Raw("Once".into()), None);
        check(r#"{"prompt_tokens": [7, 8], "text": "x"}"#, Prompt::Tokens(vec![7, 8]), None);
        check(
            r#"{"id": 1, "messages": [{"role": "system", "content": ""},
                {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}"#,
            Prompt::Chat(vec![Message::new("system", ""), Message::new("user", "hi")]),
            Some("yo"),
        );
        check(r#"{"question": "2 + 2?", "answer": "4"}"#, user("2 + 2?"), Some("4"));
        check(
            r#"{"instruction": "Add.", "input": "1, 2", "output": "3"}"#,
            user("Add.\n\n1, 2"),
            Some("3"),
        );
        check(
            r#"{"question": "How many?", "query": "SELECT 1", "db_id": "shop"}"#,
            user(&spider::prompt(&spider::schema::tests::shop(), "How many?")),
            Some("SELECT 1"),
        );
        check(r#"{"turns": ["One?", "Two?"]}"#, user("One?"), None);
        check(
            r#"{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"},
                {"from": "human", "value": "bye"}]}"#,
            user("hi"),
            Some("yo"),
        );
    }

    #[test]
    fn bad_records_say_what_was_expected() {
        let check = |line: &str, part: &str| {
            let error = one(line, &Reading::default()).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        };
        check("{}", "found no keys");
        check(r#"{"text": "x"}"#, "found `text`");
        check(r#"{"question": 7}"#, "`question`: expected a string, found a number");
        check(r#"{"prompt": ""}"#, "`prompt` is empty");
        check(r#"{"prompt_tokens": []}"#, "`prompt_tokens` is empty");
        check(r#"{"prompt_tokens": [1, -2]}"#, "`prompt_tokens`: invalid value");
        check(r#"{"messages": []}"#, "no messages");
        check(r#"{"messages": [{"role": null, "content": ""}]}"#, "`role`: expected a string");
        check(r#"{"messages": [{"role": "user", "content": 1}]}"#, "`content`: expected a string");
        check(r#"{"messages": ["hi"]}"#, "message 1: expected an object, found a string");
        check(r#"{"conversations": ["hi"]}"#, "message 1: expected an object, found a string");
        check(r#"{"question": "x", "query": "y", "db_id": "z"}"#, "--tables");
        check(r#"{"messages": [{"role": "user"}]}"#, "message 1: no `content`");
        check(r#"{"messages": [{"role": "assistant", "content": ""}]}"#, "no message to answer");
    }

    #[test]
    fn files_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        let read = |content: &[u8], limit| {
            fs::write(&path, content).unwrap();
            super::read(&path, limit, &Reading::default()).map_err(|error| error.to_string())
        };
        assert_eq!(place(Path::new("a/b.jsonl"), 3), "a/b.jsonl: line 3");
        assert_eq!(place(Path::new("b.Parquet"), 3), "b.Parquet: record 3");
        let good = b"{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\"}\r\nbad\n";
        let lines: Vec<_> = read(good, Some(2)).unwrap().1.iter().map(|record| record.at).collect();
        assert_eq!(lines, [1, 3], "the limit counts prompts, not lines");
        let check = |content: &[u8], part: &str| {
            let error = read(content, None).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check(good, "prompts.jsonl: line 4: not JSON: expected value at column 1");
        check(b"{\"prompt\": \"\xff\"}", "line 1: not JSON");
        check(b"{", "line 1: not JSON: EOF while parsing an object at column 1");
        check(b"[]", "line 1: expected an object, found an array");
        check(b" \n\n", "no prompts");
        check(b"{\"prompt\": \"a\"}\n{\"question\": \"b\"}", "line 2: mixed schemas");
        assert!(super::read(&folder.path().join("missing"), None, &Reading::default()).is_err());
        fs::write(&path, b"{\"prompt\": \"a\"}\n{\"question\": \"b\"}").unwrap();
        let mixed = read_mixed(&path, None, &Reading::default()).unwrap();
        assert_eq!((&mixed[0].prompt, &mixed[1].prompt), (&Prompt::Raw("a".into()), &user("b")));
    }

    #[test]
    fn templates_take_fields_and_leave_other_braces() {
        let object: Object = serde_json::from_str(r#"{"question": "a{b}", "n": 1}"#).unwrap();
        assert_eq!(fill("Q: {question} {x} {", &object).as_deref(), Ok("Q: a{b} {x} {"));
        assert!(fill("Q", &object).is_err());
    }
}
