//! The program from outside: exit codes, what goes to which stream, the shape of its JSON.
//!
//! The models are the tiny random goldens, so the texts are nonsense; that answers are
//! right is tested where they are made.

mod common;
#[path = "common/outcome.rs"]
mod outcome;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{GOLDEN, chat_model};
use outcome::{bad, good};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the program in the repository's root, without the caller's settings. `input` is
/// standard input.
fn cllm(arguments: &[&str], input: &[u8]) -> Output {
    cllm_with(&[], arguments, input)
}

fn cllm_with(variables: &[(&str, &str)], arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLLM_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .current_dir(root())
        .env("CLLM_HOME", "target/no-such-cache")
        .env("CLLM_THREADS", "1")
        .envs(variables.iter().copied())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that does not read its input closes the pipe; that is no failure here.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("the program ends")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn help_and_completions_name_every_command() {
    let help = good(&cllm(&["--help"], b""));
    let completions = good(&cllm(&["completions", "bash"], b""));
    for command in [
        "pull",
        "inspect",
        "merge",
        "extract",
        "generate",
        "chat",
        "bench",
        "eval",
        "prompts",
        "doctor",
        "demo",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command}")), "{command} in {help}");
        assert!(completions.contains(&format!("cllm__subcmd__{command}")), "{command}");
    }
    assert!(good(&cllm(&["--version"], b"")).starts_with("cllm "));
}

#[test]
fn generate_gives_the_same_answer_with_every_decoder() {
    let answer = |decoder: &str| {
        json(&good(&cllm(&[&ASKED[..], &["--max-new-tokens", "24", "-d", decoder]].concat(), b"")))
    };
    let ar = answer("ar");
    assert_eq!(ar["decoder"], "ar");
    assert_eq!(ar["tokens"].as_array().map(Vec::len), Some(24));
    assert_eq!(ar["figures"]["forwards"], 23);
    for decoder in DECODERS.into_iter().chain(["jacobi:1", "jacobi:16,draft=ngram"]) {
        let other = answer(decoder);
        assert_eq!((&other["tokens"], &other["text"]), (&ar["tokens"], &ar["text"]), "{decoder}");
    }
}

const DECODERS: [&str; 5] =
    ["auto", "jacobi:8", "jacobi-pool:4", "lookahead:w=3,n=3,g=2", "prompt-lookup"];

const ASKED: [&str; 6] = ["generate", "-m", GOLDEN, "-p", "one", "--json"];

/// Asks for twenty tokens that are drawn.
fn sampled(more: &[&str]) -> Output {
    let sampling = ["--max-new-tokens", "20", "--temperature", "0.8", "--top-p=0.95"];
    cllm(&[&ASKED[..], &sampling, more].concat(), b"")
}

