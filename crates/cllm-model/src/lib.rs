//! Llama-family models: the files they come in, their tokenizer and chat template, and
//! the network itself.
//!
//! * [`config`]: what kind of network it is, from `config.json` or GGUF metadata.

pub mod config;
pub mod error;

pub use config::ModelConfig;
pub use error::ModelError;
