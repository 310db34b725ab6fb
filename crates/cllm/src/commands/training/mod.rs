//! What `sft` and `train` share: settings, hold-out, the run and its report.

pub(crate) mod examples;
pub(crate) mod flags;
mod host;
mod learner;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use clap::builder::FalseyValueParser;
use cllm_decode::CausalLm;
use cllm_model::adapter::FloatType;
use cllm_train::TrainError;
use cllm_train::config::{AdapterDtype, Config, parse_yaml};
use cllm_train::data::{DataSet, Example};
use cllm_train::train::{self, Outcome, Run, Summary};
use serde_json::{Map, Value, json};

use crate::cli::ModelArgs;
use crate::console::{self, note};
use crate::exit::{BadInput, Interrupted, bad_input};
use crate::session::Session;
use crate::source;
use host::Terminal;
use learner::{Prompts, Trained};

/// Arguments of both commands.
#[derive(Debug, Args)]
pub(crate) struct TrainingArgs {
    /// Settings: a YAML file with transformers' names (docs/train.md). Flags win.
    #[arg(long, env = "CLLM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Keep N of the examples apart, never trained on, to evaluate with.
    #[arg(long, env = "CLLM_EVAL_HOLDOUT", value_name = "N", conflicts_with = "eval_data")]
    pub(crate) eval_holdout: Option<usize>,

    /// Examples to evaluate with, in the form of the training data.
    #[arg(long, env = "CLLM_EVAL_DATA", value_name = "PATH")]
    pub(crate) eval_data: Option<PathBuf>,

    /// Go on from the last checkpoint in the output folder, if there is one.
    #[arg(long, env = "CLLM_RESUME", value_parser = FalseyValueParser::new())]
    resume: bool,

    #[command(flatten)]
    flags: flags::Flags,

    /// Print every record of log.jsonl to standard output too, as it is made.
    #[arg(long, env = "CLLM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

impl TrainingArgs {
    /// The settings: defaults, file, flags, and what the command insists on.
    pub(crate) fn settings(&self, fixed: Map<String, Value>) -> anyhow::Result<Config> {
        let mut layers = Vec::new();
        let name = self.config.as_ref().map(|path| path.display().to_string());
        if let (Some(path), Some(name)) = (&self.config, &name) {
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) => bad_input!("{name}: {error}"),
            };
            let keys = parse_yaml(&text).map_err(|error| BadInput(format!("{name}: {error}")))?;
            layers.push((name.as_str(), keys));
        }
        if let Value::Object(keys) = serde_json::to_value(&self.flags)? {
            layers.push(("the command line", keys));
        }
        layers.push(("this command", fixed));
        let config = Config::from_layers(&layers).map_err(failed)?;
        if config.output_dir.is_empty() {
            bad_input!("no output folder: give --output-dir, or `output_dir` in --config");
        }
        Ok(config)
    }
}

/// Examples and what they were made of.
pub(crate) struct Data {
    pub(crate) train: Vec<Example>,
    pub(crate) held_out: Vec<Example>,
    /// Hashes that a resumed run must find again.
    pub(crate) identity: BTreeMap<String, String>,
}

/// Runs the steps, prints the report.
pub(crate) fn run(
    arguments: &TrainingArgs,
    config: &Config,
    session: Session,
    mut data: Data,
) -> anyhow::Result<()> {
    for (which, examples) in [("training", &mut data.train), ("held-out", &mut data.held_out)] {
        let before = examples.len();
        let longest = config.max_length.min(session.model.lm.context_length());
        examples.retain(|example| example.positions() <= longest);
        if examples.len() < before {
            let dropped = before - examples.len();
            note(format_args!("{dropped} {which} examples of more than {longest} tokens dropped"));
        }
        if before > 0 && examples.is_empty() {
            bad_input!("every {which} example has more than {longest} tokens (`max_length`)");
        }
    }
    let mut identity = data.identity;
    identity.insert("model_sha256".into(), session.sha256()?);
    let tokenizer = source::tokenizer_sha256(&session.model.tokenizer);
    identity.insert("tokenizer_sha256".into(), tokenizer);
    let holdout = format!("{} examples", data.held_out.len());
    identity.insert("held_out".into(), holdout);

    let prompts = Prompts {
        prompts: data
            .held_out
            .iter()
            .take(config.eval_prompts)
            .map(|e| e.prompt().to_vec())
            .collect(),
        max_new_tokens: config.eval_max_new_tokens,
        block: config.eval_block,
    };
    crate::allocator::keep_freed_memory();
    let examples = data.train.len();
    let batches = config.batches();
    let held_out = (!data.held_out.is_empty()).then(|| DataSet::new(data.held_out, batches));
    let train_data = DataSet::new(data.train, batches);
    let mut learner = learner::learner(&session, config)?;
    // Not the session's name: the adapter that training went on from is in the new one.
    let base = arguments.model.model.to_string();
    let path = session.model.path.clone();
    let mut host = Terminal::new(session, config.clone(), prompts, arguments.json);
    let run = Run {
        config,
        identity: &identity,
        data: &train_data,
        held_out: held_out.as_ref(),
        folder: Path::new(&config.output_dir),
        resume: arguments.resume,
    };
    note(format_args!(
        "{examples} examples, {} held out, {} steps",
        held_out.as_ref().map_or(0, DataSet::len),
        train::steps::total(&train_data, config)
    ));
    let outcome = train::train(&run, &mut *learner, &mut host);
    drop(host);
    let outcome = outcome.map_err(failed)?;
    // A collapsed run has its checkpoints.
    let trained = match &outcome {
        Outcome::Collapsed { .. } => None,
        _ => {
            let kind = float_type(config.adapter_dtype);
            Some(learner::export(&*learner, config, (&path, &base), run.folder, kind)?)
        }
    };
    report(&outcome, trained.as_ref())
}

