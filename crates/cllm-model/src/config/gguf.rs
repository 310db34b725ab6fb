//! From the metadata of a GGUF file, under the keys llama.cpp's converter writes.
//!
//! Some facts are not in the metadata but in the tensors: biases and tied embeddings
//! (are they there?) and Llama 3's rotary scaling (`rope_freqs.weight`, one divisor per
//! frequency). And one is nowhere: every fourth layer of SmolLM3 does not rotate.

use super::{Architecture, ModelConfig, RopeScaling, limits};
use crate::ModelError;
use crate::weights::{Gguf, RotaryLayout, TensorView};

/// The architecture by its GGUF name. Mistral is stored as `llama`.
fn architecture(gguf: &Gguf) -> Result<Architecture, ModelError> {
    let key = "general.architecture";
    let name = gguf.get_str(key)?.ok_or_else(|| gguf.missing(key))?;
    match Architecture::from_model_type(name) {
        Some(architecture) if architecture != Architecture::Mistral => Ok(architecture),
        _ => Err(gguf.unsupported(format!(
            "the architecture `{name}` is not supported; supported are llama (Mistral too), \
             qwen2, qwen3, smollm3"
        ))),
    }
}

/// Which pairs the file's query and key rows are ordered for. The converter permutes
/// Llama and everything derived from it, SmolLM3 included; Qwen stays as it was.
pub(crate) fn rotary_layout(gguf: &Gguf) -> RotaryLayout {
    match architecture(gguf) {
        Ok(Architecture::Qwen2 | Architecture::Qwen3) => RotaryLayout::Halves,
        _ => RotaryLayout::Interleaved,
    }
}

/// The keys of one architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A count from 1 to `max`.
    fn size(&self, name: &str, max: usize) -> Result<Option<usize>, ModelError> {
        let key = self.key(name);
        match self.gguf.get_u32(&key)?.map(|n| n as usize) {
            Some(n) if !(1..=max).contains(&n) => {
                let what = format!("`{key}`: expected an integer from 1 to {max}, found {n}");
                Err(self.gguf.format(what))
            }
            n => Ok(n),
        }
    }

    fn required_size(&self, name: &str, max: usize) -> Result<usize, ModelError> {
        self.size(name, max)?.ok_or_else(|| self.gguf.missing(&self.key(name)))
    }

    fn float(&self, name: &str) -> Result<Option<f32>, ModelError> {
        self.gguf.get_f32(&self.key(name))
    }

    /// Refuses a count other than `expected`.
    fn only(&self, name: &str, expected: usize, why: &str) -> Result<(), ModelError> {
        let key = self.key(name);
        match self.gguf.get_u32(&key)? {
            Some(n) if n as usize != expected => Err(self
                .gguf
                .unsupported(format!("`{key}` {n}: supported is {expected} only ({why})"))),
            _ => Ok(()),
        }
    }
}

