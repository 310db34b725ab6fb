//! `cllm inspect`: what a model file holds and what it needs.
//!
//! Only headers are read and the tokenizer built, so it is quick for a file of any size.
//! The memory is computed from shapes, as a load would need it.

mod adapter;

use std::io::Write;

use anyhow::Context;
use clap::Args;
use clap::builder::FalseyValueParser;
use cllm_kernels::{Format, KvFormat, KvStore};
use cllm_model::config::RopeScaling;
use cllm_model::weights::TensorView;
use cllm_model::{
    Adapter, ChatTemplate, Checkpoint, Compute, GgufTables, LoadOptions, ModelConfig, ModelError,
    Tokenizer,
};
use serde::Serialize;

use crate::cli::{JsonArgs, ModelArgs};
use crate::console::{self, BOLD};
use crate::progress::Meter;
use crate::source::{self, SourceOptions};
use crate::table::{Table, bytes, count};

/// Show what a model file holds and what it needs.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A folder of trajectories or of an adapter, in place of a model.
    #[arg(value_name = "DIR", conflicts_with = "model")]
    folder: Option<std::path::PathBuf>,

    /// List every tensor.
    #[arg(long, env = "CLLM_TENSORS", value_parser = FalseyValueParser::new())]
    tensors: bool,

    #[command(flatten)]
    json: JsonArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// The report, and the JSON document. Sizes are counts of elements, memory is in bytes.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    path: String,
    file_format: &'static str,
    architecture: String,
    parameters: u64,
    layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    context_length: usize,
    rope_theta: f32,
    rope_scaling: String,
    /// Layers whose queries and keys are not rotated.
    unrotated_layers: usize,
    /// The window of layers that have one.
    sliding_window: Option<usize>,
    tie_word_embeddings: bool,
    qkv_bias: bool,
    qk_norm: bool,
    dtypes: Vec<DtypeCount>,
    memory: Memory,
    bos_token: Option<NamedToken>,
    stop_tokens: Vec<NamedToken>,
    chat_template: bool,
    /// The adapters given with it.
    adapters: Vec<adapter::Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<TensorLine>>,
}

#[derive(Debug, Serialize)]
struct DtypeCount {
    dtype: &'static str,
    tensors: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    /// The format the weights are computed in.
    compute: String,
    weights: u64,
    kv_per_token: u64,
    kv_full_context: u64,
}

#[derive(Debug, Serialize)]
struct NamedToken {
    id: u32,
    text: String,
}

#[derive(Debug, Serialize)]
struct TensorLine {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: u64,
    /// The format it is computed in.
    format: String,
    /// Bytes once loaded.
    loaded: u64,
}

