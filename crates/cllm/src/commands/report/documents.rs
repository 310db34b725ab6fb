//! The documents that a report takes in, checked for what the page reads of them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::analysis;
use crate::exit::bad_input;

/// Reads the JSON document in a file: the whole of it, or its last line.
pub(super) fn read(path: &Path, check: fn(&Value) -> Result<(), String>) -> anyhow::Result<Value> {
    let text = text(path)?;
    let last = text.trim_end().lines().next_back().unwrap_or_default();
    let name = path.display();
    let Ok(value) = serde_json::from_str(&text).or_else(|_| serde_json::from_str(last)) else {
        bad_input!("{name}: expected a JSON document, or one as the last line, found neither");
    };
    if let Err(what) = check(&value) {
        bad_input!("{name}: {what}");
    }
    Ok(value)
}

fn text(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) => bad_input!("{}: {error}", path.display()),
    }
}

/// The output of `analyze --json`.
pub(super) fn analysis(value: &Value) -> Result<(), String> {
    let (format, version) = (analysis::FORMAT, analysis::VERSION);
    if value["format"] != format || value["version"] != version {
        return Err(format!(
            "expected {format} version {version}, found {} version {}",
            value["format"], value["version"]
        ));
    }
    Ok(())
}

/// The output of `eval`.
pub(super) fn eval(value: &Value) -> Result<(), String> {
    let has = value["task"].is_string()
        && value["settings"].is_object()
        && value["results"]["scores"].is_object()
        && value["results"]["examples"].is_u64();
    if has {
        Ok(())
    } else {
        Err("expected the output of `cllm eval`, found something else".into())
    }
}

/// The output of a benchmark.
pub(super) fn bench(value: &Value) -> Result<(), String> {
    let kinds = ["decoder", "rows", "mean_kl"];
    let known = |result: &Value| kinds.iter().any(|key| result.get(key).is_some());
    let results = value["results"].as_array();
    match results {
        Some(results) if !results.is_empty() && results.iter().all(known) => {}
        _ => return Err("expected the output of `cllm bench`, found something else".into()),
    }
    if value["settings"].is_object() { Ok(()) } else { Err("expected `settings`".into()) }
}

/// The log of a training run: records with their step.
pub(super) fn train_log(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = text(path)?;
    let name = path.display();
    let mut records = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Value>(line) {
            Ok(record) if record["step"].is_u64() => records.push(record),
            Ok(_) => bad_input!("{name}: line {}: expected a record with its `step`", i + 1),
            // A run that goes on may be writing its last line.
            Err(_) if i + 1 == text.lines().count() && !text.ends_with('\n') => {}
            Err(error) => bad_input!("{name}: line {}: not JSON: {error}", i + 1),
        }
    }
    if records.is_empty() {
        bad_input!("{name}: expected the log of a training run, found no record");
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_line_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let document = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path, |_| Ok(())).map_err(|error| error.to_string())
        };
        assert_eq!(document("{\n\"a\": 1}").unwrap(), json!({"a": 1}));
        assert_eq!(document("a table\n\n{\"a\":1}\n").unwrap(), json!({"a": 1}));
        assert!(document("").unwrap_err().contains("found neither"));
    }

    #[test]
    fn documents_of_another_kind_are_refused() {
        let decode = json!({"settings": {}, "results": [{"decoder": "ar"}]});
        let eval_ =
            json!({"task": "gsm8k", "settings": {}, "results": {"scores": {}, "examples": 1}});
        assert!(bench(&decode).is_ok() && bench(&eval_).is_err());
        assert!(eval(&eval_).is_ok() && eval(&decode).is_err());
        let error = analysis(&eval_).unwrap_err();
        assert_eq!(error, "expected cllm-analysis version 1, found null version null");
    }

    #[test]
    fn a_log_has_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let log = |text: &str| {
            fs::write(&path, text).unwrap();
            train_log(&path).map(|records| records.len()).map_err(|error| error.to_string())
        };
        assert_eq!(log("{\"step\":1,\"loss\":2}\n{\"step\":2,\"lo"), Ok(1));
        assert!(log("{\"a\":1}\n").unwrap_err().contains("line 1: expected a record"));
        assert!(log("x\n{\"step\":1}\n").unwrap_err().contains("line 1: not JSON"));
        assert!(log("").unwrap_err().contains("found no record"));
    }
}
