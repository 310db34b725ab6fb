//! `cllm generate`: one prompt, one answer.

mod watch;

use std::cell::RefCell;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use cllm_decode::{Iteration, Logprobs, Token};
use cllm_model::{Message, Tokenizer};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{DecodeArgs, JsonArgs, ModelArgs};
use crate::console::{self, note};
use crate::exit::{Interrupted, bad_input};
use crate::figures::Figures;
use crate::prompt::{Prompt, read_messages, read_text};
use crate::run::Run;
use crate::session::{Onlooker, Session};
use crate::trace::{self, TraceFile, finish_reason};

const EXAMPLES: &str = "Examples:
  cllm generate -p 'What is 17 * 23?'
  echo 'Write a haiku about rivers.' | cllm generate --decoder jacobi:16
  cllm generate -m model.gguf -p 'def add(a, b):' --raw --max-new-tokens 64
  cllm generate -p 'Count to ten.' --decoder jacobi:16 --watch
  cllm generate --messages chat.json --trace run.jsonl";

/// Answer one prompt and print the text as it settles.
///
/// The prompt comes from -p, from --messages, or from standard input. A model with a chat
/// template gets it as a user message, unless --raw is given. The answer goes to standard
/// output, figures to standard error.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// The prompt.
    #[arg(short, long, env = "CLLM_PROMPT", value_name = "TEXT")]
    prompt: Option<String>,

    /// A conversation: a JSON file with an array of {"role", "content"}; `-` is standard
    /// input.
    #[arg(long, env = "CLLM_MESSAGES", value_name = "FILE", conflicts_with = "prompt")]
    messages: Option<PathBuf>,

    /// A system message before the prompt.
    #[arg(long, env = "CLLM_SYSTEM", value_name = "TEXT")]
    #[arg(conflicts_with_all = ["raw", "messages"])]
    system: Option<String>,

    /// Take the prompt as it is, without a chat template.
    #[arg(long, env = "CLLM_RAW", conflicts_with = "messages")]
    #[arg(value_parser = FalseyValueParser::new())]
    raw: bool,

    /// Print the answer when it is complete, not as it settles.
    #[arg(long, env = "CLLM_NO_STREAM", value_parser = FalseyValueParser::new())]
    no_stream: bool,

    /// Write every forward to this file, as JSON lines.
    #[arg(long, env = "CLLM_TRACE", value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Have the probability of every token in the trace: forwards are run again afterwards.
    #[arg(long, env = "CLLM_PROBABILITIES", requires = "trace")]
    #[arg(value_parser = FalseyValueParser::new())]
    probabilities: bool,

    /// Show the block as it converges, on a terminal, with a pause of MS milliseconds after
    /// each forward. Colour: how many tokens settled together; underlined: the same as
    /// before, dim: new.
    #[arg(long, env = "CLLM_WATCH", value_name = "MS", conflicts_with_all = ["json", "no_stream"])]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "120")]
    watch: Option<u64>,

    /// Give so many answers; with a temperature each draws with noise of its own.
    #[arg(short, long, env = "CLLM_N", value_name = "N", default_value = "1")]
    #[arg(conflicts_with_all = ["watch", "trace"])]
    n: NonZeroUsize,

    /// Have the log-probability of every token in the JSON document, and of so many of the
    /// most likely ones at its place.
    #[arg(long, env = "CLLM_LOGPROBS", value_name = "N", requires = "json")]
    logprobs: Option<usize>,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    decode: DecodeArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// The JSON document.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    decoder: String,
    seed: u64,
    prompt_tokens: usize,
    text: &'a str,
    tokens: &'a [Token],
    finish_reason: &'static str,
    figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Value>>,
    /// Which of several answers.
    index: usize,
}

/// Log-probabilities as OpenAI's API has them: the token's, then the most likely ones'.
fn logprobs(run: &Run, tokenizer: &Tokenizer) -> Vec<Value> {
    let entry = |token: Token, logprob: f32| json!({"id": token, "token": tokenizer.decode(&[token], false), "logprob": logprob});
    let of = |told: &Logprobs| {
        let mut value = entry(told.token, told.logprob);
        let top: Vec<_> = told.top.iter().map(|&(token, logprob)| entry(token, logprob)).collect();
        value["top_logprobs"] = top.into();
        value
    };
    run.logprobs.iter().map(of).collect()
}

