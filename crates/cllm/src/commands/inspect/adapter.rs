//! What an adapter's folder holds.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use cllm_model::Adapter;
use serde::Serialize;

use crate::console::{self, BOLD};
use crate::table::{Table, count};

/// The JSON document, and what the report of a model says of its adapters.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    path: String,
    base_model: Option<String>,
    r: usize,
    lora_alpha: f64,
    use_rslora: bool,
    parameters: usize,
    modules: usize,
    kinds: Vec<Kind>,
}

/// The modules of one name, over all layers.
#[derive(Debug, Serialize)]
struct Kind {
    /// The end of the name: `q_proj`.
    module: String,
    count: usize,
    rank: usize,
    scale: f32,
    inputs: usize,
    outputs: usize,
}

impl Summary {
    /// Of an adapter that was read.
    pub(super) fn of(adapter: &Adapter) -> Self {
        let config = adapter.config();
        let mut kinds: Vec<Kind> = Vec::new();
        for pair in adapter.pairs() {
            let module = pair.module.rsplit('.').next().unwrap_or_default();
            let (rank, scale) = (pair.rank, config.scale(&pair.module));
            let same = |kind: &&mut Kind| {
                (kind.module.as_str(), kind.rank, kind.scale) == (module, rank, scale)
            };
            if let Some(kind) = kinds.iter_mut().find(same) {
                kind.count += 1;
            } else {
                let (inputs, outputs) = (pair.inputs, pair.outputs);
                let module = module.to_owned();
                kinds.push(Kind { module, count: 1, rank, scale, inputs, outputs });
            }
        }
        Self {
            path: adapter.path().display().to_string(),
            base_model: config.base_model_name_or_path.clone(),
            r: config.r,
            lora_alpha: config.lora_alpha,
            use_rslora: config.use_rslora,
            parameters: adapter.parameters(),
            modules: adapter.pairs().len(),
            kinds,
        }
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        let (modules, parameters) = (self.modules, count(self.parameters as u64));
        format!("{}: rank {}, {modules} modules, {parameters} parameters", self.path, self.r)
    }
}

/// Reports on the folder of an adapter.
pub(super) fn inspect(folder: &Path, json: bool) -> anyhow::Result<()> {
    let failed = || format!("cannot inspect the adapter `{}`", folder.display());
    let summary = Summary::of(&Adapter::open(folder).with_context(failed)?);
    if json {
        writeln!(console::out(), "{}", serde_json::to_string(&summary)?)?;
        return Ok(());
    }
    let rslora = if summary.use_rslora { ", rsLoRA" } else { "" };
    let mut out = console::coloured();
    for (name, value) in [
        ("adapter", summary.path.clone()),
        ("base model", summary.base_model.clone().unwrap_or_else(|| "-".into())),
        ("rank", format!("{}, alpha {}{rslora}", summary.r, summary.lora_alpha)),
        ("parameters", count(summary.parameters as u64)),
    ] {
        writeln!(out, "{BOLD}{name:<14}{BOLD:#}{value}")?;
    }
    let mut table = Table::new(1, ["module", "count", "rank", "scale", "inputs", "outputs"]);
    for kind in &summary.kinds {
        table.row([
            kind.module.clone(),
            kind.count.to_string(),
            kind.rank.to_string(),
            kind.scale.to_string(),
            kind.inputs.to_string(),
            kind.outputs.to_string(),
        ]);
    }
    write!(out, "\n{table}")?;
    Ok(())
}