/// Prints the report.
pub(crate) fn run(arguments: InspectArgs) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.folder {
        if Adapter::is_folder(folder) {
            return adapter::inspect(folder, arguments.json.json);
        }
        return crate::collect::manifest::inspect(folder, arguments.json.json);
    }
    let ModelArgs { model, context, run, adapter } = &arguments.model;
    let resolved = source::resolve(model, &Meter::stderr(), &SourceOptions::from_env()?)?;
    let failed = || format!("cannot inspect the model `{model}`");
    let mut checkpoint = Checkpoint::open(&resolved.path).with_context(failed)?;
    for folder in adapter {
        let opened = Adapter::open(folder).with_context(failed)?;
        checkpoint.add_adapter(opened).with_context(failed)?;
    }
    let adapters = checkpoint.adapters().iter().map(adapter::Summary::of).collect();
    let options =
        LoadOptions { compute: run.compute, adapters: adapter.clone(), ..LoadOptions::default() };
    let compute = options.effective_compute();
    let config = checkpoint.config().with_context(failed)?;
    let (tokenizer, chat) = texts(&checkpoint).with_context(failed)?;

    let tensors: Vec<_> = checkpoint
        .tensors()
        .map(|tensor| {
            let (format, loaded) = in_memory(&tensor, &config, compute);
            TensorLine {
                name: tensor.name.to_owned(),
                dtype: tensor.dtype.name(),
                bytes: tensor.data.len() as u64,
                shape: tensor.shape,
                format,
                loaded,
            }
        })
        .collect();
    let positions = config.context_length.min(context.map_or(usize::MAX, Into::into));
    let named = |id: u32| NamedToken { id, text: tokenizer.token_text(id).into_owned() };
    let mut stops = config.eos_tokens.clone();
    stops.extend(tokenizer.end_of_turn_tokens());
    stops.sort_unstable();
    stops.dedup();

    let report = Report {
        model: model.to_string(),
        path: resolved.path.display().to_string(),
        file_format: if checkpoint.gguf().is_some() { "GGUF" } else { "safetensors" },
        architecture: format!("{:?}", config.architecture),
        parameters: tensors.iter().map(elements).sum(),
        layers: config.num_layers,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        heads: config.num_heads,
        kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
        context_length: config.context_length,
        rope_theta: config.rope_theta,
        rope_scaling: scaling(&config.rope_scaling),
        unrotated_layers: config.rope_layers.iter().filter(|rotated| !**rotated).count(),
        sliding_window: config.sliding_window.iter().copied().flatten().next(),
        tie_word_embeddings: config.tie_word_embeddings,
        qkv_bias: config.qkv_bias,
        qk_norm: config.qk_norm,
        dtypes: dtypes(&tensors),
        memory: memory(&config, &tensors, positions),
        bos_token: config.bos_token.or(tokenizer.bos()).map(named),
        stop_tokens: stops.into_iter().map(named).collect(),
        chat_template: chat.exists(),
        adapters,
        tensors: arguments.tensors.then_some(tensors),
    };
    if arguments.json.json {
        writeln!(console::out(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(console::coloured(), "{}", text(&report))?;
    }
    Ok(())
}

fn texts(checkpoint: &Checkpoint) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    match checkpoint.gguf() {
        Some(gguf) => {
            let tables = GgufTables::read(gguf)?;
            Ok((Tokenizer::from_gguf(&tables)?, ChatTemplate::from_gguf(&tables)?))
        }
        None => {
            let path = checkpoint.path();
            Ok((Tokenizer::from_folder(path)?, ChatTemplate::from_folder(path)?))
        }
    }
}

fn elements(tensor: &TensorLine) -> u64 {
    tensor.shape.iter().map(|&d| d as u64).product()
}

/// How many tensors of each type, the largest share first.
fn dtypes(tensors: &[TensorLine]) -> Vec<DtypeCount> {
    let mut counts: Vec<DtypeCount> = Vec::new();
    for tensor in tensors {
        match counts.iter_mut().find(|count| count.dtype == tensor.dtype) {
            Some(count) => {
                count.tensors += 1;
                count.bytes += tensor.bytes;
            }
            None => {
                counts.push(DtypeCount { dtype: tensor.dtype, tensors: 1, bytes: tensor.bytes })
            }
        }
    }
    counts.sort_by_key(|count| std::cmp::Reverse(count.bytes));
    counts
}

/// How a tensor is kept once loaded: matrices in a compute format, vectors in f32.
fn in_memory(tensor: &TensorView<'_>, config: &ModelConfig, compute: Compute) -> (String, u64) {
    match tensor.shape[..] {
        [outputs, inputs] => {
            let is_head = outputs == config.vocab_size;
            let format = compute.format(std::slice::from_ref(tensor), is_head);
            let minima = tensor.has_integers(format) && !tensor.is_symmetric();
            (format.to_string(), format.bytes(minima, outputs, inputs) as u64)
        }
        _ => ("f32".into(), 4 * tensor.shape.iter().product::<usize>() as u64),
    }
}

fn memory(config: &ModelConfig, tensors: &[TensorLine], positions: usize) -> Memory {
    let mut formats: Vec<&str> = Vec::new();
    for tensor in tensors.iter().filter(|tensor| tensor.shape.len() > 1) {
        if !formats.contains(&tensor.format.as_str()) {
            formats.push(&tensor.format);
        }
    }
    formats.sort_unstable();
    let exact = formats == ["f32"];
    let kv_format = KvFormat::beside(if exact { Format::F32 } else { Format::W8 });
    let slot = KvStore::slot_bytes(kv_format, config.num_kv_heads, config.head_dim);
    let kv_per_token = (config.num_layers * slot) as u64;
    Memory {
        compute: formats.join("+"),
        weights: tensors.iter().map(|tensor| tensor.loaded).sum(),
        kv_per_token,
        kv_full_context: kv_per_token * positions as u64,
    }
}

fn scaling(scaling: &RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "none".into(),
        RopeScaling::Linear { factor } => format!("linear, factor {factor}"),
        RopeScaling::Llama3 { factor, original_context, .. } => {
            format!("llama3, factor {factor}, trained on {original_context} positions")
        }
        RopeScaling::Factors(factors) => format!("{} factors of the file", factors.len()),
    }
}