#[test]
fn sampled_text_depends_on_the_seed_alone() {
    let answers = |more: &[&str]| -> Vec<Value> {
        let text = good(&sampled(more));
        text.lines().map(json).collect()
    };
    let ar = answers(&["-d", "ar", "--seed", "7", "-n", "3"]);
    assert_eq!(ar.len(), 3);
    let tokens = |i: usize| ar[i]["tokens"].clone();
    assert!(tokens(0) != tokens(1) && tokens(1) != tokens(2), "{ar:?}");
    for decoder in DECODERS {
        let other = answers(&["-d", decoder, "--seed", "7", "-n", "3"]);
        for (other, ar) in other.iter().zip(&ar) {
            assert_eq!(
                (&other["tokens"], &other["index"]),
                (&ar["tokens"], &ar["index"]),
                "{decoder}"
            );
        }
    }
    assert_ne!(answers(&["--seed", "8"])[0]["tokens"], ar[0]["tokens"]);
    let told = &answers(&["--seed", "7", "--logprobs", "2"])[0];
    assert_eq!(told["tokens"], ar[0]["tokens"]);
    let logprobs = told["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), told["tokens"].as_array().unwrap().len());
    for (told, token) in logprobs.iter().zip(told["tokens"].as_array().unwrap()) {
        assert_eq!(&told["id"], token);
        let top = told["top_logprobs"].as_array().unwrap();
        let logprob = |value: &Value| value["logprob"].as_f64().unwrap();
        assert!(top.len() == 2 && logprob(&top[0]) >= logprob(&top[1]) && logprob(told) <= 0.0);
    }

    let generate = |more: &[&str], part: &str| bad(&sampled(more), part);
    generate(&["--min-p", "2"], "min_p 2");
    generate(&["--typical-p", "0"], "typical_p 0");
    generate(&["--repetition-penalty", "0"], "repetition_penalty 0");
    generate(&["--frequency-penalty", "3"], "frequency_penalty 3");
    generate(&["--presence-penalty", "-3"], "presence_penalty -3");
    generate(&["--logit-bias", "x=1"], "expected TOKEN=BIAS");
    generate(&["--logit-bias", "999999=1"], "999999 is not in the vocabulary");
}

#[test]
fn a_draft_model_guesses_and_has_to_fit() {
    let draft = |more: &[&str]| sampled(&[&["-d", "draft-model:3"], more].concat());
    bad(&draft(&[]), "expected --draft-model");
    let with = json(&good(&draft(&["--draft-model", GOLDEN])));
    let ar = json(&good(&sampled(&["-d", "ar"])));
    assert_eq!(with["tokens"], ar["tokens"]);
    // It guesses with itself and the same noise: every guess is right.
    assert_eq!(with["figures"]["forwards"], 5, "{with}");

    // Two letters change places.
    let folder = tempfile::tempdir().unwrap();
    let other = chat_model(folder.path());
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer = json(&std::fs::read_to_string(&path).unwrap());
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
    (vocab["a"], vocab["b"]) = (b, a);
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    bad(&draft(&["--draft-model", &other]), "another tokenizer: expected");
}

#[test]
fn generate_reads_prompts_from_everywhere() {
    let tokens = |arguments: &[&str], input: &[u8]| {
        let arguments = [&["generate", "-m", GOLDEN, "--max-tokens", "8", "--json"], arguments];
        json(&good(&cllm(&arguments.concat(), input)))["tokens"].clone()
    };
    let from_flag = tokens(&["-p", "one two"], b"");
    assert_eq!(from_flag, tokens(&[], b"one two\n"), "standard input, its newline dropped");
    let variables = [
        ("CLLM_PROMPT", "one two"),
        ("CLLM_MODEL", GOLDEN),
        ("CLLM_JSON", "1"),
        ("CLLM_MAX_NEW_TOKENS", "8"),
    ];
    let from_environment = json(&good(&cllm_with(&variables, &["generate"], b"")));
    assert_eq!(from_flag, from_environment["tokens"]);

    let folder = tempfile::tempdir().unwrap();
    let model = chat_model(folder.path());
    let tokens = |arguments: &[&str], input: &[u8]| {
        let arguments = [&["generate", "-m", &model, "--max-tokens", "8", "--json"], arguments];
        json(&good(&cllm(&arguments.concat(), input)))["tokens"].clone()
    };
    let wrapped = tokens(&["-p", "one two"], b"");
    let messages = br#"[{"role": "user", "content": "one two"}]"#;
    assert_eq!(wrapped, tokens(&["--messages", "-"], messages));
    assert_eq!(wrapped, tokens(&["--raw", "-p", "[user] one two\n[assistant] "], b""));
    let system = tokens(&["--system", "be brief", "-p", "one two"], b"");
    let raw = tokens(&["--raw", "-p", "[system] be brief\n[user] one two\n[assistant] "], b"");
    assert_eq!(system, raw);
}

#[test]
fn streamed_text_equals_the_whole_and_stop_strings_are_never_shown() {
    let run = |arguments: &[&str]| {
        let common = ["generate", "-m", GOLDEN, "-p", "stop", "--max-new-tokens", "40"];
        good(&cllm(&[&common, arguments].concat(), b""))
    };
    let whole = run(&["--no-stream"]);
    assert_eq!(run(&[]), whole);
    // A stop string from the middle of the answer itself.
    let middle = whole.chars().count() / 2;
    let stop: String = whole.chars().skip(middle).take(2).collect();
    let before = &whole[..whole.find(&stop).unwrap()];
    for decoder in ["ar"].into_iter().chain(DECODERS) {
        assert_eq!(run(&["-d", decoder]), whole, "{decoder}");
        assert_eq!(run(&["--stop", &stop, "-d", decoder]), format!("{before}\n"), "{decoder}");
    }
    let stopped = json(&run(&["--stop", &stop, "--json"]));
    assert_eq!((&stopped["text"], &stopped["finish_reason"]), (&before.into(), &"stop".into()));
}

#[test]
fn a_trace_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let trace = path.to_str().unwrap();
    let asked = ["generate", "-m", GOLDEN, "-p", "x", "--max-tokens", "9", "--temperature", "0.5"];
    let lines = |decoder: &str| -> Vec<Value> {
        good(&cllm(&[&asked[..], &["-d", decoder, "--trace", trace]].concat(), b""));
        std::fs::read_to_string(&path).unwrap().lines().map(json).collect()
    };
    let tokens = lines("ar").last().unwrap()["tokens"].clone();
    assert_eq!(tokens.as_array().map(Vec::len), Some(9));
    for decoder in ["ar"].into_iter().chain(DECODERS) {
        let lines = lines(decoder);
        let header = &lines[0];
        assert_eq!((&header["type"], &header["temperature"]), (&"header".into(), &0.5.into()));
        assert_eq!(header["decoder"], decoder);
        // The first tokens of what forwards said, joined, are the answer.
        let mut settled: Vec<Value> = Vec::new();
        for line in lines.iter().filter(|line| line["type"] == "forward") {
            assert_eq!(line["start"], settled.len(), "{decoder}");
            let count = usize::try_from(line["settled"].as_u64().unwrap()).unwrap();
            settled.extend_from_slice(&line["output"].as_array().unwrap()[..count]);
        }
        assert_eq!(
            (Value::from(settled), &lines[lines.len() - 1]["tokens"]),
            (tokens.clone(), &tokens)
        );
    }
}

