//! `cllm collect` from outside: the same bytes however a run is split, stopped and resumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn collect(data: &Path, arguments: &[&str]) -> Output {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLLM_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(root)
        .args(["collect", "-m", "goldens/models/llama-f32", "--threads", "1"])
        .args(["--block", "5", "--part-size", "3", "--max-new-tokens", "30", "--data"])
        .arg(data)
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[track_caller]
fn good(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().last().expect("a document")).expect("JSON")
}

#[track_caller]
fn bad(output: &Output, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(part), "{part:?} in {stderr}");
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries
        .map(|entry| {
            let entry = entry.expect("readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("readable"))
        })
        .collect()
}

#[test]
fn shards_and_resumed_runs_end_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    let line = |i: usize| {
        format!("{{\"prompt\": \"item {i}:\", \"answer\": \"a{i} b{} c and d\"}}\n", i * 7)
    };
    std::fs::write(&data, (0..8).map(line).collect::<String>()).unwrap();
    let out = |name: &str| folder.path().join(name);
    let run = |name: &str, more: &[&str]| {
        let out = out(name);
        let given = ["--use-answers", "--augment", "--out", out.to_str().unwrap()];
        collect(&data, &[&given, more].concat())
    };

    let manifest = good(&run("whole", &[]));
    assert_eq!(manifest["complete"], true);
    assert_eq!(manifest["counts"]["prompts"], 8);
    assert_eq!(manifest["counts"]["kept"], 8, "{manifest}");
    let whole = files(&out("whole"));
    assert_eq!(whole.len(), 4, "three parts and the manifest");

    let first = good(&run("shards", &["--num-shards", "2", "--shard", "1"]));
    assert_eq!(first["complete"], false);
    good(&run("shards", &["--num-shards", "2", "--rows-per-forward", "7"]));
    assert_eq!(files(&out("shards")), whole);

    std::fs::remove_file(out("shards").join("part-00001.parquet")).unwrap();
    std::fs::remove_file(out("shards").join("manifest.json")).unwrap();
    good(&run("shards", &["--prompts-in-flight", "1"]));
    assert_eq!(files(&out("shards")), whole);

    bad(&run("whole", &["--seed", "1"]), "`seed`: expected 1, found 0");
    bad(&run("whole", &["--shard", "1"]), "expected less than --num-shards 1");
}

#[test]
fn both_ways_agree_and_bad_data_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    std::fs::write(&data, "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n").unwrap();
    assert_eq!(good(&collect(&data, &["--compare-naive", "2"]))["identical"], 1.0);
    let out = folder.path().join("out");
    let out = ["--out", out.to_str().unwrap()];
    bad(&collect(&data, &[&out[..], &["--use-answers"]].concat()), "record 1: no answer");
    let manifest = good(&collect(&data, &out));
    let dropped = manifest["counts"]["dropped"].as_object().unwrap();
    let dropped: u64 = dropped.values().filter_map(Value::as_u64).sum();
    assert_eq!(manifest["counts"]["kept"].as_u64().unwrap() + dropped, 2);

    std::fs::write(&data, "{\"prompt\": \"one\"}\n{\"question\": \"two\"}\n").unwrap();
    bad(&collect(&data, &out), "line 2: mixed schemas");
    std::fs::write(&data, "\n").unwrap();
    bad(&collect(&data, &out), "no prompts");
}