/// The report for people.
fn text(report: &Report) -> String {
    let token = |token: &NamedToken| format!("{} {:?}", token.id, token.text);
    let tokens = |tokens: &[NamedToken]| tokens.iter().map(token).collect::<Vec<_>>().join(", ");
    let mut flags = Vec::new();
    for (set, flag) in [
        (report.tie_word_embeddings, "tied embeddings".to_owned()),
        (report.qkv_bias, "QKV bias".to_owned()),
        (report.qk_norm, "QK norm".to_owned()),
        (report.unrotated_layers > 0, format!("{} layers without RoPE", report.unrotated_layers)),
    ] {
        if set {
            flags.push(flag);
        }
    }
    if let Some(window) = report.sliding_window {
        flags.push(format!("sliding window {window}"));
    }
    let memory = &report.memory;
    let rows = [
        ("model", report.model.clone()),
        ("path", report.path.clone()),
        ("architecture", format!("{} ({})", report.architecture, report.file_format)),
        ("parameters", count(report.parameters)),
        ("layers", report.layers.to_string()),
        ("hidden", format!("{}, feed-forward {}", report.hidden_size, report.intermediate_size)),
        (
            "heads",
            format!(
                "{} of {}, {} for keys and values",
                report.heads, report.head_dim, report.kv_heads
            ),
        ),
        ("vocabulary", count(report.vocab_size as u64)),
        ("context", count(report.context_length as u64)),
        ("RoPE", format!("theta {}, scaling {}", report.rope_theta, report.rope_scaling)),
        ("flags", if flags.is_empty() { "-".into() } else { flags.join(", ") }),
        ("weights", format!("{} in {}", bytes(memory.weights), memory.compute)),
        (
            "KV cache",
            format!(
                "{} a token, {} at full context",
                bytes(memory.kv_per_token),
                bytes(memory.kv_full_context)
            ),
        ),
        ("bos", report.bos_token.as_ref().map_or_else(|| "-".into(), token)),
        ("stop tokens", tokens(&report.stop_tokens)),
        ("chat template", if report.chat_template { "yes" } else { "no" }.into()),
    ];
    let adapters = report.adapters.iter().map(|adapter| ("adapter", adapter.line()));
    let mut text = String::new();
    for (name, value) in rows.into_iter().chain(adapters) {
        text += &format!("{BOLD}{name:<14}{BOLD:#}{value}\n");
    }
    let mut table = Table::new(1, ["dtype", "tensors", "bytes"]);
    for dtype in &report.dtypes {
        table.row([dtype.dtype.into(), dtype.tensors.to_string(), bytes(dtype.bytes)]);
    }
    text += &format!("\n{table}");
    if let Some(tensors) = &report.tensors {
        let mut table = Table::new(2, ["tensor", "dtype", "shape", "bytes"]);
        for tensor in tensors {
            let shape = tensor.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            table.row([tensor.name.clone(), tensor.dtype.into(), shape, bytes(tensor.bytes)]);
        }
        text += &format!("\n{table}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, dtype: &'static str, shape: &[usize], bytes: u64) -> TensorLine {
        let (format, loaded) = ("f32".into(), bytes);
        TensorLine { name: name.into(), dtype, shape: shape.into(), bytes, format, loaded }
    }

    #[test]
    fn dtypes_are_counted_largest_first() {
        let tensors = [
            line("norm", "F32", &[8], 32),
            line("a", "Q4_1", &[32, 32], 640),
            line("b", "Q4_1", &[32, 32], 640),
        ];
        let counts = dtypes(&tensors);
        let found: Vec<_> = counts.iter().map(|c| (c.dtype, c.tensors, c.bytes)).collect();
        assert_eq!(found, [("Q4_1", 2, 1280), ("F32", 1, 32)]);
        assert_eq!(tensors.iter().map(elements).sum::<u64>(), 2056);
    }

    #[test]
    fn rope_scaling_reads_well() {
        assert_eq!(scaling(&RopeScaling::None), "none");
        assert_eq!(scaling(&RopeScaling::Linear { factor: 2.0 }), "linear, factor 2");
        assert_eq!(scaling(&RopeScaling::Factors(vec![1.0; 32])), "32 factors of the file");
    }
}
