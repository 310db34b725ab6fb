//! `cllm report`: one page of all that was measured, complete in itself.
//!
//! The page is `page/`, plain HTML, CSS and JavaScript without a library; what goes in is one
//! JSON document. It loads nothing, and its Content-Security-Policy forbids that it could.
//! Nothing is computed here but the analysis of traces, if none is given.

mod documents;
mod page;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::analysis::{Named, Settings, analyse};
use crate::collect::whole;
use crate::console;
use crate::exit::bad_input;
use crate::named_file::{NamedFile, twice};
use crate::trace::read::{Traced, read};

const EXAMPLES: &str = "Examples:
  cllm analyze --data prompts.jsonl --out traces --check --probabilities \\
    --variant teacher=adapters/gsm8k-teacher --variant cllm=adapters/gsm8k-cllm
  cllm report --out report.html --trace ar=traces/cllm-ar.jsonl \\
    --trace teacher=traces/teacher.jsonl --trace cllm=traces/cllm.jsonl \\
    --eval eval.json --bench bench.json --train-log cllm=runs/cllm/log.jsonl";

/// Write one self-contained HTML page of traces, analyses, evaluations, benchmarks, training.
///
/// Every file may have a name to call it by, NAME=FILE. Traces of the same prompt race each
/// other. A file may be the whole standard output of a command: its last line counts.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// The page.
    #[arg(long, env = "CLLM_OUT", value_name = "FILE")]
    out: PathBuf,

    /// Traces, of `generate --trace` or `analyze --out`.
    #[arg(long, env = "CLLM_TRACE", value_name = "NAME=FILE", num_args = 1..)]
    trace: Vec<NamedFile>,

    /// Output of `analyze --json` [default: an analysis of the traces].
    #[arg(long, env = "CLLM_ANALYZE", value_name = "FILE", num_args = 1..)]
    analyze: Vec<NamedFile>,

    /// Outputs of `eval`.
    #[arg(long, env = "CLLM_EVAL", value_name = "FILE", num_args = 1..)]
    eval: Vec<NamedFile>,

    /// Outputs of `bench decode`, `bench forward` and `bench accuracy`.
    #[arg(long, env = "CLLM_BENCH", value_name = "FILE", num_args = 1..)]
    bench: Vec<NamedFile>,

    /// `log.jsonl` of training runs.
    #[arg(long, env = "CLLM_TRAIN_LOG", value_name = "FILE", num_args = 1..)]
    train_log: Vec<NamedFile>,

    /// Have the first N answers of each file of traces in the page; the analysis counts all.
    #[arg(long, env = "CLLM_ANSWERS", value_name = "N", default_value = "20")]
    answers: NonZeroUsize,
}

/// What the page draws.
#[derive(Debug, Serialize)]
struct Data {
    format: &'static str,
    version: u32,
    traces: Vec<Traces>,
    analyses: Vec<Document>,
    evals: Vec<Document>,
    benches: Vec<Document>,
    trainings: Vec<Training>,
}

#[derive(Debug, Serialize)]
struct Traces {
    name: String,
    answers: Vec<Traced>,
}

#[derive(Debug, Serialize)]
struct Document {
    name: String,
    document: Value,
}

#[derive(Debug, Serialize)]
struct Training {
    name: String,
    records: Vec<Value>,
}

/// Writes the page.
pub(crate) fn run(arguments: ReportArgs) -> anyhow::Result<()> {
    let ReportArgs { out, trace, analyze, eval, bench, train_log, answers } = arguments;
    let lists = [
        ("--trace", &trace),
        ("--analyze", &analyze),
        ("--eval", &eval),
        ("--bench", &bench),
        ("--train-log", &train_log),
    ];
    if lists.iter().all(|(_, files)| files.is_empty()) {
        bad_input!(
            "nothing to report: expected at least one of --trace, --analyze, --eval, --bench and \
             --train-log"
        );
    }
    for (flag, files) in lists {
        if let Some(name) = twice(files.iter().map(|file| file.name.as_str())) {
            bad_input!("{flag}: two files are called `{name}`: expected NAME=FILE for them");
        }
    }

    let named =
        trace.into_iter().map(|NamedFile { name, path }| Ok(Named { name, answers: read(&path)? }));
    let named = named.collect::<anyhow::Result<Vec<_>>>()?;
    let mut analyses = documents(&analyze, documents::analysis)?;
    if analyses.is_empty() && !named.is_empty() {
        let document = serde_json::to_value(analyse(&named, None, Settings::default())?)?;
        analyses.push(Document { name: "traces".into(), document });
    }
    let traces = named.into_iter().map(|Named { name, answers: mut list }| {
        list.truncate(answers.get());
        Traces { name, answers: list }
    });
    let data = Data {
        format: "cllm-report",
        version: 1,
        traces: traces.collect(),
        analyses,
        evals: documents(&eval, documents::eval)?,
        benches: documents(&bench, documents::bench)?,
        trainings: train_log
            .into_iter()
            .map(|NamedFile { name, path }| {
                Ok(Training { name, records: documents::train_log(&path)? })
            })
            .collect::<anyhow::Result<_>>()?,
    };
    let page = page::page(&serde_json::to_string(&data)?);
    whole::write(&out, "report", |file| Ok(file.write_all(page.as_bytes())?))?;
    writeln!(console::out(), "{}", out.display())?;
    Ok(())
}

fn documents(
    files: &[NamedFile],
    check: fn(&Value) -> Result<(), String>,
) -> anyhow::Result<Vec<Document>> {
    let document = |NamedFile { name, path }: &NamedFile| {
        let document = documents::read(path, check)?;
        Ok(Document { name: name.clone(), document })
    };
    files.iter().map(document).collect()
}
