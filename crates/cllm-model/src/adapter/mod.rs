//! LoRA adapters: `W' = W + scale B A` for some of a network's matrices, with `A` of shape
//! `(r, in)`, `B` of `(out, r)` (Hu et al. 2021), in the files of Hugging Face's PEFT.
//!
//! ```text
//! DIR/adapter_config.json          rank, alpha, which modules
//! DIR/adapter_model.safetensors    base_model.model.NAME.lora_A.weight, ... .lora_B.weight
//! ```
//!
//! * `config`: `adapter_config.json`, and which modules it means.
//! * `files`: reading and writing a folder.
//! * `mean`: the weighted mean of several.
//! * `extract`, `low_rank`: the difference of two models as an adapter.
//! * `merge`: adding adapters to matrices, in f32, before these are packed.
//!
//! [`Checkpoint::add_adapter`] makes a checkpoint give merged weights; everything that reads
//! weights then has them. Left out, each an error: DoRA, trained biases, modules saved
//! whole, adapters of the embedding, and initialisations that change the base (PiSSA,
//! OLoRA, CorDA, LoftQ).
//!
//! [`Checkpoint::add_adapter`]: crate::Checkpoint::add_adapter

mod config;
mod extract;
mod files;
mod low_rank;
mod mean;
mod merge;

use std::path::{Path, PathBuf};

pub use config::{LoraConfig, Targets};
pub use extract::{Extracted, LeftOut};
pub use files::{FloatType, PREFIX};
pub(crate) use merge::Merge;

/// The update of one matrix, `scale B A`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// The module's Hugging Face name: `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// Rank r.
    pub rank: usize,
    /// Columns of the matrix.
    pub inputs: usize,
    /// Rows of the matrix.
    pub outputs: usize,
    /// `(r, inputs)`, row-major.
    pub a: Vec<f32>,
    /// `(outputs, r)`, row-major.
    pub b: Vec<f32>,
}

/// An adapter: its settings and its matrices.
#[derive(Debug, Clone)]
pub struct Adapter {
    path: PathBuf,
    config: LoraConfig,
    pairs: Vec<LoraPair>,
}

impl Adapter {
    /// The folder it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its settings.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Its matrices, sorted by module.
    pub fn pairs(&self) -> &[LoraPair] {
        &self.pairs
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.pairs.iter().map(|pair| pair.a.len() + pair.b.len()).sum()
    }

    /// Whether a folder holds an adapter.
    pub fn is_folder(dir: &Path) -> bool {
        dir.join(files::CONFIG).is_file()
    }
}
