//! `cllm collect` from outside: the same bytes however a run is split, stopped and resumed.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use common::{GOLDEN, chat_model};
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

fn command(model: &str, data: &Path, arguments: &[&str]) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLLM_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(root)
        .args(["collect", "-m", model, "--threads", "1"])
        .args(["--block", "5", "--part-size", "3", "--max-new-tokens", "30", "--data"])
        .arg(data)
        .args(arguments);
    command
}

fn collect(data: &Path, arguments: &[&str]) -> Output {
    command(GOLDEN, data, arguments).output().expect("the program starts")
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

/// Windows are the states of the decoder, in the same files.
#[test]
fn windows_are_collected_and_some_flags_exclude_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    let line = |i: usize| format!("{{\"prompt\": \"count {i}\", \"answer\": \"{i}\"}}\n");
    std::fs::write(&data, (0..9).map(line).collect::<String>()).unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let run = |name: &str, more: &[&str]| {
        collect(&data, &[&["--states", "window", "--out", &out(name)], more].concat())
    };
    let manifest = good(&run("wide", &[]));
    good(&run("narrow", &["--prompts-in-flight", "1", "--rows-per-forward", "3"]));
    assert_eq!(files(Path::new(&out("wide"))), files(Path::new(&out("narrow"))));
    let counts = &manifest["counts"];
    assert_eq!(counts["prompts"], 9);
    assert!(counts["forwards"].as_u64() >= counts["blocks"].as_u64(), "{manifest}");
    bad(&run("other", &["--use-answers"]), "--use-answers: expected --states blocks");
    bad(&run("other", &["--augment"]), "--augment: expected --states blocks");
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
    std::fs::write(&data, "{\"prompt\": \"one\", \"answer\": \"1\"}\n").unwrap();
    let keep = ["--keep", "correct"];
    bad(&collect(&data, &[&out[..], &keep].concat()), "expected records with a check");
    let database = ["--database", folder.path().to_str().unwrap()];
    let part = "--database: expected --keep correct";
    bad(&collect(&data, &[&out[..], &database].concat()), part);
    std::fs::write(&data, "\n").unwrap();
    bad(&collect(&data, &out), "no prompts");
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    let line = |i: usize| {
        format!("{{\"prompt\": \"say {i} {}:\", \"answer\": \"{} b c and d\"}}\n", i * 31, i * 7)
    };
    std::fs::write(&data, (0..150).map(line).collect::<String>()).unwrap();
    let out = |name: &str| folder.path().join(name);
    let run = |name: &str| {
        let arguments =
            ["--out", out(name).to_str().unwrap(), "--prompts-in-flight", "2"].map(str::to_owned);
        command(GOLDEN, &data, &arguments.each_ref().map(String::as_str))
    };
    good(&run("whole").output().unwrap());
    let whole = files(&out("whole"));
    assert_eq!(whole.len(), 51);

    let mut child = run("killed").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let parts = || {
        let entries = std::fs::read_dir(out("killed")).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().ends_with(".parquet")).count()
    };
    while parts() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!((2..50).contains(&parts()), "killed in the middle: {} parts", parts());
    good(&run("killed").output().unwrap());
    let killed = files(&out("killed"));
    assert_eq!(killed.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    assert!(killed == whole, "other bytes");
}

#[test]
fn one_conversation_in_every_shape_gives_the_same_trajectories() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let model = chat_model(&model);
    // The rows of a run's only part; its metadata has the hash of the data.
    let rows = |file: &str, more: &[&str]| -> Vec<Value> {
        let data = folder.path().join(file);
        let out = folder.path().join(format!("{file}.out"));
        let given = ["--use-answers", "--out", out.to_str().unwrap()];
        let output = command(&model, &data, &[&given, more].concat()).output().unwrap();
        assert_eq!(good(&output)["counts"]["kept"], 2, "{file}");
        let part = File::open(out.join("part-00000.parquet")).unwrap();
        let part = SerializedFileReader::new(part).unwrap();
        let rows = part.get_row_iter(None).unwrap();
        rows.map(|row| row.unwrap().to_json_value()).collect()
    };
    let texts = [("Why?", "a b c d e f g"), ("How many?", "h i j k l m n o p")];
    let write = |name: &str, line: &dyn Fn(&str, &str) -> Value| {
        let lines = texts.map(|(ask, say)| format!("{}\n", line(ask, say)));
        std::fs::write(folder.path().join(name), lines.concat()).unwrap();
    };
    write("question.jsonl", &|ask, say| serde_json::json!({"question": ask, "answer": say}));
    write("messages.jsonl", &|ask, say| {
        let turns = [("user", ask), ("assistant", say)];
        let turns = turns.map(|(role, text)| serde_json::json!({"role": role, "content": text}));
        serde_json::json!({ "messages": turns })
    });
    write("sharegpt.jsonl", &|ask, say| {
        let turns = [("human", ask), ("gpt", say)];
        let turns = turns.map(|(from, text)| serde_json::json!({"from": from, "value": text}));
        serde_json::json!({ "conversations": turns })
    });
    write(
        "alpaca.jsonl",
        &|ask, say| serde_json::json!({"instruction": ask, "input": "", "output": say}),
    );
    write(
        "prompt.jsonl",
        &|ask, say| serde_json::json!({"topic": ask, "prompt": "", "answer": say}),
    );
    let column = |pick: fn(&(&'static str, &'static str)) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(texts.iter().map(pick)))
    };
    let columns = [("question", column(|t| t.0)), ("answer", column(|t| t.1))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(folder.path().join("question.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let expected = rows("question.jsonl", &[]);
    assert_eq!(expected.len(), 2);
    for file in ["messages.jsonl", "sharegpt.jsonl", "alpaca.jsonl", "question.parquet"] {
        assert!(rows(file, &[]) == expected, "{file}");
    }
    assert!(rows("prompt.jsonl", &["--template", "{topic}"]) == expected, "--template");
}
