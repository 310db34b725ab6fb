//! What kind of network it is. One configuration covers the whole Llama family: the
//! members differ in flags and numbers, never in code.

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
