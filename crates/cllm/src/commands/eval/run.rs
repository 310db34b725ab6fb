//! The part that all tasks share: ask, time, judge, write down, sum up.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use cllm_decode::CausalLm;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::EvalArgs;
use super::log::{Header, Log};
use super::record::{Against, Record, Scored};
use super::report::Results;
use super::settling;
use crate::answer_text::AnswerText;
use crate::console::{self, note};
use crate::contest;
use crate::decoder::DecoderSpec;
use crate::exit::bad_input;
use crate::figures::{Figures, cell};
use crate::machine::Machine;
use crate::prompt::Prompt;
use crate::session::Session;
use crate::source;
use crate::trace::finish_reason;

/// A file of questions.
pub(super) struct Data<P> {
    /// Each with its line.
    pub(super) problems: Vec<(usize, P)>,
    /// SHA-256 of the file.
    digest: String,
}

/// Reads the questions, the first `--limit` of them.
pub(super) fn read<P: DeserializeOwned>(arguments: &EvalArgs) -> anyhow::Result<Data<P>> {
    let name = arguments.data.display();
    let bytes = match fs::read(&arguments.data) {
        Ok(bytes) => bytes,
        Err(error) => bad_input!("{name}: {error}"),
    };
    let mut problems = Vec::new();
    for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if arguments.limit.is_some_and(|limit| problems.len() == limit.get()) {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(problem) => problems.push((i + 1, problem)),
            Err(error) => bad_input!("{name}: line {}: {error}", i + 1),
        }
    }
    if problems.is_empty() {
        bad_input!("{name}: no questions: expected one JSON object a line");
    }
    Ok(Data { problems, digest: source::hex(&Sha256::digest(&bytes)) })
}

/// What a task brings.
pub(super) struct Task<'a, P> {
    pub(super) name: &'a str,
    pub(super) data: &'a Data<P>,
    /// What is asked.
    pub(super) prompt: &'a dyn Fn(&Session, &P) -> anyhow::Result<Prompt>,
    /// What the answer is worth.
    pub(super) judge: &'a dyn Fn(&P, &str) -> anyhow::Result<Scored>,
    /// How answers are judged, for the file and the report.
    pub(super) judged: Value,
    /// More for the report, made of all answers.
    pub(super) more: &'a dyn Fn(&[Record]) -> Value,
}

/// The JSON document.
#[derive(Serialize)]
struct Report<'a> {
    task: &'a str,
    model: &'a str,
    machine: Machine,
    settings: Settings<'a>,
    results: Results,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
}

#[derive(Serialize)]
struct Settings<'a> {
    data: &'a Path,
    data_sha256: &'a str,
    decoder: String,
    seed: u64,
    max_new_tokens: usize,
    check: bool,
    weights: String,
    context: usize,
    judged: &'a Value,
    /// Answers that an earlier run had written down.
    resumed: usize,
}

