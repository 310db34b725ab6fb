//! `cllm bench decode`: decoders side by side on a file of prompts.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::FalseyValueParser;
use cllm_decode::{CausalLm, Request, Token};
use serde::Serialize;

use crate::cli::{JsonArgs, ModelArgs, ReadingArgs};
use crate::console::{self, note};
use crate::contest::{self, Standing};
use crate::decoder::{DecoderList, DecoderSpec, DraftArgs};
use crate::exit::bad_input;
use crate::figures::{Figures, cell};
use crate::machine::Machine;
use crate::record;
use crate::run::Run;
use crate::sampling::{Chosen, SamplingArgs};
use crate::session::Session;
use crate::table::{Table, TableFormat};

const HELP: &str = "\
The file has one JSON object a line with one of the keys `prompt` (raw text), `messages`
(array of {\"role\", \"content\"}) or `question` (becomes a user message).

Decoders take turns prompt by prompt, in rotating order, each with an empty cache; `ar` is
always measured, as the baseline. tokens, forwards, seconds and the figures made of them
count the decode phase; prefill and totals stand beside them. The last line of standard
output is one JSON document. The exit code is 1 if any answer differs from AR's.

Example:
  cllm bench decode --prompts gsm8k.jsonl --decoders ar,jacobi:8,jacobi:16 --limit 50";

/// Compare decoders on a file of prompts: speed, acceptance, exactness.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct DecodeBenchArgs {
    /// Prompts, in a shape that `collect` takes.
    #[arg(long, env = "CLLM_PROMPTS", value_name = "FILE", alias = "data")]
    prompts: PathBuf,

    #[command(flatten)]
    reading: ReadingArgs,

    /// Decoders, separated by commas.
    #[arg(short, long, env = "CLLM_DECODERS", value_name = "LIST")]
    #[arg(default_value = "ar,auto,jacobi:8")]
    decoders: DecoderList,

    /// Longest answer, in tokens.
    #[arg(long, env = "CLLM_MAX_NEW_TOKENS", value_name = "N", default_value = "128")]
    max_new_tokens: NonZeroUsize,

    /// Use only the first N prompts.
    #[arg(long, env = "CLLM_LIMIT", value_name = "N")]
    limit: Option<NonZeroUsize>,

    /// Answer every prompt so many times with every decoder; all count.
    #[arg(long, env = "CLLM_REPEAT", value_name = "N", default_value = "1")]
    repeat: NonZeroUsize,

    /// Measure the engine at a given acceptance, without a model that has it: the guesses of
    /// `jacobi:N` are the known answer's, each right with this probability. Tokens are
    /// verified and exact as ever.
    #[arg(long, env = "CLLM_SYNTHETIC_ACCEPTANCE", value_name = "P")]
    synthetic_acceptance: Option<f64>,

    /// Form of the table.
    #[arg(long, env = "CLLM_FORMAT", value_enum, default_value = "table")]
    format: TableFormat,

    /// Write one JSON line for each decoder in place of table and document.
    #[arg(long, env = "CLLM_JSONL", conflicts_with = "json")]
    #[arg(value_parser = FalseyValueParser::new())]
    jsonl: bool,

    /// Decode the first prompt once with every decoder before measuring.
    #[arg(long, env = "CLLM_WARMUP", value_parser = FalseyValueParser::new())]
    warmup: bool,

    /// Seed of what is drawn: tokens, with a temperature, and first guesses.
    #[arg(long, env = "CLLM_SEED", value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    draft: DraftArgs,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// The JSON document.
#[derive(Serialize)]
struct Report {
    model: String,
    machine: Machine,
    settings: Settings,
    results: Vec<Standing>,
}

#[derive(Serialize)]
struct Settings {
    prompts: PathBuf,
    limit: Option<NonZeroUsize>,
    max_new_tokens: NonZeroUsize,
    seed: u64,
    repeat: NonZeroUsize,
    synthetic_acceptance: Option<f64>,
    #[serde(flatten)]
    sampling: Chosen,
    warmup: bool,
    context: usize,
    weights: String,
    /// What `seconds` and all that is made of it count.
    timed: &'static str,
}

/// A prompt ready to run, and the line it came from.
struct Job {
    line: usize,
    request: Request,
}

/// Measures.
pub(crate) fn run(arguments: DecodeBenchArgs) -> anyhow::Result<()> {
    let (decoders, baseline) = with_baseline(arguments.decoders.0.clone());
    check_synthetic(arguments.synthetic_acceptance, &decoders)?;
    let limit = arguments.limit.map(NonZeroUsize::get);
    let records = record::read_mixed(&arguments.prompts, limit, &arguments.reading.reading()?)?;
    let mut session = Session::load(&arguments.model)?;
    let at = |at: usize| record::place(&arguments.prompts, at);

    // Everything that can be wrong with a prompt shows before anything is measured.
    let mut jobs = Vec::with_capacity(records.len());
    for record in &records {
        let request = session.request(&record.prompt, Some(arguments.max_new_tokens));
        let mut request = request.with_context(|| at(record.at))?;
        request.sampling = arguments.sampling.sampling(arguments.seed, 0, None);
        jobs.push(Job { line: record.at, request });
    }

    session.prepare(&decoders, arguments.seed, &arguments.model, &arguments.draft)?;
    let (lm, tools) = (&mut session.model.lm, &session.making);
    if arguments.warmup {
        contest::compete(lm, &decoders, tools, &jobs[0].request, 0)?;
    }
    // All prompts, then all again: what drifts does so for every prompt alike.
    let all = jobs.len() * arguments.repeat.get();
    let mut runs = Vec::with_capacity(all);
    for (turn, job) in jobs.iter().cycle().take(all).enumerate() {
        if turn % jobs.len() == 0 {
            // Its own answer is no guess at an answer.
            tools.forget();
        }
        let round = match arguments.synthetic_acceptance {
            None => contest::compete(lm, &decoders, tools, &job.request, turn),
            Some(p) => contest::pretend(lm, &decoders, (p, arguments.seed), tools, &job.request),
        };
        let mut round = round.with_context(|| at(job.line))?;
        note(progress(turn + 1, all, &decoders, &round));
        // A long file of prompts should not fill the memory with traces.
        round.iter_mut().for_each(|run| run.forwards = Vec::new());
        runs.push(round);
    }

    let report = Report {
        model: session.name.clone(),
        machine: session.machine(),
        settings: Settings {
            prompts: arguments.prompts.clone(),
            limit: arguments.limit,
            max_new_tokens: arguments.max_new_tokens,
            seed: arguments.seed,
            repeat: arguments.repeat,
            synthetic_acceptance: arguments.synthetic_acceptance,
            sampling: Chosen::from(&jobs[0].request.sampling),
            warmup: arguments.warmup,
            context: session.model.lm.context_length(),
            weights: session.weights(),
            timed: "decode phase; prefill_seconds and total_seconds stand beside it",
        },
        results: contest::standings(&decoders, baseline, &runs),
    };
    let mut out = console::out();
    if arguments.jsonl {
        for result in &report.results {
            writeln!(out, "{}", serde_json::to_string(result)?)?;
        }
    } else {
        if !arguments.json.json {
            write!(out, "{}", table(&report.results).written(arguments.format))?;
        }
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    }
    drop(out);
    judge(&decoders, baseline, &runs, |turn| at(jobs[turn % jobs.len()].line))
}

/// Guesses at a given acceptance are those of a window.
fn check_synthetic(p: Option<f64>, decoders: &[DecoderSpec]) -> anyhow::Result<()> {
    let Some(p) = p else { return Ok(()) };
    if !(0.0..=1.0).contains(&p) {
        bad_input!("--synthetic-acceptance {p}: expected 0 to 1");
    }
    let window = |d: &&DecoderSpec| matches!(d, DecoderSpec::Ar | DecoderSpec::Jacobi { .. });
    if let Some(other) = decoders.iter().find(|decoder| !window(decoder)) {
        bad_input!("--synthetic-acceptance: expected `ar` and `jacobi:N` only, found `{other}`");
    }
    Ok(())
}

/// The decoders with `ar` among them, and its index.
fn with_baseline(mut decoders: Vec<DecoderSpec>) -> (Vec<DecoderSpec>, usize) {
    match decoders.iter().position(|decoder| *decoder == DecoderSpec::Ar) {
        Some(index) => (decoders, index),
        None => {
            decoders.insert(0, DecoderSpec::Ar);
            (decoders, 0)
        }
    }
}

/// One line a prompt, for whoever waits.
fn progress(done: usize, all: usize, decoders: &[DecoderSpec], round: &[Run]) -> String {
    let speeds = decoders.iter().zip(round).map(|(decoder, run)| {
        format!("{decoder} {} tokens/s", cell(Figures::of([run]).tokens_per_second, 1))
    });
    format!("[{done}/{all}] {}", speeds.collect::<Vec<_>>().join(", "))
}

fn table(results: &[Standing]) -> Table {
    let mut table = Table::new(
        1,
        [
            "decoder",
            "prompts",
            "tokens",
            "forwards",
            "rows",
            "ms/forward",
            "accepted",
            "tokens/s",
            "speed-up",
            "total s",
            "EOS",
            "exact",
        ],
    );
    for result in results {
        let figures = &result.figures;
        table.row([
            result.decoder.clone(),
            result.prompts.to_string(),
            figures.tokens.to_string(),
            figures.forwards.to_string(),
            figures.rows.to_string(),
            cell(figures.forward_ms, 2),
            cell(figures.mean_acceptance_length, 2),
            cell(figures.tokens_per_second, 1),
            cell(result.speedup, 2),
            format!("{:.1}", figures.total_seconds),
            format!("{:.0} %", 100.0 * result.eos_share),
            format!("{:.3}", result.exact),
        ]);
    }
    table
}

/// An error, exit code 1, if any answer differs from AR's.
fn judge(
    decoders: &[DecoderSpec],
    baseline: usize,
    runs: &[Vec<Run>],
    name: impl Fn(usize) -> String,
) -> anyhow::Result<()> {
    for (prompt, round) in runs.iter().enumerate() {
        let ar: &[Token] = &round[baseline].answer.tokens;
        for (decoder, run) in decoders.iter().zip(round) {
            if let Some(token) = contest::first_difference(&run.answer.tokens, ar) {
                bail!("{}: {decoder} differs from ar at token {token}", name(prompt));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::run_of;

    #[test]
    fn ar_is_always_measured() {
        let list = |text: &str| with_baseline(text.parse::<DecoderList>().unwrap().0);
        let names = |decoders: &[DecoderSpec]| {
            decoders.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let (decoders, baseline) = list("jacobi:8,jacobi:16");
        assert_eq!((names(&decoders).as_str(), baseline), ("ar jacobi:8 jacobi:16", 0));
        let (decoders, baseline) = list("jacobi:8,ar");
        assert_eq!((names(&decoders).as_str(), baseline), ("jacobi:8 ar", 1));
    }

    #[test]
    fn a_difference_is_an_error_that_names_prompt_decoder_and_token() {
        let (decoders, baseline) = with_baseline("jacobi:8".parse::<DecoderList>().unwrap().0);
        let run = || run_of(10, 10, 0.1, 0.2);
        let name = |prompt| format!("line {}", prompt + 1);
        assert!(judge(&decoders, baseline, &[vec![run(), run()]], name).is_ok());
        let mut wrong = run();
        wrong.answer.tokens[4] += 1;
        let runs = [vec![run(), run()], vec![run(), wrong]];
        let error = judge(&decoders, baseline, &runs, name).unwrap_err();
        assert_eq!(error.to_string(), "line 2: jacobi:8 differs from ar at token 4");
    }

    #[test]
    fn the_table_has_a_line_for_each_decoder() {
        let decoders: Vec<_> = "ar,jacobi:8".parse::<DecoderList>().unwrap().0;
        let runs = [vec![run_of(20, 20, 0.5, 2.0), run_of(20, 10, 0.5, 1.0)]];
        let text = table(&contest::standings(&decoders, 0, &runs)).to_string();
        let line = text.lines().nth(2).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        let expected = [
            "jacobi:8", "1", "20", "10", "10", "100.00", "2.00", "20.0", "2.00", "1.5", "0", "%",
            "1.000",
        ];
        assert_eq!(cells, expected);
    }
}
