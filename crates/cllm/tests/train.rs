//! `cllm sft` and `cllm train` from outside: what is said about input that cannot be used.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn cllm(arguments: &[&str]) -> Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLLM_") {
            command.env_remove(name);
        }
    }
    command.current_dir(root).args(arguments).output().expect("the program starts")
}

#[track_caller]
fn bad(arguments: &[&str], part: &str) {
    let output = cllm(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(part), "{part:?} in {stderr}");
    assert!(output.stdout.is_empty());
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the file is written");
    path.to_str().expect("a name").to_owned()
}

const MODEL: [&str; 4] = ["-m", "goldens/models/llama-f32", "--threads", "1"];

#[test]
fn settings_are_checked_before_the_model_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = file(folder.path(), "data.jsonl", "{\"prompt\": \"a\", \"answer\": \"b\"}\n");
    let sft = |more: &[&str], part: &str| {
        bad(&[&["sft", "-m", "nowhere.gguf", "--data", &data], more].concat(), part);
    };
    sft(&[], "no output folder");
    sft(&["--output-dir", "x", "--learning-rate", "0"], "`learning_rate`: expected more than 0");
    sft(&["--output-dir", "x", "--lr-scheduler-type", "sine"], "unknown variant `sine`");
    let yaml = file(folder.path(), "run.yaml", "output_dir: x\nwarmup_ration: 0.1\n");
    sft(
        &["--config", &yaml],
        "run.yaml: `warmup_ration`: unknown key; did you mean `warmup_ratio`?",
    );
    sft(&["--config", "missing.yaml"], "missing.yaml");
    sft(&["--output-dir", "x", "--ar-weight", "0"], "expected one weight above 0");
}

#[test]
fn data_without_use_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let out = out.to_str().expect("a name");
    let sft = |text: &str, more: &[&str], part: &str| {
        let data = file(folder.path(), "data.jsonl", text);
        let fixed = ["sft", "--data", &data, "--output-dir", out];
        bad(&[&fixed[..], &MODEL, more].concat(), part);
    };
    let good = "{\"prompt\": \"a\", \"answer\": \"b\"}\n";
    sft("", &[], "data.jsonl: no prompts");
    sft(&format!("{good}{{\"prompt\": \"a\"}}"), &[], "record 2: no answer");
    sft(&format!("{good}{{\"question\": \"a\"}}"), &[], "mixed schemas");
    sft(good, &["--eval-holdout", "1"], "--eval-holdout 1: expected less than the 1 examples");
    sft(good, &["--max-length", "2"], "every training example has more than 2 tokens");
}

#[test]
fn trajectories_of_another_model_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = file(folder.path(), "data.jsonl", "{\"prompt\": \"a\", \"answer\": \"b c d\"}\n");
    let trajectories = folder.path().join("trajectories");
    let trajectories = trajectories.to_str().expect("a name");
    let fixed = ["collect", "--data", &data, "--out", trajectories, "--use-answers"];
    let output = cllm(&[&fixed[..], &MODEL].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let train = ["train", "--trajectories", trajectories, "--output-dir", "x", "-m"];
    bad(&[&train[..], &["goldens/models/qwen2-f32"]].concat(), "trajectories of another");
    bad(&["train", "--trajectories", "missing", "--output-dir", "x"], "missing");
}