#[test]
fn bench_decode_ends_with_one_json_document() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model(folder.path());
    let prompts = folder.path().join("prompts.jsonl");
    let lines = "{\"prompt\": \"ab\"}\n{\"question\": \"q?\", \"answer\": 1}\n\
                 {\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n{\"prompt\": \"c\"}\n";
    std::fs::write(&prompts, lines).unwrap();
    let file = prompts.to_str().unwrap();
    let arguments = [
        "bench",
        "decode",
        "-m",
        &model,
        "--prompts",
        file,
        "--limit",
        "3",
        "--warmup",
        "--decoders",
        "jacobi:4,jacobi:8,draft=ngram",
        "--max-new-tokens",
        "12",
    ];
    let output = good(&cllm(&arguments, b""));
    assert!(output.starts_with("decoder "), "a table comes first: {output}");
    let report = json(output.lines().last().unwrap());
    assert_eq!(report["machine"]["threads"], 1);
    assert_eq!(report["settings"]["max_new_tokens"], 12);
    let results = report["results"].as_array().unwrap();
    let names: Vec<_> = results.iter().map(|result| result["decoder"].as_str().unwrap()).collect();
    assert_eq!(names, ["ar", "jacobi:4", "jacobi:8,draft=ngram"]);
    for result in results {
        assert_eq!((&result["prompts"], &result["exact"]), (&3.into(), &1.0.into()));
        let figure = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("{name}"));
        let speed = figure("tokens") / figure("seconds");
        assert!((speed - figure("tokens_per_second")).abs() < 1e-6 * speed);
        assert_eq!(figure("mean_acceptance_length"), figure("tokens") / figure("forwards"));
        assert!(figure("total_seconds") >= figure("seconds") && figure("speedup") > 0.0);
    }
    let only_json = good(&cllm(&[&arguments[..], &["--json"]].concat(), b""));
    assert_eq!(only_json.lines().count(), 1);

    let again = |more: &[&str]| {
        let fixed = ["bench", "decode", "-m", &model, "--prompts", file, "--max-new-tokens", "12"];
        good(&cllm(&[&fixed[..], more].concat(), b""))
    };
    let lines = again(&["--jsonl", "--repeat", "2", "--decoders", "auto", "--temperature", "1"]);
    let lines: Vec<Value> = lines.lines().map(json).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["prompts"], &lines[1]["exact"]), (&8.into(), &1.0.into()));
    assert!(again(&["--format", "markdown"]).starts_with("| decoder |"));
    assert!(again(&["--format", "csv"]).starts_with("decoder,"));
    let sure = again(&["--synthetic-acceptance", "1", "--decoders", "jacobi:4"]);
    let sure = json(sure.lines().last().unwrap());
    assert!(sure["results"][1]["mean_acceptance_length"].as_f64().unwrap() > 2.0, "{sure}");
    let more = ["--synthetic-acceptance", "1", "--decoders", "auto"];
    let fixed = ["bench", "decode", "-m", &model, "--prompts", file];
    bad(&cllm(&[&fixed[..], &more].concat(), b""), "`ar` and `jacobi:N` only, found `auto`");

    // What `prompts` prints can be given back.
    let records = folder.path().join("records.jsonl");
    std::fs::write(&records, "{\"question\": \"q?\"}\n{\"question\": \"r?\"}\n").unwrap();
    let printed = good(&cllm(&["prompts", "-m", &model, "--data", records.to_str().unwrap()], b""));
    let first = json(printed.lines().next().unwrap());
    assert!(first["text"].as_str().unwrap().contains("q?"), "{first}");
    std::fs::write(&prompts, &printed).unwrap();
    let known = json(again(&["--decoders", "ar"]).lines().last().unwrap());
    std::fs::write(&prompts, "{\"question\": \"q?\"}\n{\"question\": \"r?\"}\n").unwrap();
    let asked = json(again(&["--decoders", "ar"]).lines().last().unwrap());
    let count = |report: &Value| report["results"][0]["prefill_tokens"].clone();
    assert_eq!(count(&known), count(&asked));

    std::fs::write(&prompts, "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
    bad(&cllm(&["bench", "decode", "-m", &model, "--prompts", file], b""), "line 2: expected one");
    std::fs::write(&prompts, format!("{{\"prompt\": \"{}\"}}\n", "x".repeat(500))).unwrap();
    bad(
        &cllm(&["bench", "decode", "-m", &model, "--prompts", file], b""),
        "line 1: the prompt has",
    );
}

