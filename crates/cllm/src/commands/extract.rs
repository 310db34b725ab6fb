//! `cllm extract`: what full training changed in a model, as a LoRA adapter.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use cllm_model::{Adapter, Checkpoint};
use serde::Serialize;

use super::merge::size;
use crate::cli::{JsonArgs, NumberArgs, NumberType};
use crate::console;
use crate::exit::bad_input;
use crate::progress::{Meter, Progress, Task};
use crate::source::{self, ModelRef, SourceOptions};
use crate::table::bytes;

const EXAMPLES: &str = "\
A full model is as large as its base; the difference of the two, at a rank that fits, is an adapter
that --adapter and PEFT read. It holds linear layers only: what training changed in embeddings, norms and
biases is left out, and said.

Example:
  cllm train --finetuning-type full --trajectories t --output-dir run
  cllm extract --trained run/model --lora-r 32 --out adapter";

/// Write the difference of two models as a LoRA adapter.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExtractArgs {
    /// The model before training: as for `cllm generate`.
    #[arg(short, long, env = "CLLM_MODEL", value_name = "MODEL", default_value = "default")]
    model: ModelRef,

    /// Folder of a LoRA adapter that it had; may be given several times. The one that is written then
    /// goes beside them.
    #[arg(long, env = "CLLM_ADAPTER", value_name = "DIR")]
    adapter: Vec<PathBuf>,

    /// The model after training: a Hugging Face folder or a GGUF file of the same shape.
    #[arg(long, env = "CLLM_TRAINED", value_name = "MODEL")]
    trained: ModelRef,

    /// Rank of the adapter.
    #[arg(long, env = "CLLM_LORA_R", value_name = "N", default_value = "32")]
    lora_r: std::num::NonZeroU16,

    /// Folder of the adapter. It must not exist.
    #[arg(short, long, env = "CLLM_OUT", value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    numbers: NumberArgs,

    #[command(flatten)]
    json: JsonArgs,
}

/// The JSON document.
#[derive(Serialize)]
struct Report<'a> {
    model: String,
    adapters: &'a [PathBuf],
    trained: String,
    out: &'a Path,
    lora_r: u16,
    r#type: NumberType,
    kept: f64,
    left_out: Vec<Left<'a>>,
    bytes: u64,
}

/// A tensor that the adapter does not hold.
#[derive(Serialize)]
struct Left<'a> {
    tensor: &'a str,
    change: f64,
}

/// Writes the adapter.
pub(crate) fn run(arguments: &ExtractArgs) -> anyhow::Result<()> {
    let ExtractArgs { model, adapter: adapters, trained, lora_r, out, numbers, json } = arguments;
    if out.exists() {
        bad_input!("--out {}: exists already; expected a new path", out.display());
    }
    let Some(float) = numbers.number.float() else {
        bad_input!("--type q8_0: only a GGUF file can hold it; expected f32, f16 or bf16");
    };
    let meter = Meter::stderr();
    let open = |model: &ModelRef| -> anyhow::Result<Checkpoint> {
        let resolved = source::resolve(model, &meter, &SourceOptions::from_env()?)?;
        let failed = || format!("cannot read the model `{model}`");
        Checkpoint::open(&resolved.path).with_context(failed)
    };
    let (mut base, after) = (open(model)?, open(trained)?);
    for dir in adapters {
        let failed = || format!("cannot merge into the model `{model}`");
        let adapter = Adapter::open(dir).with_context(failed)?;
        base.add_adapter(adapter).with_context(failed)?;
    }
    let extracted = {
        let mut task = None;
        let progress = |done: usize, all: usize| {
            let bytes = |values: usize| (values * size_of::<f32>()) as u64;
            let begin = || Task::begin(&meter as &dyn Progress, "linear layers", Some(bytes(all)));
            task.get_or_insert_with(begin).at(bytes(done));
        };
        Adapter::extract(&base, &after, usize::from(lora_r.get()), progress)?
    };
    let failed = || format!("cannot write {}", out.display());
    extracted.adapter.write(out, float).with_context(failed)?;
    let size = size(out).with_context(|| out.display().to_string())?;

    let left_out = extracted.left_out.iter();
    let left_out: Vec<Left<'_>> =
        left_out.map(|left| Left { tensor: &left.tensor, change: left.change }).collect();
    let kept = extracted.kept;
    if json.json {
        let (model, trained, lora_r) = (model.to_string(), trained.to_string(), lora_r.get());
        let out = out.as_path();
        let report = Report {
            model,
            adapters,
            trained,
            out,
            lora_r,
            r#type: numbers.number,
            kept,
            left_out,
            bytes: size,
        };
        writeln!(console::out(), "{}", serde_json::to_string(&report)?)?;
        return Ok(());
    }
    writeln!(console::out(), "{}", out.display())?;
    console::note(format_args!(
        "rank {lora_r}, {}: {:.1} % of the squared difference of all linear layers",
        bytes(size),
        100.0 * kept
    ));
    if let Some(most) = left_out.iter().max_by(|a, b| a.change.total_cmp(&b.change)) {
        console::note(format_args!(
            "not in an adapter, but different: {} norms, biases and embeddings; most of all {}, by \
             {:.2} % of its norm",
            left_out.len(),
            most.tensor,
            100.0 * most.change
        ));
    }
    Ok(())
}
