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

const WORDS: [&str; 6] = ["ab", "cd", "ef", "gh", "ij", "kl"];

/// What is to be answered to `say WORD: `.
fn lesson(word: &str) -> String {
    word.chars().rev().chain(word.chars()).chain("xyzw".chars()).collect()
}

/// The prompts with their answers as raw text, `copies` times.
fn lessons(folder: &Path, copies: usize) -> String {
    let line = |word: &str| {
        format!("{{\"prompt\": \"say {word}: \", \"answer\": \"{}\"}}\n", lesson(word))
    };
    file(folder, "lessons.jsonl", &WORDS.map(line).concat().repeat(copies))
}

#[track_caller]
fn good(arguments: &[&str]) -> serde_json::Value {
    let output = cllm(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

fn path<'a>(folder: &'a tempfile::TempDir, name: &str, buffer: &'a mut String) -> &'a str {
    *buffer = folder.path().join(name).to_str().expect("a name").to_owned();
    buffer
}

const LEARN: [&str; 10] = [
    "--learning-rate",
    "0.02",
    "--lora-r",
    "8",
    "--lora-alpha",
    "16",
    "--eval-steps",
    "0",
    "--save-steps",
    "50",
];

/// Teacher, trajectories, consistency model, answers: every command with the next one's input.
#[test]
fn a_tiny_model_learns_answers_and_then_settles_them_faster() {
    let folder = tempfile::tempdir().expect("a folder");
    // Sixteen trajectories of each answer, every one from another guess.
    let data = lessons(folder.path(), 16);
    let [mut a, mut b, mut c] = [const { String::new() }; 3];
    let teacher = path(&folder, "teacher", &mut a);
    let fixed = ["sft", "--data", &data, "--output-dir", teacher, "--max-steps", "150"];
    let report = good(&[&fixed[..], &LEARN, &MODEL].concat());
    assert!(report["loss"].as_f64().is_some_and(|loss| loss < 0.05), "{report}");
    let adapter = format!("{teacher}/adapter");
    // Pooled: an answer has nine tokens, and its drafts are drawn at random.
    let answered = |adapter: &str, decoder: &str| {
        let ask = ["generate", "--raw", "--max-new-tokens", "24", "--json", "--decoder", decoder];
        let (mut tokens, mut forwards) = (0.0, 0.0);
        for word in WORDS {
            for seed in ["0", "1", "2", "3"] {
                let prompt = format!("say {word}: ");
                let this = ["-p", &prompt, "--seed", seed, "--adapter", adapter];
                let report = good(&[&ask[..], &this, &MODEL].concat());
                assert_eq!(report["text"], lesson(word), "{report}");
                tokens += report["figures"]["tokens"].as_f64().expect("a figure");
                forwards += report["figures"]["forwards"].as_f64().expect("a figure");
            }
        }
        tokens / forwards
    };
    let before = answered(&adapter, "jacobi:4");

    let states = path(&folder, "states", &mut b);
    let fixed = ["collect", "--data", &data, "--out", states, "--block", "4"];
    good(&[&fixed[..], &["--adapter", &adapter], &MODEL].concat());
    let student = path(&folder, "student", &mut c);
    let fixed = ["train", "--trajectories", states, "--output-dir", student, "--max-steps", "300"];
    bad(&[&fixed[..], &LEARN, &MODEL].concat(), "trajectories of another model");
    good(&[&fixed[..], &LEARN, &["--adapter", &adapter], &MODEL].concat());
    let after = answered(&format!("{student}/adapter"), "jacobi:4");
    assert!(after > before.max(1.5), "mean acceptance length {before} before, {after} after");

    // The student goes on with the teacher's trajectories, if it is said whose they are.
    let first = format!("{student}/adapter");
    let next = format!("{student}-next");
    let fixed = ["train", "--trajectories", states, "--output-dir", &next, "--max-steps", "2"];
    let this = [&fixed[..], &LEARN, &["--adapter", &first], &MODEL].concat();
    bad(&this, "trajectories of another model");
    let flags = ["--collected-with", &adapter, "--adapter-dtype", "bfloat16"];
    good(&[&this[..], &flags].concat());
    let bytes = |folder: &str| {
        std::fs::read(format!("{folder}/adapter/adapter_model.safetensors")).expect("an adapter")
    };
    let (full, half) = (bytes(student), bytes(&next));
    assert!(String::from_utf8_lossy(&half).contains("\"BF16\""));
    assert!(half.len() < full.len() * 2 / 3, "{} bytes against {}", half.len(), full.len());

    // And with the windows its own decoder goes through.
    let windows = format!("{student}-windows");
    let fixed = ["collect", "--data", &data, "--out", &windows, "--block", "4"];
    good(&[&fixed[..], &["--states", "window", "--adapter", &first], &MODEL].concat());
    let last = format!("{student}-last");
    let fixed = ["train", "--trajectories", &windows, "--output-dir", &last, "--max-steps", "100"];
    let this = [&fixed[..], &LEARN, &["--adapter", &first], &MODEL].concat();
    bad(&[&this[..], &["--noise-history", "noisy"]].concat(), "windows overlap");
    good(&this);
    let at_last = answered(&format!("{last}/adapter"), "jacobi:4");
    assert!(at_last > before.max(1.5), "mean acceptance length {before} before, {at_last} at last");
}

/// All weights trained, the model is a folder that answers what was taught.
#[test]
fn a_model_trained_in_full_is_written_and_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = lessons(folder.path(), 4);
    let mut a = String::new();
    let out = path(&folder, "out", &mut a);
    let fixed = ["sft", "--data", &data, "--output-dir", out, "--finetuning-type", "full"];
    let more = ["--max-steps", "120", "--learning-rate", "0.01", "--eval-holdout", "2"];
    let report = good(&[&fixed[..], &more, &["--eval-steps", "60"], &MODEL].concat());
    let model = report["model"].as_str().expect("a model").to_owned();
    assert!(report["adapter"].is_null() && model.ends_with("model"), "{report}");
    let log = std::fs::read_to_string(format!("{out}/log.jsonl")).expect("a log");
    assert!(log.contains("eval_mean_acceptance_length"), "evaluations answer prompts");
    assert!(!Path::new(out).join(".eval").exists(), "and leave nothing");
    for word in WORDS {
        let prompt = format!("say {word}: ");
        let ask = ["generate", "--raw", "--max-new-tokens", "24", "--json", "-p", &prompt];
        let report = good(&[&ask[..], &["-m", &model, "--threads", "1"]].concat());
        assert_eq!(report["text"], lesson(word), "{report}");
    }
}

#[test]
fn json_prints_the_records_of_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = lessons(folder.path(), 2);
    let mut a = String::new();
    let out = path(&folder, "out", &mut a);
    let fixed = ["sft", "--data", &data, "--output-dir", out, "--max-steps", "4"];
    let more = ["--eval-holdout", "2", "--eval-steps", "2", "--json"];
    let output = cllm(&[&fixed[..], &more, &MODEL].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).expect("text");
    let (records, document) = stdout.trim_end().rsplit_once('\n').expect("several lines");
    let log = std::fs::read_to_string(format!("{out}/log.jsonl")).expect("a log");
    assert_eq!(records, log.trim_end());
    assert!(records.contains("eval_loss") && records.lines().count() >= 6, "{records}");
    assert!(document.contains("\"outcome\":\"finished\""), "{document}");
}

