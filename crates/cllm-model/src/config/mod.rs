//! What kind of network it is. One configuration covers the whole Llama family: the
//! members differ in flags and numbers, never in code.
//!
//! `hf` and `gguf` read it, `ModelConfig::checked` holds for both: no size is zero or
//! absurd, and the sizes fit each other. Whether the tensors have the shapes it promises
//! is for the network to check when it takes them.

use std::path::Path;

use crate::error::ModelError;

pub(crate) mod gguf;
pub(crate) mod hf;
pub(crate) mod json;

/// The architectures of the family, by the name their files carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1, 2, 3 and all that copied its layout (SmolLM, SmolLM2, TinyLlama ...).
    Llama,
    /// Mistral: Llama with a sliding attention window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: RMSNorm on every query and key head.
    Qwen3,
    /// SmolLM3: rotary embedding left out in some layers.
    SmolLm3,
}

impl Architecture {
    /// By `model_type` of `config.json`, which but for Mistral is GGUF's name too.
    const MODEL_TYPES: [(&str, Self); 5] = [
        ("llama", Self::Llama),
        ("mistral", Self::Mistral),
        ("qwen2", Self::Qwen2),
        ("qwen3", Self::Qwen3),
        ("smollm3", Self::SmolLm3),
    ];

    fn from_model_type(name: &str) -> Option<Self> {
        Self::MODEL_TYPES.iter().find(|(n, _)| *n == name).map(|&(_, a)| a)
    }

    /// The name in `config.json`: `llama`, `mistral`, `qwen2`, `qwen3`, `smollm3`.
    pub fn model_type(self) -> &'static str {
        Self::MODEL_TYPES[self as usize].0
    }
}

/// Rescaling of the rotary frequencies for contexts longer than trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All frequencies divided by `factor` (position interpolation).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, smooth in between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Context length of the original training.
        original_context: usize,
    },
    /// One divisor per frequency, as GGUF stores it in `rope_freqs.weight`:
    /// `head_dim / 2` values.
    Factors(Vec<f32>),
}

/// Shapes and flags of a model. Sizes are counts of elements.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which member of the family.
    pub architecture: Architecture,
    /// Rows of the embedding and of the LM head.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, F.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub num_layers: usize,
    /// Query heads, H.
    pub num_heads: usize,
    /// Key and value heads; a divisor of `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head; even. Often but not always `hidden_size / num_heads`.
    pub head_dim: usize,
    /// Positions the model was made for.
    pub context_length: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Rescaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Per layer: whether queries and keys are rotated.
    pub rope_layers: Vec<bool>,
    /// Per layer: a query sees keys at distance less than this, if any.
    pub sliding_window: Vec<Option<usize>>,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases on the feed-forward projections.
    pub mlp_bias: bool,
    /// RMSNorm over `head_dim` of every query and key head, before the rotation.
    pub qk_norm: bool,
    /// The LM head is the embedding.
    pub tie_word_embeddings: bool,
    /// Token that starts a text, if the model has one.
    pub bos_token: Option<u32>,
    /// Tokens that end an answer, from the model's files.
    pub eos_tokens: Vec<u32>,
}

/// The largest sizes accepted: several times those of the largest models of the family,
/// and small enough that products of two never overflow and a table per layer is cheap.
mod limits {
    pub(super) const VOCAB: usize = 1 << 24;
    pub(super) const HIDDEN: usize = 1 << 20;
    pub(super) const INTERMEDIATE: usize = 1 << 22;
    pub(super) const LAYERS: usize = 1 << 12;
    pub(super) const HEADS: usize = 1 << 14;
    pub(super) const HEAD_DIM: usize = 1 << 14;
    pub(super) const CONTEXT: usize = 1 << 28;
}

impl ModelConfig {
    /// Checks what no reader can check key by key, and drops tokens that do not exist.
    fn checked(mut self, path: &Path) -> Result<Self, ModelError> {
        let fail = |what: String| Err(ModelError::Format { path: path.into(), what });
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return fail(format!(
                "expected a number of heads that is a multiple of the key-value heads, found {} \
                 and {}",
                self.num_heads, self.num_kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail(format!("expected an even head dimension, found {}", self.head_dim));
        }
        let (eps, theta) = (self.rms_norm_eps, self.rope_theta);
        if !(eps > 0.0 && eps < 1.0) {
            return fail(format!("expected an RMSNorm epsilon between 0 and 1, found {eps}"));
        }
        if !(theta > 0.0 && theta.is_finite()) {
            return fail(format!("expected a rotary base greater than 0, found {theta}"));
        }
        if let Some(what) = self.rope_scaling.fault() {
            return fail(format!("rotary scaling: {what}"));
        }
        // An id beyond the vocabulary can neither be fed nor produced. Tiny and pruned
        // models keep such ids from the model they were cut from.
        let exists = |&t: &u32| (t as usize) < self.vocab_size;
        self.bos_token = self.bos_token.filter(exists);
        self.eos_tokens.retain(exists);
        self.eos_tokens.sort_unstable();
        self.eos_tokens.dedup();
        Ok(self)
    }
}

impl RopeScaling {
    /// What is wrong with the numbers, if anything.
    fn fault(&self) -> Option<String> {
        let good = |x: f32| x > 0.0 && x.is_finite();
        match self {
            Self::None => None,
            Self::Linear { factor } => (!good(*factor))
                .then(|| format!("expected a factor greater than 0, found {factor}")),
            Self::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, .. } => {
                let fine = [factor, low, high].iter().all(|&&x| good(x)) && low < high;
                (!fine).then(|| {
                    format!(
                        "expected a factor greater than 0 and a low below a high frequency \
                         factor, found {factor}, {low} and {high}"
                    )
                })
            }
            Self::Factors(factors) => factors
                .iter()
                .find(|&&x| !good(x))
                .map(|x| format!("expected factors greater than 0, found {x}")),
        }
    }
}
