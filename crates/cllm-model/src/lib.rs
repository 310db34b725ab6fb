//! Llama-family models: the files they come in, their tokenizer and chat template, and
//! the network itself.
//!
//! * [`config`]: what kind of network it is, from `config.json` or GGUF metadata.
//! * [`tokenizer`]: text to tokens and back.

pub mod config;
pub mod error;
pub mod tokenizer;

pub use config::ModelConfig;
pub use error::ModelError;
pub use tokenizer::{GgufTables, TextStream, Tokenizer};