#[test]
fn bench_forward_times_every_row_count() {
    let arguments = [
        "bench",
        "forward",
        "-m",
        GOLDEN,
        "--rows",
        "4,1,1",
        "--context",
        "20",
        "--repeat",
        "2",
        "--json",
    ];
    let report = json(&good(&cllm(&arguments, b"")));
    let results = report["results"].as_array().unwrap();
    let rows: Vec<_> = results.iter().map(|result| result["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [1, 4]);
    for result in results {
        assert!(result["median_ms"].as_f64().unwrap() > 0.0);
        assert!(result["roofline"].as_f64().unwrap() > 0.0);
        assert!(["memory", "arithmetic"].contains(&result["bound"].as_str().unwrap()));
    }
    assert!(report["settings"]["giga_operations_per_second"]["f32"].as_f64().unwrap() > 0.0);
    let beyond = ["bench", "forward", "-m", GOLDEN, "--context", "127"];
    bad(&cllm(&beyond, b""), "--context 127 and 32 rows need 159 positions; the model has 128");
}

#[test]
fn chat_answers_lines_of_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model(folder.path());
    let arguments = ["chat", "-m", &model, "--max-new-tokens", "4"];
    let lines = |input: &str| -> Vec<String> {
        good(&cllm(&arguments, input.as_bytes())).split('\n').map(str::to_owned).collect()
    };
    let hello = lines("hello\n");
    assert_eq!(lines("\n/help\n/reset\nhello\n/exit\nnever answered\n"), hello);
    let twice = lines("hello\nhello\n");
    assert_eq!(twice[0], hello[0]);
    assert_eq!(lines("hello\n/reset\nhello\n")[..], [&hello[..1], &hello[..]].concat());
    bad(&cllm(&["chat", "-m", GOLDEN], b"hello\n"), "no chat template");
    bad(&cllm(&arguments, b"\xff\n"), "not UTF-8");
}

#[test]
fn inspect_and_doctor_report() {
    let report = json(&good(&cllm(&["inspect", "-m", GOLDEN, "--json", "--tensors"], b"")));
    assert_eq!(report["architecture"], "Llama");
    assert_eq!(report["chat_template"], false);
    let sizes = report["tensors"].as_array().unwrap().iter().map(|tensor| {
        tensor["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>()
    });
    assert_eq!(report["parameters"].as_u64(), Some(sizes.sum()));
    let text = good(&cllm(&["inspect", "-m", "goldens/models/llama.Q4_0.gguf"], b""));
    assert!(text.contains("Llama (GGUF)") && text.contains("Q4_0"), "{text}");

    let report = json(&good(&cllm(&["doctor", "--json"], b"")));
    assert_eq!(report["cpu"]["threads"], 1);
    for format in ["integers", "bf16", "f32"] {
        let speed = report["cpu"]["operations_per_second"][format].as_f64();
        assert!(speed.is_some_and(|speed| speed > 0.0), "{format}: {speed:?}");
    }
    assert_eq!(report["cache"]["default_model"], Value::Null);
    let missing = report["missing"].as_array().unwrap();
    assert!(missing.iter().any(|what| what.as_str().unwrap().contains("cllm pull")));
}

#[test]
fn demo_compares_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model(folder.path());
    // The prompts are longer than the tiny model's context.
    let config = folder.path().join("config.json");
    let short = std::fs::read_to_string(&config).unwrap();
    let long =
        short.replace("\"max_position_embeddings\": 128", "\"max_position_embeddings\": 1024");
    assert_ne!(short, long);
    std::fs::write(&config, long).unwrap();
    let output = good(&cllm(&["demo", "-m", &model, "--max-new-tokens", "6"], b""));
    assert!(!output.contains('\u{1b}'), "no colours without a terminal");
    let compared: Vec<_> = output.lines().filter(|line| line.contains("jacobi:8 ")).collect();
    assert!(compared.len() >= 4 && output.contains("tokens settled by one forward"), "{output}");
    assert_eq!(compared.iter().filter(|line| line.contains("  yes  ")).count(), 4, "{output}");
    let auto = output.lines().filter(|line| line.contains(" auto ") && line.contains("  yes  "));
    assert_eq!(auto.count(), 4, "{output}");
    bad(&cllm(&["demo", "-m", &model, "--decoders", "ar"], b""), "expected one that can be");
}

#[test]
fn bad_input_is_an_error_with_code_2() {
    let generate = |arguments: &[&str], input: &[u8], part: &str| {
        bad(&cllm(&[&["generate", "-m", GOLDEN], arguments].concat(), input), part);
    };
    generate(&["-p", ""], b"", "the prompt is empty");
    generate(&[], b"\n", "the prompt is empty");
    generate(&[], b"ab\xff", "standard input: not UTF-8 text: invalid byte at offset 2");
    generate(&["-p", &"x".repeat(500)], b"", "leaves no room for an answer");
    generate(&["-p", "x", "--context", "1"], b"", "the context of 1 leaves no room");
    generate(&["-p", "x", "-d", "jacobi:0"], b"", "expected 1 to 1024");
    generate(&["-p", "x", "-d", "medusa"], b"", "no decoder `medusa`");
    generate(&["-p", "x", "--max-new-tokens", "0"], b"", "--max-new-tokens");
    generate(&["-p", "x", "--compute", "int3"], b"", "expected one of auto, f32, bf16, w8, w4");
    generate(&["-p", "x", "--stop", ""], b"", "stop string");
    generate(&["-p", "x", "--system", "y"], b"", "no chat template");
    generate(&["--messages", "-"], b"{}", "expected an array of messages");
    generate(&["--messages", "no-such-file"], b"", "no-such-file");
    generate(&["-p", "x", "--raw", "--system", "y"], b"", "cannot be used with");
    bad(&cllm(&["generate", "-m", "no-such-model", "-p", "x"], b""), "no-such-model");
    bad(&cllm(&["generate", "-m", "hf:a/b/c", "-p", "x"], b""), "org/name");
    bad(&cllm(&["frobnicate"], b""), "unrecognized subcommand");
}

#[test]
fn hostile_files_are_one_line_errors() {
    let mut seen = 0;
    for folder in ["fixtures/hostile/gguf", "fixtures/hostile/folder"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            let output = cllm(&["generate", "-m", &path, "-p", "x"], b"");
            bad(&output, &path);
            assert_eq!(output.stderr.iter().filter(|b| **b == b'\n').count(), 1, "{path}");
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen} fixtures");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cllm"))
        .current_dir(root())
        .args(["generate", "-m", GOLDEN, "-p", "x", "--max-new-tokens", "100"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}