fn float_type(dtype: AdapterDtype) -> FloatType {
    match dtype {
        AdapterDtype::Float32 => FloatType::F32,
        AdapterDtype::Float16 => FloatType::F16,
        AdapterDtype::Bfloat16 => FloatType::Bf16,
    }
}

fn report(outcome: &Outcome, trained: Option<&Trained>) -> anyhow::Result<()> {
    let (adapter, model) = match trained {
        Some(Trained::Adapter(folder)) => (Some(folder), None),
        Some(Trained::Model(folder)) => (None, Some(folder)),
        None => (None, None),
    };
    let of = |name: &str, summary: &Summary| {
        json!({
            "outcome": name,
            "step": summary.step,
            "steps": summary.total,
            "loss": summary.loss,
            "num_input_tokens_seen": summary.num_input_tokens_seen,
            "adapter": adapter,
            "model": model,
            "checkpoint": summary.last,
            "best_checkpoint": summary.best.as_ref().map(|(path, _)| path),
            "best_metric": summary.best.as_ref().map(|(_, value)| value),
        })
    };
    let (document, end) = match outcome {
        Outcome::Finished(summary) => (of("finished", summary), Ok(())),
        Outcome::Interrupted(summary) => {
            note(format_args!("stopped; --resume goes on from {}", summary.last.display()));
            (of("interrupted", summary), Err(Interrupted.into()))
        }
        Outcome::Collapsed { what, keep } => {
            let document = json!({"outcome": "collapsed", "what": what, "checkpoint": keep});
            let kept = keep.as_ref().map_or("there was no checkpoint yet".into(), |path| {
                format!("{} is the checkpoint to use", path.display())
            });
            (document, Err(anyhow::anyhow!("training collapsed: {what}; {kept}")))
        }
    };
    writeln!(console::out(), "{document}")?;
    end
}

/// Settings and data that cannot be used have an exit code of their own.
fn failed(error: TrainError) -> anyhow::Error {
    match error {
        TrainError::BadInput(what) => BadInput(what).into(),
        other => other.into(),
    }
}

/// Splits off `holdout` of the examples, chosen by the seed.
pub(crate) fn hold_out(
    examples: Vec<Example>,
    holdout: usize,
    seed: u64,
) -> anyhow::Result<(Vec<Example>, Vec<Example>)> {
    if holdout >= examples.len() {
        bail!(BadInput(format!(
            "--eval-holdout {holdout}: expected less than the {} examples",
            examples.len()
        )));
    }
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&index| cllm_decode::counter::hash(seed ^ HOLD_OUT, index as u64));
    let apart: std::collections::HashSet<usize> = order.into_iter().take(holdout).collect();
    let indexed = examples.into_iter().enumerate();
    let (held, train): (Vec<_>, Vec<_>) = indexed.partition(|(index, _)| apart.contains(index));
    let plain = |pairs: Vec<(usize, Example)>| pairs.into_iter().map(|(_, e)| e).collect();
    Ok((plain(train), plain(held)))
}

/// Draws of the hold-out have nothing to do with those of the run.
const HOLD_OUT: u64 = 0x68_6f6c_645f_6f75;
