//! A model as a user has it: a file or folder with weights, tokenizer and chat template.

use std::fmt;
use std::path::{Path, PathBuf};

use cllm_decode::Token;
use cllm_kernels::{Isa, Pool};

use crate::adapter::Adapter;
use crate::chat::ChatTemplate;
use crate::compute::Compute;
use crate::error::ModelError;
use crate::llama::Llama;
use crate::tokenizer::{GgufTables, Tokenizer};
use crate::weights::Checkpoint;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The arithmetic of the linear layers.
    pub compute: Compute,
    /// Threads; all that this process may use if not given.
    pub threads: Option<usize>,
    /// Positions, if fewer than the model was made for.
    pub context: Option<usize>,
    /// Folders of LoRA adapters, merged into the weights in f32; several add up.
    pub adapters: Vec<PathBuf>,
}

impl LoadOptions {
    /// The arithmetic that [`Compute::Auto`] stands for: with adapters [`Compute::W8`],
    /// because the steps of 4 bits are larger than most updates.
    pub fn effective_compute(&self) -> Compute {
        match self.compute {
            Compute::Auto if !self.adapters.is_empty() => Compute::W8,
            compute => compute,
        }
    }
}

/// A loaded model with everything that belongs to it.
pub struct Model {
    /// Where it was loaded from.
    pub path: PathBuf,
    /// Folders of the adapters merged into it.
    pub adapters: Vec<PathBuf>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// How a conversation becomes a prompt, if the model says so.
    pub chat: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<Token>,
    /// The network.
    pub lm: Llama,
}

impl Model {
    /// Loads a `.gguf` file or a Hugging Face folder.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint::open(path)?;
        for adapter in &options.adapters {
            checkpoint.add_adapter(Adapter::open(adapter)?)?;
        }
        let config = checkpoint.config()?;
        let unsupported = |what: String| ModelError::Unsupported { path: path.to_path_buf(), what };
        let isa = Isa::detect().map_err(unsupported)?;
        let threads = options.threads.unwrap_or_else(Pool::default_threads);
        let pool = Pool::new(threads)
            .map_err(|source| ModelError::Io { path: path.to_path_buf(), source })?;
        let (tokenizer, chat) = match checkpoint.gguf() {
            Some(gguf) => {
                let tables = GgufTables::read(gguf)?;
                (Tokenizer::from_gguf(&tables)?, ChatTemplate::from_gguf(&tables)?)
            }
            None => (Tokenizer::from_folder(path)?, ChatTemplate::from_folder(path)?),
        };
        let chat = chat.exists().then_some(chat);
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(unsupported(format!(
                "the tokenizer has {} tokens, the network only {}",
                tokenizer.vocab_size(),
                config.vocab_size
            )));
        }
        let mut stop_tokens = config.eos_tokens.clone();
        stop_tokens.extend(tokenizer.end_of_turn_tokens());
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        let lm = Llama::load(
            &checkpoint,
            config,
            options.effective_compute(),
            isa,
            pool,
            options.context,
        )?;
        let (path, adapters) = (path.to_path_buf(), options.adapters.clone());
        Ok(Self { path, adapters, tokenizer, chat, stop_tokens, lm })
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("path", &self.path).finish_non_exhaustive()
    }
}
