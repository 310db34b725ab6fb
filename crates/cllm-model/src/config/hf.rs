//! From `config.json` and `generation_config.json` of a Hugging Face folder.
//!
//! Keys and defaults are those of `transformers` 5, which differ between the model types:
//! see `Defaults`. Sizes have defaults there too (those of Llama 7B), but a file without
//! its sizes is broken, so they are required here. Keys that would change the result and
//! are not implemented are errors, never ignored.

use std::path::Path;

use super::json::{Fields, read_object};
use super::{Architecture, ModelConfig, RopeScaling, limits};
use crate::ModelError;

/// What a missing key means.
struct Defaults {
    context_length: usize,
    num_kv_heads: Option<usize>,
    rope_theta: f32,
    tie_word_embeddings: bool,
    bos_token: Option<u32>,
    eos_token: Option<u32>,
}

fn defaults(architecture: Architecture) -> Defaults {
    let llama = Defaults {
        context_length: 2048,
        num_kv_heads: None,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
        bos_token: Some(1),
        eos_token: Some(2),
    };
    match architecture {
        Architecture::Llama => llama,
        Architecture::Mistral => {
            Defaults { context_length: 131_072, num_kv_heads: Some(8), ..llama }
        }
        Architecture::Qwen2 | Architecture::Qwen3 => Defaults {
            context_length: 32_768,
            num_kv_heads: Some(32),
            bos_token: None,
            eos_token: None,
            ..llama
        },
        Architecture::SmolLm3 => Defaults {
            context_length: 32_768,
            num_kv_heads: Some(4),
            rope_theta: 2_000_000.0,
            tie_word_embeddings: true,
            bos_token: Some(128_000),
            eos_token: Some(128_001),
        },
    }
}

/// Reads the configuration of a folder.
pub(crate) fn read(dir: &Path) -> Result<ModelConfig, ModelError> {
    let path = dir.join("config.json");
    let map = read_object(&path)?;
    let f = Fields { path: &path, prefix: "", map: &map };
    let architecture = architecture(&f)?;
    refuse_unknown(&f)?;
    let default = defaults(architecture);

    let vocab_size = f.required_size("vocab_size", limits::VOCAB)?;
    let hidden_size = f.required_size("hidden_size", limits::HIDDEN)?;
    let num_layers = f.required_size("num_hidden_layers", limits::LAYERS)?;
    let num_heads = f.required_size("num_attention_heads", limits::HEADS)?;
    let num_kv_heads = match f.size("num_key_value_heads", limits::HEADS)? {
        Some(n) => n,
        None if f.has("num_key_value_heads") => num_heads,
        None => default.num_kv_heads.unwrap_or(num_heads),
    };
    let head_dim = match f.size("head_dim", limits::HEAD_DIM)? {
        Some(n) => n,
        None if architecture == Architecture::Qwen3 && !f.has("head_dim") => 128,
        None if hidden_size % num_heads == 0 => hidden_size / num_heads,
        None => {
            return Err(f.format(format!(
                "`hidden_size` {hidden_size} is no multiple of `num_attention_heads` {num_heads}, \
                 and there is no `head_dim`"
            )));
        }
    };
    let context_length =
        f.size("max_position_embeddings", limits::CONTEXT)?.unwrap_or(default.context_length);
    let (rope_theta, rope_scaling) = rope(&f, default.rope_theta, context_length)?;
    let rope_layers = rope_layers(&f, architecture, num_layers)?;
    let sliding_window = sliding_window(&f, architecture, &rope_layers)?;
    let attention_bias = match architecture {
        Architecture::Mistral => false,
        Architecture::Qwen2 => true,
        _ => f.flag("attention_bias", false)?,
    };
    let has_mlp_bias = matches!(architecture, Architecture::Llama | Architecture::SmolLm3);

    let config = ModelConfig {
        architecture,
        vocab_size,
        hidden_size,
        intermediate_size: f.required_size("intermediate_size", limits::INTERMEDIATE)?,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        context_length,
        rms_norm_eps: f.positive("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        rope_layers,
        sliding_window,
        qkv_bias: attention_bias,
        output_bias: attention_bias && architecture != Architecture::Qwen2,
        mlp_bias: has_mlp_bias && f.flag("mlp_bias", false)?,
        qk_norm: architecture == Architecture::Qwen3,
        tie_word_embeddings: f.flag("tie_word_embeddings", default.tie_word_embeddings)?,
        bos_token: match f.has("bos_token_id") {
            true => f.tokens("bos_token_id")?.first().copied(),
            false => default.bos_token,
        },
        eos_tokens: eos_tokens(dir, &f, default.eos_token)?,
    };
    config.checked(&path)
}

fn architecture(f: &Fields<'_>) -> Result<Architecture, ModelError> {
    let name = f.text("model_type")?.ok_or_else(|| {
        let supported = Architecture::MODEL_TYPES.map(|(name, _)| name).join(", ");
        f.format(format!("`model_type` is missing; expected one of {supported}"))
    })?;
    Architecture::from_model_type(name).ok_or_else(|| {
        let supported = Architecture::MODEL_TYPES.map(|(name, _)| name).join(", ");
        f.unsupported(format!(
            "the model type `{name}` is not supported; supported are {supported}"
        ))
    })
}

/// Refuses what would change the result.
fn refuse_unknown(f: &Fields<'_>) -> Result<(), ModelError> {
    if let Some(q) = f.object("quantization_config")? {
        let method = q.get("quant_method").and_then(|m| m.as_str()).unwrap_or("an unnamed method");
        return Err(f.unsupported(format!(
            "the weights are quantised with {method} (`quantization_config`); supported are \
             F32, F16 and BF16 safetensors, or GGUF for quantised weights"
        )));
    }
    // A classifier or an embedding model has no LM head, or another one.
    if let Some(class) = f.array("architectures")?.and_then(|a| a.first()?.as_str())
        && !class.ends_with("ForCausalLM")
    {
        return Err(f.unsupported(format!("the class {class}; expected one for causal LM")));
    }
    match f.text("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => {
            return Err(f.unsupported(format!("`hidden_act` {other}; supported is silu")));
        }
    }
    Ok(())
}

