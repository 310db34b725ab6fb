//! Llama-family models: the files they come in, their tokenizer and chat template, and
//! the network itself.
//!
//! * [`adapter`]: LoRA adapters, in PEFT's files.
//! * [`model`]: all of it under one roof, [`Model::load`].
//! * [`compute`]: the arithmetic of the linear layers, as a user chooses it.
//! * [`config`]: what kind of network it is, from `config.json` or GGUF metadata.
//! * [`export`]: a model as files for other programs.
//! * [`weights`]: the files, GGUF and safetensors, and their tensors.
//! * [`tokenizer`]: text to tokens and back.
//! * [`llama`]: the network, its KV cache and its forward.
//! * [`chat`]: conversations to text, by the model's own template.
//! * [`stop`]: texts that end an answer.

pub mod adapter;
pub mod chat;
pub mod compute;
pub mod config;
pub mod error;
pub mod export;
mod files;
pub mod llama;
pub mod model;
pub mod stop;
pub mod tokenizer;
pub mod weights;

pub use adapter::Adapter;
pub use chat::{ChatTemplate, Message};
pub use compute::Compute;
pub use config::ModelConfig;
pub use error::ModelError;
pub use llama::{Llama, LlamaCache};
pub use model::{LoadOptions, Model};
pub use stop::StopStrings;
pub use tokenizer::{GgufTables, TextStream, Tokenizer};
pub use weights::Checkpoint;