/// Asks everything, and reports.
pub(super) fn evaluate<P>(arguments: &EvalArgs, task: &Task<'_, P>) -> anyhow::Result<()> {
    let mut session = Session::load(&arguments.model)?;
    session.prepare(&[arguments.decoder], arguments.seed, &arguments.model, &arguments.draft)?;
    let at = |line: usize| format!("{}: line {line}", arguments.data.display());
    // Everything that can be wrong with a question shows before anything is asked.
    let mut requests = Vec::with_capacity(task.data.problems.len());
    for (line, problem) in &task.data.problems {
        let prompt = (task.prompt)(&session, problem).with_context(|| at(*line))?;
        let request = session.request(&prompt, Some(arguments.max_new_tokens));
        requests.push(request.with_context(|| at(*line))?);
    }
    let header = header(arguments, task, &session)?;
    let (mut log, found) = match &arguments.out {
        Some(path) => Log::open(path, &header).map(|(log, found)| (Some(log), found))?,
        None => (None, Vec::new()),
    };
    let mut found: HashMap<usize, Record> = found.into_iter().map(|r| (r.line, r)).collect();
    let all = task.data.problems.len();
    let mut records = Vec::with_capacity(all);
    let mut resumed = 0;
    for ((line, problem), request) in task.data.problems.iter().zip(&requests) {
        if let Some(record) = found.remove(line) {
            records.push(record);
            resumed += 1;
            continue;
        }
        let mut record = ask(&mut session, arguments, *line, request).with_context(|| at(*line))?;
        record.scored = (task.judge)(problem, &record.text).with_context(|| at(*line))?;
        if let Some(log) = &mut log {
            log.add(&record)?;
        }
        note(progress(records.len() + 1, all, &record));
        records.push(record);
    }
    let report = Report {
        task: task.name,
        model: &session.name,
        machine: session.machine(),
        settings: Settings {
            data: &arguments.data,
            data_sha256: &task.data.digest,
            decoder: arguments.decoder.to_string(),
            seed: arguments.seed,
            max_new_tokens: arguments.max_new_tokens.get(),
            check: arguments.check,
            weights: session.weights(),
            context: session.model.lm.context_length(),
            judged: &task.judged,
            resumed,
        },
        results: Results::of(&records),
        details: (task.more)(&records),
    };
    let mut out = console::out();
    if !arguments.json.json {
        write!(out, "{}", report.results.table())?;
        for (key, value) in report.details.as_object().into_iter().flatten() {
            writeln!(out, "{}: {value}", key.replace('_', " "))?;
        }
    }
    writeln!(out, "{}", serde_json::to_string(&report)?)?;
    drop(out);
    if let Some(wrong) = records.iter().find(|r| r.ar.as_ref().is_some_and(|ar| !ar.exact)) {
        bail!("{}: {} differs from ar", at(wrong.line), arguments.decoder);
    }
    Ok(())
}

/// One answer, not judged yet.
fn ask(
    session: &mut Session,
    arguments: &EvalArgs,
    line: usize,
    request: &cllm_decode::Request,
) -> anyhow::Result<Record> {
    let mut decoders = vec![arguments.decoder];
    if arguments.check {
        decoders.push(DecoderSpec::Ar);
    }
    let lm = &mut session.model.lm;
    let runs = contest::compete(lm, &decoders, &session.making, request, line)?;
    let run = &runs[0];
    let tokens = &run.answer.tokens;
    let mut text = AnswerText::new(&session.model.tokenizer, &[])?;
    for &token in tokens {
        text.push(token);
    }
    text.finish();
    let (fast, stationary) = settling::count(run.forwards.iter().map(|(it, _)| it), tokens);
    Ok(Record {
        line,
        text: text.into_text(),
        finish_reason: finish_reason(run.answer.finish).to_owned(),
        scored: Scored::default(),
        figures: Figures::of([run]),
        fast_forwarded_tokens: fast,
        stationary_tokens: stationary,
        four_grams: contest::four_grams(tokens),
        ar: runs
            .get(1)
            .map(|ar| Against { exact: ar.answer.tokens == *tokens, figures: Figures::of([ar]) }),
    })
}

fn header<P>(
    arguments: &EvalArgs,
    task: &Task<'_, P>,
    session: &Session,
) -> anyhow::Result<Header> {
    Ok(Header {
        format: "cllm-eval".into(),
        version: 1,
        task: task.name.into(),
        data: task.data.digest.clone(),
        model: session.name.clone(),
        model_sha256: session.sha256()?,
        weights: session.weights(),
        decoder: arguments.decoder.to_string(),
        seed: arguments.seed,
        max_new_tokens: arguments.max_new_tokens.get(),
        check: arguments.check,
        judged: task.judged.clone(),
    })
}

/// One line an answer, for whoever waits.
fn progress(done: usize, all: usize, record: &Record) -> String {
    let scores = record.scored.scores.iter().map(|(name, score)| {
        format!("{name} {}", score.map_or("-", |right| if right { "yes" } else { "no" }))
    });
    let figures = &record.figures;
    format!(
        "[{done}/{all}] {}, accepted {}, {} tokens/s",
        scores.collect::<Vec<_>>().join(", "),
        cell(figures.mean_acceptance_length, 2),
        cell(figures.tokens_per_second, 1)
    )
}