/// Base and scaling of the rotary frequencies. transformers 5 writes both into
/// `rope_parameters`; before it, `rope_theta` stood alone and the rest in `rope_scaling`,
/// whose type was once called `type`. Where both are there the old key wins, as there.
fn rope(
    f: &Fields<'_>,
    default_theta: f32,
    context_length: usize,
) -> Result<(f32, RopeScaling), ModelError> {
    let theta = f.positive("rope_theta")?.unwrap_or(default_theta);
    let mut inner = None;
    for (key, prefix) in
        [("rope_scaling", "rope_scaling."), ("rope_parameters", "rope_parameters.")]
    {
        let map = f.object(key)?.filter(|map| !map.is_empty());
        inner = inner.or(map.map(|map| Fields { path: f.path, prefix, map }));
    }
    for fields in inner.iter().chain([f]) {
        if let Some(part) = fields.positive("partial_rotary_factor")?.filter(|&part| part != 1.0) {
            return Err(f.unsupported(format!(
                "`partial_rotary_factor` {part}: rotation of a part of each head"
            )));
        }
    }
    let Some(rope) = inner else { return Ok((theta, RopeScaling::None)) };
    if let Some((layers, _)) = rope.map.iter().find(|(_, v)| v.is_object()) {
        return Err(f.unsupported(format!(
            "`{}{layers}`: rotary parameters that differ between layers",
            rope.prefix
        )));
    }
    let theta = rope.positive("rope_theta")?.unwrap_or(theta);
    let kind = match rope.text("rope_type")? {
        Some(kind) => kind,
        None => rope.text("type")?.unwrap_or("default"),
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: rope.required_positive("factor")? },
        "llama3" => {
            let key = "original_max_position_embeddings";
            let original_context = match f.size(key, limits::CONTEXT)? {
                Some(n) => n,
                None => rope.size(key, limits::CONTEXT)?.unwrap_or(context_length),
            };
            RopeScaling::Llama3 {
                factor: rope.required_positive("factor")?,
                low_freq_factor: rope.required_positive("low_freq_factor")?,
                high_freq_factor: rope.required_positive("high_freq_factor")?,
                original_context,
            }
        }
        other => {
            return Err(f.unsupported(format!(
                "rotary scaling of type {other}; supported are default, linear, llama3"
            )));
        }
    };
    Ok((theta, scaling))
}

