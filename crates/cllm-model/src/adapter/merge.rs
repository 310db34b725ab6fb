//! Adapters added to matrices: `W + sum of scale B A`, row by row, in f32.

use std::collections::{HashMap, HashSet};

use super::Adapter;
use crate::config::ModelConfig;
use crate::error::ModelError;

/// The adapters of a checkpoint, by tensor.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    adapters: Vec<Adapter>,
    /// By the name of a matrix: adapter, pair and scale, in the order they are added.
    updates: HashMap<String, Vec<(usize, usize, f32)>>,
}

impl Merge {
    /// Adds one more adapter, if it fits the network.
    pub(crate) fn push(
        &mut self,
        adapter: Adapter,
        config: &ModelConfig,
    ) -> Result<(), ModelError> {
        check(&adapter, config)?;
        for (i, pair) in adapter.pairs.iter().enumerate() {
            let update = (self.adapters.len(), i, adapter.config.scale(&pair.module));
            self.updates.entry(format!("{}.weight", pair.module)).or_default().push(update);
        }
        self.adapters.push(adapter);
        Ok(())
    }

    /// The adapters, in the order they are added.
    pub(crate) fn adapters(&self) -> &[Adapter] {
        &self.adapters
    }

    /// Whether an adapter changes this tensor.
    pub(crate) fn changes(&self, tensor: &str) -> bool {
        self.updates.contains_key(tensor)
    }

    /// Adds all updates to row `row`, counted in Hugging Face's order, of a tensor; `values`
    /// has the shape `(inputs,)`.
    pub(crate) fn add_to_row(&self, tensor: &str, row: usize, values: &mut [f32]) {
        let Some(updates) = self.updates.get(tensor) else { return };
        let mut delta = vec![0.0f32; values.len()];
        for &(adapter, pair, scale) in updates {
            let pair = &self.adapters[adapter].pairs[pair];
            delta.fill(0.0);
            let b = &pair.b[row * pair.rank..][..pair.rank];
            for (&b, a) in b.iter().zip(pair.a.chunks_exact(pair.inputs)) {
                for (delta, &a) in delta.iter_mut().zip(a) {
                    *delta += b * a;
                }
            }
            for (value, delta) in values.iter_mut().zip(&delta) {
                *value += scale * delta;
            }
        }
    }
}

/// Whether every matrix of the adapter is one of the network's, in its shape, and every
/// module that the adapter names has its matrices.
fn check(adapter: &Adapter, config: &ModelConfig) -> Result<(), ModelError> {
    let bad = |name: &str, what: String| {
        let what = format!("{what} ({})", adapter.path.display());
        Err(ModelError::Tensor { name: name.into(), what })
    };
    let matrices: HashMap<String, Vec<usize>> = config
        .tensors()
        .into_iter()
        .filter(|(name, shape)| shape.len() == 2 && name != "model.embed_tokens.weight")
        .filter_map(|(name, shape)| Some((name.strip_suffix(".weight")?.to_owned(), shape)))
        .collect();
    for pair in &adapter.pairs {
        let module = &pair.module;
        let Some(shape) = matrices.get(module) else {
            let what = if module == "lm_head" {
                "an adapter of an LM head that is the embedding, which is not supported"
            } else {
                "an adapter of a module that the network does not have"
            };
            return bad(module, what.to_owned());
        };
        let found = [pair.outputs, pair.inputs];
        if shape[..] != found {
            return bad(
                module,
                format!("the network has shape {shape:?}, the adapter is for {found:?}"),
            );
        }
    }
    let present: HashSet<&str> = adapter.pairs.iter().map(|pair| pair.module.as_str()).collect();
    let mut missing: Vec<&String> = matrices
        .keys()
        .filter(|module| adapter.config.targets(module) == Some(true))
        .filter(|module| !present.contains(module.as_str()))
        .collect();
    missing.sort();
    match missing.first() {
        Some(module) => bad(
            module,
            "is among the adapter's `target_modules`, but has no lora_A and lora_B".to_owned(),
        ),
        None => Ok(()),
    }
}