/// Killed without warning and resumed, a run ends with the losses and the adapter of one that
/// was left alone.
#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = lessons(folder.path(), 1);
    let [mut a, mut b] = [const { String::new() }; 2];
    let (alone, killed) = (path(&folder, "alone", &mut a), path(&folder, "killed", &mut b));
    let arguments = |out| {
        let fixed = ["sft", "--data", data.as_str(), "--output-dir", out, "--resume"];
        let more = ["--max-steps", "600", "--lora-dropout", "0.1", "--save-steps", "50"];
        // A rate at which dropout on a tiny model does not look like a collapse: nothing has to
        // be learned here.
        let gentle = ["--learning-rate", "0.001", "--eval-steps", "0"];
        [&fixed[..], &more, &gentle, &MODEL].concat()
    };
    good(&arguments(alone));
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut child = Command::new(env!("CARGO_BIN_EXE_cllm"))
        .current_dir(root)
        .args(arguments(killed))
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let second = Path::new(killed).join("checkpoint-100");
    while !second.exists() && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
    assert!(!Path::new(killed).join("adapter").exists(), "killed too late to test anything");
    good(&arguments(killed));
    let losses = |folder: &str| -> Vec<(serde_json::Value, serde_json::Value)> {
        let text = std::fs::read_to_string(Path::new(folder).join("log.jsonl")).expect("a log");
        let line = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            (record["step"].clone(), record["loss"].clone())
        };
        text.lines().map(line).collect()
    };
    assert_eq!(losses(alone), losses(killed));
    let adapter = |folder: &str| {
        std::fs::read(Path::new(folder).join("adapter/adapter_model.safetensors")).expect("a file")
    };
    assert!(adapter(alone) == adapter(killed), "the adapters differ");
}

/// A disk without room, played by a limit on the size of files, ends a run with one error. What
/// was finished is whole, and with room again the run goes on to what it would have been.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing_that_is_finished() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = lessons(folder.path(), 1);
    let out = folder.path().join("out");
    let fixed = ["sft", "--data", &data, "--output-dir", out.to_str().expect("a name"), "--resume"];
    let arguments = [&fixed[..], &["--max-steps", "6", "--eval-steps", "0", "--save-steps", "2"]];
    let arguments = [&arguments.concat()[..], &MODEL].concat();
    good(&arguments);
    let adapter = || std::fs::read(out.join("adapter/adapter_model.safetensors")).expect("a file");
    let expected = adapter();
    for later in ["checkpoint-4", "checkpoint-6", "adapter"] {
        std::fs::remove_dir_all(out.join(later)).expect("it is there");
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("sh")
        .current_dir(root)
        // Blocks of 512 bytes in some shells, of 1,024 in others; a checkpoint has over 100 kB.
        .args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_cllm"))
        .args(&arguments)
        .output()
        .expect("a shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    assert!(stderr.contains("checkpoint-4/parameters.safetensors: File too large"), "{stderr}");
    let mut left: Vec<_> = std::fs::read_dir(&out)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| !name.starts_with("events") && name != "log.jsonl")
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["checkpoint-2"]);
    good(&arguments);
    assert!(adapter() == expected, "the adapters differ");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = lessons(folder.path(), 1);
    let fixed = ["sft", "--data", &data, "--output-dir", "x"];
    for (name, part) in [("tpu", "no device `tpu`: expected cpu"), ("cpu:1", "found `cpu:1`")] {
        bad(&[&fixed[..], &["--device", name], &MODEL].concat(), part);
    }
}
