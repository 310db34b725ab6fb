//! `cllm merge`: a model with its adapters merged in, as files that other programs load.
//!
//! Without an adapter it converts: GGUF to a Hugging Face folder and back. With `--format peft` it
//! writes the weighted mean of adapters as an adapter.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use cllm_model::adapter::FloatType;
use cllm_model::export::{self, GgufType, SHARD_BYTES};
use cllm_model::{Adapter, Checkpoint, ModelError};
use serde::Serialize;

use crate::cli::{JsonArgs, NumberArgs, NumberType};
use crate::console;
use crate::exit::bad_input;
use crate::progress::Meter;
use crate::source::{self, ModelRef, SourceOptions};
use crate::table::bytes;

const EXAMPLES: &str = "Examples:
  cllm merge --adapter adapters/gsm8k --out merged            a Hugging Face folder
  cllm merge --adapter adapters/gsm8k --out merged.gguf --type q8_0
  cllm merge --format peft --adapter cllm --adapter teacher --weights 0.9,0.1 --out mean";

/// Write a model with its adapters merged in, for transformers or llama.cpp.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MergeArgs {
    /// Model: as for `cllm generate`.
    #[arg(short, long, env = "CLLM_MODEL", value_name = "MODEL", default_value = "default")]
    model: ModelRef,

    /// Folder of a LoRA adapter in PEFT's files; may be given several times, they add up.
    #[arg(long, env = "CLLM_ADAPTER", value_name = "DIR")]
    adapter: Vec<PathBuf>,

    /// What to write: a folder, or a file that ends in .gguf. It must not exist.
    #[arg(short, long, env = "CLLM_OUT", value_name = "PATH")]
    out: PathBuf,

    /// Of each adapter, with `--format peft`: its share of their mean. They add up to 1.
    #[arg(long, env = "CLLM_WEIGHTS", value_name = "W,..", value_delimiter = ',')]
    weights: Vec<f64>,

    /// Form of the output [default: gguf for a path that ends in .gguf, else hf].
    #[arg(long, env = "CLLM_FORMAT", value_enum, value_name = "FORMAT")]
    format: Option<Form>,

    #[command(flatten)]
    numbers: NumberArgs,

    #[command(flatten)]
    json: JsonArgs,
}

/// The form of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// A Hugging Face folder: config.json, tokenizer.json, safetensors.
    Hf,
    /// One GGUF file.
    Gguf,
    /// An adapter in PEFT's files: the weighted mean of those given, which were trained one from the
    /// other.
    Peft,
}

/// The JSON document.
#[derive(Serialize)]
struct Report<'a> {
    model: String,
    adapters: &'a [PathBuf],
    out: &'a Path,
    format: Form,
    r#type: NumberType,
    bytes: u64,
}

/// Writes the files.
pub(crate) fn run(arguments: MergeArgs) -> anyhow::Result<()> {
    let MergeArgs { model, adapter: adapters, out, weights, format, numbers, json } = &arguments;
    let named = if out.extension().is_some_and(|e| e == "gguf") { Form::Gguf } else { Form::Hf };
    let format = format.unwrap_or(named);
    if out.exists() {
        bad_input!("--out {}: exists already; expected a new path", out.display());
    }
    let float = numbers.number.float();
    match float {
        Some(float) if format == Form::Peft => mean(adapters, weights)?.write(out, float),
        None if format != Form::Gguf => {
            bad_input!("--type q8_0: only a GGUF file can hold it; expected f32, f16 or bf16");
        }
        _ if !weights.is_empty() => {
            bad_input!("--weights: only with --format peft; elsewhere adapters add up");
        }
        _ => {
            let meter = Meter::stderr();
            let resolved = source::resolve(model, &meter, &SourceOptions::from_env()?)?;
            let failed = || format!("cannot merge into the model `{model}`");
            let mut checkpoint = Checkpoint::open(&resolved.path).with_context(failed)?;
            for adapter in adapters {
                let adapter = Adapter::open(adapter).with_context(failed)?;
                checkpoint.add_adapter(adapter).with_context(failed)?;
            }
            write(&checkpoint, out, format, float)
        }
    }
    .with_context(|| format!("cannot write {}", out.display()))?;

    let size = size(out).with_context(|| out.display().to_string())?;
    if json.json {
        let (model, out) = (model.to_string(), out.as_path());
        let report = Report { model, adapters, out, format, r#type: numbers.number, bytes: size };
        writeln!(console::out(), "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(console::out(), "{}", out.display())?;
        console::note(format_args!("{} adapters merged, {}", adapters.len(), bytes(size)));
    }
    Ok(())
}

/// Writes a model; without a float type it is Q8_0.
fn write(
    checkpoint: &Checkpoint,
    out: &Path,
    format: Form,
    float: Option<FloatType>,
) -> Result<(), ModelError> {
    match (format, float) {
        (Form::Hf, Some(float)) => export::write_folder(checkpoint, out, float, SHARD_BYTES),
        (_, Some(FloatType::F32)) => export::write_gguf(checkpoint, out, GgufType::F32),
        (_, Some(FloatType::F16)) => export::write_gguf(checkpoint, out, GgufType::F16),
        (_, Some(FloatType::Bf16)) => export::write_gguf(checkpoint, out, GgufType::Bf16),
        (_, None) => export::write_gguf(checkpoint, out, GgufType::Q8_0),
    }
}

/// The mean of adapters by these weights.
fn mean(adapters: &[PathBuf], weights: &[f64]) -> anyhow::Result<Adapter> {
    if adapters.is_empty() {
        bad_input!("--format peft: expected --adapter");
    }
    let weights = if (weights.len(), adapters.len()) == (0, 1) { &[1.0] } else { weights };
    if weights.len() != adapters.len() {
        let (weights, adapters) = (weights.len(), adapters.len());
        bad_input!("--weights: expected one for each of {adapters} adapters, found {weights}");
    }
    let open = |(&weight, dir): (_, &PathBuf)| Ok((weight, Adapter::open(dir)?));
    let parts = weights.iter().zip(adapters).map(open).collect::<Result<Vec<_>, ModelError>>();
    Ok(Adapter::mean(&parts?)?)
}

/// Bytes of a file, or of the files of a folder.
pub(super) fn size(path: &Path) -> std::io::Result<u64> {
    if !path.is_dir() {
        return Ok(path.metadata()?.len());
    }
    let mut sum = 0;
    for entry in path.read_dir()? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}
