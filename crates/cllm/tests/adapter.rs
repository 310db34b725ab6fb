//! Adapters from outside: `--adapter`, `inspect DIR`, `merge`, `extract`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const BASE: &str = "goldens/models/llama-f32";
const OTHER: &str = "goldens/models/llama-head-dim-f32";
const ADAPTER: &str = "goldens/adapters/all-linear";

/// Runs the program in the repository's root, without the caller's settings.
fn cllm(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLLM_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("CLLM_HOME", "target/no-such-cache")
        .env("CLLM_THREADS", "1")
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// The JSON document that a command prints.
#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let output = cllm(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

#[track_caller]
fn bad(arguments: &[&str], part: &str) {
    let output = cllm(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(part), "{part:?} in {stderr}");
}

fn answer(more: &[&str]) -> Value {
    let arguments = ["generate", "-p", "one", "--max-new-tokens", "16", "--compute", "f32"];
    json(&[&arguments, more, &["--json"]].concat())
}

#[test]
fn merged_models_answer_as_adapted_ones() {
    let adapted = answer(&["-m", BASE, "--adapter", ADAPTER]);
    assert_eq!(adapted["model"], format!("{BASE} + {ADAPTER}"));
    assert_ne!(answer(&["-m", BASE])["tokens"], adapted["tokens"]);
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [("merged", "hf"), ("merged.gguf", "gguf")] {
        let out = folder.path().join(name);
        let out = out.to_str().unwrap();
        let merge = ["merge", "-m", BASE, "--adapter", ADAPTER, "--out", out, "--type", "f32"];
        assert_eq!(json(&[&merge[..], &["--json"]].concat())["format"], format);
        assert_eq!(answer(&["-m", out])["tokens"], adapted["tokens"], "{name}");
        bad(&merge, "exists already");
    }
}

#[test]
fn a_mean_of_adapters_is_an_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mean");
    let out = out.to_str().unwrap();
    let two = ["merge", "--format", "peft", "--adapter", ADAPTER, "--adapter", ADAPTER];
    let merge = [&two[..], &["--type", "f32", "--out", out]].concat();
    bad(&merge, "one for each of 2 adapters, found 0");
    bad(&[&merge[..], &["--weights", "0.5,0.6"]].concat(), "expected a sum of 1, found 1.1");
    let report = json(&[&merge[..], &["--weights", "0.25,0.75", "--json"]].concat());
    assert_eq!(report["format"], "peft");
    let answered = |adapter| answer(&["-m", BASE, "--adapter", adapter])["tokens"].clone();
    assert_eq!(answered(out), answered(ADAPTER));
    let merged = ["merge", "-m", BASE, "--adapter", ADAPTER, "--out", "target/never"];
    bad(&[&merged[..], &["--weights", "1"]].concat(), "only with --format peft");
    let eight = ["merge", "--format", "peft", "--adapter", ADAPTER, "--out", "target/never"];
    bad(&[&eight[..], &["--type", "q8_0"]].concat(), "only a GGUF file can hold it");
}

#[test]
fn a_difference_of_models_is_an_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (trained, out) = (path("trained"), path("difference"));
    json(&["merge", "-m", BASE, "--adapter", ADAPTER, "-o", &trained, "--type", "f32", "--json"]);
    // The adapter that was merged has rank 4.
    let extract = ["extract", "-m", BASE, "--trained", &trained, "--type", "f32", "--lora-r"];
    let report = json(&[&extract[..], &["4", "--out", &out, "--json"]].concat());
    assert!(report["kept"].as_f64().unwrap() > 0.9999, "{report}");
    assert_eq!(report["left_out"], serde_json::json!([]));
    let answered = |adapter| answer(&["-m", BASE, "--adapter", adapter])["tokens"].clone();
    assert_eq!(answered(&out), answered(ADAPTER));
    let low = json(&[&extract[..], &["1", "--out", &path("low"), "--json"]].concat());
    let kept = low["kept"].as_f64().unwrap();
    assert!(kept > 0.1 && kept < 0.9, "{low}");

    bad(&[&extract[..], &["4", "--out", &out]].concat(), "exists already");
    let never = ["--out", "target/never"];
    bad(&[&extract[..], &["0"], &never].concat(), "--lora-r");
    let eight = ["extract", "-m", BASE, "--trained", &trained, "--type", "q8_0"];
    bad(&[&eight[..], &never].concat(), "only a GGUF file can hold it");
    // With the adapter there is nothing left to extract.
    let after = ["--adapter", ADAPTER];
    let none = cllm(&[&extract[..], &["4"], &after, &never].concat());
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no difference"));
    let other = ["extract", "-m", BASE, "--trained", OTHER];
    bad(&[&other[..], &never].concat(), "as in the base model");
}

#[test]
fn inspect_shows_adapters() {
    let alone = json(&["inspect", ADAPTER, "--json"]);
    assert_eq!((&alone["r"], &alone["modules"]), (&4.into(), &14.into()));
    assert_eq!(alone["kinds"].as_array().map(Vec::len), Some(7));
    let with = json(&["inspect", "-m", BASE, "--adapter", ADAPTER, "--json"]);
    assert_eq!(with["adapters"][0]["parameters"], alone["parameters"]);
    assert_eq!(with["memory"]["compute"], "w8");
    assert_eq!(json(&["inspect", "-m", BASE, "--json"])["memory"]["compute"], "f32");
}

#[test]
fn adapters_that_do_not_fit_are_bad_input() {
    let other = "goldens/adapters/patterns";
    bad(&["generate", "-m", BASE, "-p", "x", "--adapter", other], "the network has shape");
    bad(&["generate", "-m", BASE, "-p", "x", "--adapter", BASE], "expected a folder saved by PEFT");
    bad(&["inspect", "-m", BASE, "--adapter", "no/such/folder"], "no/such/folder");
    let out = ["merge", "-m", BASE, "--out", "target/never", "--type", "q8_0"];
    bad(&out, "only a GGUF file can hold it");
}
