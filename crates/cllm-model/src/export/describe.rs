//! What a GGUF file's metadata says, as the files of a Hugging Face folder.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::folder::write_json;
use crate::adapter::FloatType;
use crate::chat::DEFAULT_TEMPLATE;
use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::error::ModelError;
use crate::tokenizer::{GgufTables, Tokenizer};
use crate::weights::Checkpoint;

/// Writes `config.json`, `generation_config.json`, `tokenizer.json`,
/// `tokenizer_config.json` and the chat templates.
pub(super) fn write(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    dir: &Path,
    kind: FloatType,
) -> Result<(), ModelError> {
    let Some(gguf) = checkpoint.gguf() else { return Ok(()) };
    let unsupported = |what| ModelError::Unsupported { path: checkpoint.path().into(), what };
    let tables = GgufTables::read(gguf)?;
    let tokenizer = Tokenizer::from_gguf(&tables)?;

    let mut network = network(config, kind).map_err(unsupported)?;
    network["bos_token_id"] = json!(config.bos_token);
    network["eos_token_id"] = eos(config, tables.eos);
    network["pad_token_id"] = json!(tables.pad);
    write_json(&dir.join("config.json"), &network)?;
    let generation = json!({
        "bos_token_id": config.bos_token,
        "eos_token_id": eos(config, tables.eos),
        "pad_token_id": tables.pad,
    });
    write_json(&dir.join("generation_config.json"), &generation)?;

    write_json(&dir.join("tokenizer.json"), &tokenizer.to_json()?)?;
    let mut settings = Map::new();
    for (name, id) in [
        ("bos_token", tokenizer.bos()),
        ("eos_token", tokenizer.eos()),
        ("unk_token", tables.unk),
        ("pad_token", tables.pad),
    ] {
        if let Some(token) = id.and_then(|id| tables.tokens.get(id as usize)) {
            settings.insert(name.into(), (*token).into());
        }
    }
    settings.insert("clean_up_tokenization_spaces".into(), false.into());
    settings.insert("model_max_length".into(), config.context_length.into());
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    write_json(&dir.join("tokenizer_config.json"), &Value::Object(settings))?;
    templates(&tables, dir).map_err(|what| match what {
        Problem::Name(name) => unsupported(format!("a chat template with the name `{name}`")),
        Problem::Io(source) => ModelError::Io { path: dir.into(), source },
    })
}

enum Problem {
    Name(String),
    Io(std::io::Error),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn templates(tables: &GgufTables<'_>, dir: &Path) -> Result<(), Problem> {
    for (name, source) in &tables.chat_templates {
        // The name comes out of the file and becomes one of ours.
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            return Err(Problem::Name((*name).to_owned()));
        }
        if *name == DEFAULT_TEMPLATE {
            fs::write(dir.join("chat_template.jinja"), source)?;
        } else {
            let more = dir.join("additional_chat_templates");
            fs::create_dir_all(&more)?;
            fs::write(more.join(format!("{name}.jinja")), source)?;
        }
    }
    Ok(())
}

/// The tokens that end an answer, the file's own first.
fn eos(config: &ModelConfig, first: Option<u32>) -> Value {
    let mut tokens = config.eos_tokens.clone();
    tokens.sort_by_key(|&token| Some(token) != first);
    match tokens[..] {
        [] => Value::Null,
        [one] => one.into(),
        _ => tokens.into(),
    }
}

/// `config.json`, or what it cannot say.
fn network(c: &ModelConfig, kind: FloatType) -> Result<Value, String> {
    let window = c.sliding_window.iter().copied().flatten().next();
    let mut architecture = c.architecture;
    if window.is_some() {
        // A window in every layer is Mistral; the GGUF reader knows no other.
        if architecture != Architecture::Llama || c.qkv_bias || c.mlp_bias {
            return Err("a sliding window, which is written for Mistral only".into());
        }
        architecture = Architecture::Mistral;
    }
    let biases_fit = match architecture {
        Architecture::Qwen2 => c.qkv_bias && !c.output_bias && !c.mlp_bias,
        Architecture::Llama | Architecture::SmolLm3 => c.qkv_bias == c.output_bias,
        _ => c.qkv_bias == c.output_bias && !c.mlp_bias,
    };
    if !biases_fit {
        return Err("biases on some projections only, which config.json cannot say".into());
    }
    let class = match architecture {
        Architecture::Llama => "LlamaForCausalLM",
        Architecture::Mistral => "MistralForCausalLM",
        Architecture::Qwen2 => "Qwen2ForCausalLM",
        Architecture::Qwen3 => "Qwen3ForCausalLM",
        Architecture::SmolLm3 => "SmolLM3ForCausalLM",
    };
    let rope_scaling = match &c.rope_scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => {
            json!({ "rope_type": "linear", "factor": exact(*factor) })
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            json!({
                "rope_type": "llama3",
                "factor": exact(*factor),
                "low_freq_factor": exact(*low_freq_factor),
                "high_freq_factor": exact(*high_freq_factor),
                "original_max_position_embeddings": original_context,
            })
        }
        RopeScaling::Factors(_) => {
            return Err("a rotary scaling by rope_freqs.weight, which config.json cannot say; \
                        write a GGUF file"
                .into());
        }
    };
    let mut json = json!({
        "architectures": [class],
        "model_type": architecture.model_type(),
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": c.context_length,
        "rms_norm_eps": exact(c.rms_norm_eps),
        "rope_theta": exact(c.rope_theta),
        "rope_scaling": rope_scaling,
        "tie_word_embeddings": c.tie_word_embeddings,
        "attention_bias": c.qkv_bias,
        "mlp_bias": c.mlp_bias,
        "sliding_window": window,
        "use_sliding_window": false,
        "torch_dtype": kind.torch_name(),
        "use_cache": true,
    });
    if architecture == Architecture::SmolLm3 {
        json["no_rope_layers"] = c.rope_layers.iter().map(|&rotates| i32::from(rotates)).collect();
    }
    Ok(json)
}

/// The number as it would be typed: 1e-5, not the 9.999999747378752e-06 that f32 makes of it.
fn exact(x: f32) -> Value {
    x.to_string().parse::<f64>().unwrap_or_else(|_| x.into()).into()
}