/// Per layer, whether it rotates. `no_rope_layers` says 1 for a layer that does.
fn rope_layers(
    f: &Fields<'_>,
    architecture: Architecture,
    num_layers: usize,
) -> Result<Vec<bool>, ModelError> {
    if architecture != Architecture::SmolLm3 {
        return Ok(vec![true; num_layers]);
    }
    let key = "no_rope_layers";
    let Some(list) = f.array(key)? else {
        let interval = f.size("no_rope_layer_interval", limits::LAYERS)?.unwrap_or(4);
        return Ok((0..num_layers).map(|i| !(i + 1).is_multiple_of(interval)).collect());
    };
    if list.len() < num_layers {
        return Err(
            f.format(format!("`{key}`: expected {num_layers} values, found {}", list.len()))
        );
    }
    list[..num_layers]
        .iter()
        .map(|v| match v.as_u64() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(f.wrong(key, "values 0 or 1", v)),
        })
        .collect()
}

/// Per layer, how far a query sees.
fn sliding_window(
    f: &Fields<'_>,
    architecture: Architecture,
    rope_layers: &[bool],
) -> Result<Vec<Option<usize>>, ModelError> {
    let n = rope_layers.len();
    let default = (architecture != Architecture::SmolLm3).then_some(4096);
    let window = match f.size("sliding_window", limits::CONTEXT)? {
        None if !f.has("sliding_window") => default,
        window => window,
    };
    let on = f.flag("use_sliding_window", false)?;
    let (window, slides): (_, Vec<bool>) = match architecture {
        Architecture::Llama => return Ok(vec![None; n]),
        Architecture::Mistral => (window, vec![window.is_some(); n]),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let first = match f.get("max_window_layers").and_then(|v| v.as_u64()) {
                // 0 is a value: every layer slides.
                Some(0) => 0,
                _ => f.size("max_window_layers", limits::LAYERS)?.unwrap_or(28),
            };
            let window = window.filter(|_| on);
            (window, (0..n).map(|i| window.is_some() && i >= first).collect())
        }
        Architecture::SmolLm3 => {
            let window = window.filter(|_| on);
            (window, rope_layers.iter().map(|rope| window.is_some() && !rope).collect())
        }
    };
    let slides = layer_types(f, n)?.unwrap_or(slides);
    if window.is_none() && slides.contains(&true) {
        return Err(
            f.format("`layer_types` has sliding_attention, but the sliding window is off".into())
        );
    }
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

/// Per layer, whether `layer_types` makes it slide.
fn layer_types(f: &Fields<'_>, n: usize) -> Result<Option<Vec<bool>>, ModelError> {
    let key = "layer_types";
    let Some(list) = f.array(key)? else { return Ok(None) };
    if list.len() != n {
        return Err(f.format(format!("`{key}`: expected {n} values, found {}", list.len())));
    }
    list.iter()
        .map(|v| match v.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            Some(other) => Err(f.unsupported(format!(
                "`{key}` has {other}; supported are full_attention, sliding_attention"
            ))),
            None => Err(f.wrong(key, "strings", v)),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// The ends of an answer: those of `generation_config.json`, which chat models extend,
/// and of `config.json`.
fn eos_tokens(dir: &Path, f: &Fields<'_>, default: Option<u32>) -> Result<Vec<u32>, ModelError> {
    let key = "eos_token_id";
    let mut tokens = match f.has(key) {
        true => f.tokens(key)?,
        false => default.into_iter().collect(),
    };
    let path = dir.join("generation_config.json");
    if path.is_file() {
        let map = read_object(&path)?;
        tokens.extend(Fields { path: &path, prefix: "", map: &map }.tokens(key)?);
    }
    Ok(tokens)
}