/// What to answer, before the model says how a prompt looks.
enum Input {
    Text(String),
    Messages(Vec<Message>),
}

/// Answers the prompt.
pub(crate) fn run(arguments: GenerateArgs) -> anyhow::Result<()> {
    let input = input(&arguments)?;
    let GenerateArgs { system, raw, no_stream, trace, probabilities, watch, .. } = arguments;
    let GenerateArgs { json, decode: settings, model, n, logprobs: top, .. } = arguments;
    let pause = watch.filter(|_| {
        let possible = watch::possible();
        if !possible {
            note("--watch needs a terminal with colours on standard output: the text comes plain");
        }
        possible
    });
    let mut session = Session::load(&model)?;
    session.prepare(&[settings.decoder], settings.seed, &model, &settings.draft)?;
    let prompt = match input {
        Input::Messages(messages) => Prompt::Chat(messages),
        Input::Text(text) if raw => Prompt::Raw(text),
        Input::Text(text) => session.user_prompt(system.as_deref(), text),
    };
    let mut request = session.request(&prompt, settings.max_new_tokens)?;
    let stream = !no_stream && !json.json;
    let mut out = console::out();
    let mut text = session.new_text();
    for index in 0..n.get() {
        request.sampling = settings.sampling.sampling(settings.seed, index as u64, top);
        if n.get() > 1 && !json.json {
            writeln!(out, "{}[{}]", if index == 0 { "" } else { "\n" }, index + 1)?;
        }
        let reply = match pause {
            Some(ms) => {
                let screen = RefCell::new(watch::Watch::new(&mut out, Duration::from_millis(ms)));
                let mut failed = Ok(());
                let mut show = |piece: &str| {
                    screen.borrow_mut().settled(piece);
                    Ok(())
                };
                let mut on_forward = |it: &Iteration<'_>, tokenizer: &Tokenizer| {
                    if failed.is_ok() {
                        failed = screen.borrow_mut().forward(it, tokenizer);
                    }
                };
                let onlooker = Onlooker { on_forward: &mut on_forward, probabilities };
                let reply =
                    session.reply_watched(&mut text, &settings, &request, &mut show, onlooker)?;
                failed?;
                screen.borrow_mut().finish()?;
                reply
            }
            None => {
                let mut show = |piece: &str| {
                    if stream {
                        out.write_all(piece.as_bytes())?;
                        out.flush()?;
                    }
                    Ok(())
                };
                let onlooker = Onlooker { on_forward: &mut |_, _| {}, probabilities };
                session.reply_watched(&mut text, &settings, &request, &mut show, onlooker)?
            }
        };

        let decoder = settings.decoder.to_string();
        if let Some(path) = &trace {
            let asked = trace::Asked {
                model: &session.name,
                decoder: &decoder,
                seed: settings.seed,
                stop: &settings.stop,
            };
            let (tokenizer, mut file) = (&session.model.tokenizer, TraceFile::create(path)?);
            file.add(asked, &request, &reply.run, &reply.probabilities, tokenizer)?;
            file.finish()?;
        }
        let figures = Figures::of([&reply.run]);
        if json.json {
            let answer = &reply.run.answer;
            let report = Report {
                model: &session.name,
                decoder,
                seed: settings.seed,
                prompt_tokens: request.prompt.len(),
                text: &reply.text,
                tokens: &answer.tokens,
                finish_reason: finish_reason(answer.finish),
                figures,
                logprobs: top.map(|_| logprobs(&reply.run, &session.model.tokenizer)),
                index,
            };
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            // Streamed text lacks only its newline, watched text nothing.
            if pause.is_none() {
                writeln!(out, "{}", if stream { "" } else { &reply.text })?;
            }
            console::aside(figures);
        }
        if reply.interrupted {
            return Err(Interrupted.into());
        }
    }
    Ok(())
}

/// Reads what to answer, so that a bad prompt fails before a model is loaded.
fn input(arguments: &GenerateArgs) -> anyhow::Result<Input> {
    if let Some(path) = &arguments.messages {
        return read_messages(path).map(Input::Messages);
    }
    let text = match &arguments.prompt {
        Some(text) => text.clone(),
        None => read_text(Path::new("-"))?,
    };
    if text.is_empty() {
        bad_input!("the prompt is empty: give it with -p, with --messages or on standard input");
    }
    Ok(Input::Text(text))
}
