//! `cllm eval` from outside, on a tiny random model and data of our own: its answers are
//! nonsense, the shape of what it writes is not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A golden model with a chat template, in `folder`.
fn model(folder: &Path) -> String {
    let folder = folder.join("model");
    std::fs::create_dir_all(&folder).expect("created");
    for entry in std::fs::read_dir(root().join("goldens/models/llama-f32")).expect("a folder") {
        let entry = entry.expect("an entry");
        // Copied once: a later run must find the same files.
        if !folder.join(entry.file_name()).exists() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
        }
    }
    let template = folder.join("chat_template.jinja");
    if !template.exists() {
        std::fs::write(template, "{% for m in messages %}{{ m.content }}{% endfor %}:")
            .expect("written");
    }
    folder.to_str().expect("UTF-8").to_owned()
}

fn cllm(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLLM_") {
            command.env_remove(name);
        }
    }
    let command = command.current_dir(root()).env("CLLM_THREADS", "1").args(arguments);
    command.args(["-m", &model(folder), "--max-new-tokens", "12"]);
    command.output().expect("the program runs")
}

fn document(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().last().expect("a last line")).expect("JSON")
}

const TABLES: &str = r#"[{"db_id": "shop", "table_names_original": ["customer"],
    "column_names_original": [[-1, "*"], [0, "id"], [0, "name"]],
    "column_types": ["text", "number", "text"], "primary_keys": [1], "foreign_keys": []}]"#;

#[test]
fn gsm8k_reports_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (data, out) = (file("data.jsonl"), file("out.jsonl"));
    let lines = ["1 + 1?", "2 + 2?", "3 + 3?"];
    let lines = lines.map(|q| format!("{{\"question\": \"{q}\", \"answer\": \"#### 4\"}}\n"));
    std::fs::write(&data, lines.concat()).unwrap();
    let arguments = |limit| {
        [
            "eval", "gsm8k", "--data", &data, "--out", &out, "-d", "jacobi:4", "--check",
            "--limit", limit,
        ]
    };
    let report = document(&cllm(folder.path(), &arguments("2")));
    assert_eq!(report["results"]["examples"], 2);
    assert_eq!(report["results"]["exact"], 1.0);
    assert!(report["results"]["scores"]["answer"].is_number());
    assert!(report["results"]["mean_acceptance_length"].as_f64() >= Some(1.0));
    let report = document(&cllm(folder.path(), &arguments("3")));
    assert_eq!(
        (&report["results"]["examples"], &report["settings"]["resumed"]),
        (&3.into(), &2.into())
    );
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 4);
    let other = cllm(folder.path(), &["eval", "gsm8k", "--data", &data, "--out", &out]);
    assert_eq!(other.status.code(), Some(2));
    std::fs::write(&data, "{\"question\": \"?\", \"answer\": \"4\"}").unwrap();
    assert_eq!(cllm(folder.path(), &["eval", "gsm8k", "--data", &data]).status.code(), Some(2));
}

#[test]
fn spider_says_which_databases_it_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (data, tables) = (file("data.jsonl"), file("tables.json"));
    let line = r#"{"db_id": "shop", "question": "Who?", "query": "SELECT name FROM customer"}"#;
    std::fs::write(&data, line).unwrap();
    std::fs::write(&tables, TABLES).unwrap();
    let report =
        document(&cllm(folder.path(), &["eval", "spider", "--data", &data, "--tables", &tables]));
    assert_eq!(report["details"]["questions_on_generated_databases"], 1);
    assert_eq!(report["results"]["scores"]["execution"], 0.0);
    assert_eq!(report["results"]["exact"], Value::Null);
    std::fs::write(&data, line.replace("shop", "other")).unwrap();
    let unknown = cllm(folder.path(), &["eval", "spider", "--data", &data, "--tables", &tables]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no database `other`"));
}
