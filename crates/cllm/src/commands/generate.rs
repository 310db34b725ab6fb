//! `cllm generate`: one prompt, one answer.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::FalseyValueParser;
use cllm_decode::Token;
use cllm_model::Message;
use serde::Serialize;

use crate::cli::{DecodeArgs, JsonArgs, ModelArgs};
use crate::console;
use crate::exit::{Interrupted, bad_input};
use crate::figures::Figures;
use crate::prompt::{Prompt, read_messages, read_text};
use crate::session::Session;
use crate::trace::{self, finish_reason};

const EXAMPLES: &str = "Examples:
  cllm generate -p 'What is 17 * 23?'
  echo 'Write a haiku about rivers.' | cllm generate --decoder jacobi:16
  cllm generate -m model.gguf -p 'def add(a, b):' --raw --max-new-tokens 64
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
}

/// What to answer, before the model says how a prompt looks.
enum Input {
    Text(String),
    Messages(Vec<Message>),
}

/// Answers the prompt.
pub(crate) fn run(arguments: GenerateArgs) -> anyhow::Result<()> {
    let input = input(&arguments)?;
    let GenerateArgs { system, raw, no_stream, trace, json, decode: settings, model, .. } =
        arguments;
    let mut session = Session::load(&model)?;
    let prompt = match input {
        Input::Messages(messages) => Prompt::Chat(messages),
        Input::Text(text) if raw => Prompt::Raw(text),
        Input::Text(text) => session.user_prompt(system.as_deref(), text),
    };
    let request = session.request(&prompt, settings.max_new_tokens)?;

    let stream = !no_stream && !json.json;
    let mut out = console::out();
    let reply = session.reply(&mut session.new_text(), &settings, &request, &mut |piece| {
        if stream {
            out.write_all(piece.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    })?;

    let decoder = settings.decoder.to_string();
    if let Some(path) = trace {
        let asked = trace::Asked {
            model: &session.name,
            decoder: &decoder,
            seed: settings.seed,
            stop: &settings.stop,
        };
        trace::write(&path, asked, &request, &reply.run)?;
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
        };
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        // Streamed text lacks only its newline.
        writeln!(out, "{}", if stream { "" } else { &reply.text })?;
        console::aside(figures);
    }
    if reply.interrupted { Err(Interrupted.into()) } else { Ok(()) }
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