/// Reads the configuration; `tensor` finds tensors by Hugging Face name.
pub(crate) fn read<'a>(
    gguf: &'a Gguf,
    tensor: impl Fn(&str) -> Option<TensorView<'a>>,
) -> Result<ModelConfig, ModelError> {
    let architecture = architecture(gguf)?;
    let k = Keys { gguf, prefix: architecture.model_type() };
    k.only("expert_count", 0, "a mixture of experts")?;

    let hidden_size = k.required_size("embedding_length", limits::HIDDEN)?;
    let num_layers = k.required_size("block_count", limits::LAYERS)?;
    let num_heads = k.required_size("attention.head_count", limits::HEADS)?;
    let head_dim = match k.size("attention.key_length", limits::HEAD_DIM)? {
        Some(n) => n,
        None if hidden_size % num_heads == 0 => hidden_size / num_heads,
        None => {
            return Err(gguf.format(format!(
                "the embedding length {hidden_size} is no multiple of the head count {num_heads}, \
                 and there is no key length"
            )));
        }
    };
    k.only("attention.value_length", head_dim, "the key length")?;
    k.only("rope.dimension_count", head_dim, "the key length: whole heads rotate")?;

    let has = |part: &str| tensor(&format!("model.layers.0.{part}")).is_some();
    let qwen2 = architecture == Architecture::Qwen2;
    let config = ModelConfig {
        architecture,
        vocab_size: vocab_size(&k)?,
        hidden_size,
        intermediate_size: k.required_size("feed_forward_length", limits::INTERMEDIATE)?,
        num_layers,
        num_heads,
        num_kv_heads: k.size("attention.head_count_kv", limits::HEADS)?.unwrap_or(num_heads),
        head_dim,
        context_length: k.required_size("context_length", limits::CONTEXT)?,
        rms_norm_eps: k
            .float("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| gguf.missing(&k.key("attention.layer_norm_rms_epsilon")))?,
        rope_theta: k.float("rope.freq_base")?.unwrap_or(10_000.0),
        rope_scaling: rope_scaling(&k, head_dim)?,
        rope_layers: (0..num_layers)
            .map(|i| architecture != Architecture::SmolLm3 || (i + 1) % 4 != 0)
            .collect(),
        sliding_window: vec![sliding_window(&k)?; num_layers],
        qkv_bias: qwen2 || has("self_attn.q_proj.bias"),
        output_bias: has("self_attn.o_proj.bias"),
        mlp_bias: has("mlp.gate_proj.bias"),
        qk_norm: architecture == Architecture::Qwen3,
        tie_word_embeddings: tensor("lm_head.weight").is_none(),
        bos_token: gguf.get_u32("tokenizer.ggml.bos_token_id")?,
        eos_tokens: eos_tokens(gguf)?,
    };
    config.checked(gguf.path())
}

/// The number of tokens, from the key or from the vocabulary itself.
fn vocab_size(k: &Keys<'_>) -> Result<usize, ModelError> {
    if let Some(n) = k.size("vocab_size", limits::VOCAB)? {
        return Ok(n);
    }
    let key = "tokenizer.ggml.tokens";
    let n = k.gguf.get_array(key)?.ok_or_else(|| k.gguf.missing(key))?.len();
    if !(1..=limits::VOCAB).contains(&n) {
        let what = format!("`{key}`: expected 1 to {} tokens, found {n}", limits::VOCAB);
        return Err(k.gguf.format(what));
    }
    Ok(n)
}

fn rope_scaling(k: &Keys<'_>, head_dim: usize) -> Result<RopeScaling, ModelError> {
    for name in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if k.gguf.tensor(name).is_some() {
            return Err(k.gguf.unsupported(format!(
                "rotary scaling of type longrope (`{name}`); supported are none, linear, llama3"
            )));
        }
    }
    let factors = rope_factors(k.gguf, head_dim)?;
    let key = k.key("rope.scaling.type");
    let linear = match k.gguf.get_str(&key)? {
        Some("linear") => true,
        None | Some("none") => false,
        Some(other) => {
            return Err(k.gguf.unsupported(format!(
                "rotary scaling of type {other} (`{key}`); supported are none, linear, llama3"
            )));
        }
    };
    // Files of 2023 have the factor alone, under another name.
    let factor = match k.float("rope.scaling.factor")?.filter(|_| linear) {
        None => k.float("rope.scale_linear")?,
        some => some,
    };
    match (factor.filter(|&f| f != 1.0), factors) {
        (Some(_), Some(_)) => {
            Err(k.gguf.unsupported("both a linear rotary scaling and rope_freqs.weight".into()))
        }
        (Some(factor), None) => Ok(RopeScaling::Linear { factor }),
        (None, Some(factors)) => Ok(RopeScaling::Factors(factors)),
        (None, None) if linear && factor.is_none() => {
            Err(k.gguf.missing(&k.key("rope.scaling.factor")))
        }
        (None, None) => Ok(RopeScaling::None),
    }
}

/// Llama 3's divisors.
fn rope_factors(gguf: &Gguf, head_dim: usize) -> Result<Option<Vec<f32>>, ModelError> {
    let name = "rope_freqs.weight";
    let Some(t) = gguf.tensor(name) else { return Ok(None) };
    if t.rows() != 1 || t.row_len() != head_dim / 2 {
        return Err(ModelError::Tensor {
            name: name.into(),
            what: format!("expected shape [{}], found {:?}", head_dim / 2, t.shape),
        });
    }
    let mut factors = vec![0.0; t.row_len()];
    t.read_f32(0..1, &mut factors);
    Ok(Some(factors))
}

/// The window of every layer. The converter writes none for this family; other writers do.
fn sliding_window(k: &Keys<'_>) -> Result<Option<usize>, ModelError> {
    let pattern = k.key("attention.sliding_window_pattern");
    if k.gguf.get(&pattern).is_some() {
        return Err(k.gguf.unsupported(format!("`{pattern}`: layers with different windows")));
    }
    let window = k.gguf.get_u32(&k.key("attention.sliding_window"))?;
    // 0 means that there is none.
    Ok(window.filter(|&w| w > 0).map(|w| w as usize))
}

/// End of text, and end of turn and end of message of chat models.
fn eos_tokens(gguf: &Gguf) -> Result<Vec<u32>, ModelError> {
    let mut tokens = Vec::new();
    for name in ["eos", "eot", "eom"] {
        tokens.extend(gguf.get_u32(&format!("tokenizer.ggml.{name}_token_id"))?);
    }
    Ok(tokens)
}
