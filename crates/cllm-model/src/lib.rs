//! Llama-family models: the files they come in, their tokenizer and chat template, and
//! the network itself.
//!
//! * [`config`]: what kind of network it is, from `config.json` or GGUF metadata.
//! * [`weights`]: the files, GGUF and safetensors, and their tensors.

pub mod config;
pub mod error;
pub mod weights;

pub use config::ModelConfig;
pub use error::ModelError;
pub use weights::Checkpoint;
