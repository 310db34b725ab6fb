//! Models out: a checkpoint, with its adapters merged in, as files that other programs load.
//!
//! * `folder`: a Hugging Face folder; `describe` makes `config.json` and the tokenizer's
//!   files where the checkpoint is a GGUF file and has none.
//! * `gguf`: a GGUF file; `metadata` makes its metadata where the checkpoint is a folder.
//!
//! Tensors are merged, converted and written one by one, so that memory holds one of them.
//! Files appear when they are complete.

mod describe;
mod folder;
mod gguf;
mod metadata;

pub use folder::{SHARD_BYTES, write_folder};
pub use gguf::{GgufType, write_gguf};

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::weights::Checkpoint;

/// One tensor, checked to be numbers that the new type can hold.
fn tensor(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    name: &str,
    largest: f32,
) -> Result<Vec<f32>, ModelError> {
    let values = checkpoint.tensor_f32(config, name)?;
    match values.iter().find(|value| value.is_nan() || value.abs() > largest) {
        Some(value) => Err(ModelError::Tensor {
            name: name.to_owned(),
            what: format!("expected numbers up to {largest}, found {value}"),
        }),
        None => Ok(values),
    }
}
