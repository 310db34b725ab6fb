//! From prompts to a page: traces, their analysis and the report, from outside.
//!
//! The model is the tiny random golden, so nothing settles together but by chance; what the
//! page does in a browser is tested in `tests/browser`.

mod common;
#[path = "common/outcome.rs"]
mod outcome;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::chat_model;
use outcome::{bad, good};
use serde_json::Value;

fn cllm(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLLM_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .env("CLLM_HOME", folder.join("no-such-cache"))
        .env("CLLM_THREADS", "1")
        .args(arguments)
        .output()
        .expect("the program runs")
}

#[test]
fn prompts_become_traces_an_analysis_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let model = chat_model(&model);
    let run = |arguments: &[&str]| cllm(folder.path(), arguments);
    fs::write(
        folder.path().join("prompts.jsonl"),
        "{\"question\": \"One?\"}\n{\"question\": \"</script>\"}\n",
    )
    .unwrap();

    let data = ["analyze", "-m", &model, "--data", "prompts.jsonl", "--max-new-tokens", "24"];
    let more = ["--decoder", "jacobi:4", "--variant", "a", "--variant", "b", "--out", "traces"];
    let rest = ["--check", "--probabilities", "--min-count", "1", "--json"];
    let made = good(&run(&[&data[..], &more[..], &rest[..]].concat()));
    let analysis: Value = serde_json::from_str(&made).unwrap();
    assert_eq!((&analysis["format"], &analysis["version"]), (&"cllm-analysis".into(), &1.into()));
    assert_eq!(analysis["baseline"], "a");
    assert_eq!(analysis["models"][1]["name"], "b");
    assert_eq!(analysis["models"][0]["answers"], 2);
    for file in ["a.jsonl", "a-ar.jsonl", "b.jsonl", "b-ar.jsonl"] {
        assert!(folder.path().join("traces").join(file).exists(), "{file}");
    }
    assert_eq!(fs::read_dir(folder.path().join("traces")).unwrap().count(), 4);

    // The same counts from the traces alone.
    let traces = ["analyze", "--trace", "a=traces/a.jsonl", "--trace", "b=traces/b.jsonl"];
    let again = good(&run(&[&traces[..], &["--json", "--min-count", "1"]].concat()));
    assert_eq!(again, made);
    let text = good(&run(&traces));
    assert!(text.contains("fast-forwarded"), "{text}");
    fs::write(folder.path().join("analysis.json"), &made).unwrap();
    fs::write(folder.path().join("log.jsonl"), "{\"step\":1,\"loss\":2.5}\n").unwrap();

    let page = folder.path().join("page.html");
    let inputs = ["--trace", "ar=traces/a-ar.jsonl", "a=traces/a.jsonl", "--analyze"];
    let rest = ["analysis.json", "--train-log", "log.jsonl", "--out", "page.html"];
    let printed = good(&run(&[&["report"], &inputs[..], &rest[..]].concat()));
    assert_eq!(printed, "page.html\n");
    let html = fs::read_to_string(page).unwrap();
    let data = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["traces"][1]["name"], "a");
    assert_eq!(data["traces"][1]["answers"].as_array().unwrap().len(), 2);
    let acceptance = |analysis: &Value| analysis["models"][0]["acceptance"].clone();
    assert_eq!(acceptance(&data["analyses"][0]["document"]), acceptance(&analysis));
    assert_eq!(data["trainings"][0]["records"][0]["loss"], 2.5);
    let forward = &data["traces"][1]["answers"][0]["forwards"][1];
    let outputs = forward["output"].as_array().unwrap().len();
    assert_eq!(forward["probabilities"].as_array().unwrap().len(), outputs);

    bad(&run(&["report", "--out", "x.html"]), "nothing to report");
    bad(&run(&["report", "--out", "x.html", "--eval", "log.jsonl"]), "the output of `cllm eval`");
    bad(
        &run(&["report", "--out", "x.html", "--trace", "log.jsonl"]),
        "log.jsonl: line 1: not a line",
    );
    bad(&run(&["report", "--out", "x.html", "--trace", "no.jsonl"]), "no.jsonl: ");
    bad(&run(&["analyze"]), "--trace");
    bad(
        &run(&["analyze", "--trace", "a=traces/a.jsonl", "--baseline", "x"]),
        "expected one of `a`",
    );
    assert!(!folder.path().join("x.html").exists());
}

#[test]
fn watching_without_a_terminal_prints_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model(folder.path());
    let ask = ["generate", "-m", &model, "-p", "One?", "--max-new-tokens", "8"];
    let plain = good(&cllm(folder.path(), &ask));
    let watched = cllm(folder.path(), &[&ask[..], &["--watch"]].concat());
    assert_eq!(good(&watched), plain);
    assert!(String::from_utf8_lossy(&watched.stderr).contains("--watch needs a terminal"));
}
