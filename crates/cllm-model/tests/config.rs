//! What configuration comes out of which files: of `config.json` as transformers 4 and 5
//! write it, and of GGUF metadata.

use std::fs;
use std::path::{Path, PathBuf};

use cllm_model::config::{Architecture, ModelConfig, RopeScaling};
use cllm_model::weights::RotaryLayout;
use cllm_model::{Checkpoint, ModelError};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile")
}

/// The configuration of the sizes below and nothing else in `config.json`.
fn plain(architecture: Architecture) -> ModelConfig {
    ModelConfig {
        architecture,
        vocab_size: 200_000,
        hidden_size: 32,
        intermediate_size: 16,
        num_layers: 4,
        num_heads: 4,
        num_kv_heads: 4,
        head_dim: 8,
        context_length: 2048,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rope_layers: vec![true; 4],
        sliding_window: vec![None; 4],
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: false,
        bos_token: Some(1),
        eos_tokens: vec![2],
    }
}

const SIZES: &str = r#""vocab_size": 200000, "hidden_size": 32, "intermediate_size": 16,
    "num_hidden_layers": 4, "num_attention_heads": 4"#;

fn read_folder(config: &str, generation: Option<&str>) -> Result<ModelConfig, ModelError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let weights = fs::read(fixtures().join("valid.safetensors")).expect("weights");
    fs::write(dir.path().join("model.safetensors"), weights).expect("a file");
    fs::write(dir.path().join("config.json"), config).expect("a file");
    if let Some(text) = generation {
        fs::write(dir.path().join("generation_config.json"), text).expect("a file");
    }
    Checkpoint::open(dir.path())?.config()
}

/// A `config.json` of the sizes and `more` gives `plain` with `change` made to it.
fn check(architecture: Architecture, more: &str, change: impl FnOnce(&mut ModelConfig)) {
    let model_type = architecture.model_type();
    let text = format!(r#"{{"model_type": "{model_type}", {SIZES}{more}}}"#);
    let mut expected = plain(architecture);
    change(&mut expected);
    let found = read_folder(&text, None).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(found, expected, "{text}");
}

#[test]
fn defaults_of_every_model_type() {
    check(Architecture::Llama, "", |_| {});
    check(Architecture::Mistral, r#", "num_key_value_heads": 2"#, |c| {
        c.num_kv_heads = 2;
        c.context_length = 131_072;
        c.sliding_window = vec![Some(4096); 4];
    });
    let qwen = |c: &mut ModelConfig| {
        c.num_kv_heads = 2;
        c.context_length = 32_768;
        (c.bos_token, c.eos_tokens) = (None, vec![]);
    };
    check(Architecture::Qwen2, r#", "num_key_value_heads": 2"#, |c| {
        qwen(c);
        c.qkv_bias = true;
    });
    check(Architecture::Qwen3, r#", "num_key_value_heads": 2"#, |c| {
        qwen(c);
        c.head_dim = 128;
        c.qk_norm = true;
    });
    check(Architecture::SmolLm3, "", |c| {
        c.context_length = 32_768;
        c.rope_theta = 2e6;
        c.rope_layers = vec![true, true, true, false];
        c.tie_word_embeddings = true;
        (c.bos_token, c.eos_tokens) = (Some(128_000), vec![128_001]);
    });
}

#[test]
fn rotary_parameters_old_and_new() {
    let linear = |c: &mut ModelConfig| {
        c.rope_theta = 5e5;
        c.rope_scaling = RopeScaling::Linear { factor: 2.0 };
    };
    for more in [
        r#", "rope_theta": 500000, "rope_scaling": {"type": "linear", "factor": 2}"#,
        r#", "rope_theta": 500000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}"#,
        r#", "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}"#,
        r#", "rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 2.0}"#,
    ] {
        check(Architecture::Llama, more, linear);
    }
    check(Architecture::Llama, r#", "rope_theta": 5e5, "rope_scaling": null"#, |c| {
        c.rope_theta = 5e5;
    });
    let llama3 = |context: &str| {
        format!(
            r#", "rope_parameters": {{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "rope_theta": 10000.0 {context}}}"#
        )
    };
    for (context, original_context) in
        [(r#", "original_max_position_embeddings": 64"#, 64), ("", 2048)]
    {
        check(Architecture::Llama, &llama3(context), |c| {
            c.rope_scaling = RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context,
            };
        });
    }
}

#[test]
fn biases() {
    let more = r#", "attention_bias": true, "mlp_bias": true, "num_key_value_heads": 4,
        "sliding_window": null, "max_position_embeddings": 2048, "rope_theta": 1e4, "head_dim": 8,
        "bos_token_id": 1, "eos_token_id": 2, "no_rope_layers": [1, 1, 1, 1],
        "tie_word_embeddings": false"#;
    // Which model types look at which key: (query-key-value, output, feed-forward).
    for (architecture, expected) in [
        (Architecture::Llama, (true, true, true)),
        (Architecture::Mistral, (false, false, false)),
        (Architecture::Qwen2, (true, false, false)),
        (Architecture::Qwen3, (true, true, false)),
        (Architecture::SmolLm3, (true, true, true)),
    ] {
        check(architecture, more, |c| {
            (c.qkv_bias, c.output_bias, c.mlp_bias) = expected;
            c.qk_norm = architecture == Architecture::Qwen3;
        });
    }
}

#[test]
fn windows() {
    let window = |architecture, more: &str, expected: [Option<usize>; 4]| {
        let text = format!(
            r#"{{"model_type": "{architecture}", "num_key_value_heads": 4, {SIZES}, {more}}}"#
        );
        let found = read_folder(&text, None).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(found.sliding_window, expected, "{text}");
    };
    let (no, w) = (None, Some(16));
    window("llama", r#""sliding_window": 16"#, [no; 4]);
    window("mistral", r#""sliding_window": 16"#, [w; 4]);
    window("mistral", r#""sliding_window": null"#, [no; 4]);
    for qwen in ["qwen2", "qwen3"] {
        window(qwen, r#""sliding_window": 16, "max_window_layers": 1"#, [no; 4]);
        let on = r#""sliding_window": 16, "use_sliding_window": true"#;
        window(qwen, on, [no; 4]);
        window(qwen, &format!(r#"{on}, "max_window_layers": 0"#), [w; 4]);
        window(qwen, &format!(r#"{on}, "max_window_layers": 3"#), [no, no, no, w]);
        let types = r#""layer_types": ["full_attention", "sliding_attention", "full_attention",
            "sliding_attention"]"#;
        window(qwen, &format!("{on}, {types}"), [no, w, no, w]);
    }
    let on = r#""sliding_window": 16, "use_sliding_window": true"#;
    window("smollm3", on, [no, no, no, w]);
    window("smollm3", &format!(r#"{on}, "no_rope_layers": [0, 1, 0, 1]"#), [w, no, w, no]);
    window("smollm3", &format!(r#"{on}, "no_rope_layer_interval": 2"#), [no, w, no, w]);
}

#[test]
fn ends_of_an_answer() {
    let ends = |more: &str, generation: Option<&str>| {
        let text = format!(r#"{{"model_type": "llama", {SIZES}{more}}}"#);
        read_folder(&text, generation).unwrap_or_else(|e| panic!("{text}: {e}")).eos_tokens
    };
    assert!(ends(r#", "eos_token_id": null"#, None).is_empty());
    assert_eq!(ends(r#", "eos_token_id": [9, 7, 9]"#, None), [7, 9]);
    assert_eq!(ends(r#", "eos_token_id": 5"#, Some(r#"{"eos_token_id": [5, 4]}"#)), [4, 5]);
    assert_eq!(ends(r#", "eos_token_id": 5"#, Some(r#"{"top_k": 1}"#)), [5]);
    // Beyond the vocabulary: cannot be produced.
    assert_eq!(ends(r#", "eos_token_id": [3, 200000]"#, None), [3]);
}

#[test]
fn gguf() {
    let base = ModelConfig {
        vocab_size: 4,
        hidden_size: 8,
        num_layers: 1,
        num_kv_heads: 2,
        head_dim: 2,
        context_length: 64,
        rms_norm_eps: 1e-5,
        rope_layers: vec![true],
        sliding_window: vec![None],
        tie_word_embeddings: true,
        bos_token: None,
        ..plain(Architecture::Llama)
    };
    let five = |architecture| ModelConfig {
        architecture,
        num_layers: 5,
        rope_layers: vec![true; 5],
        sliding_window: vec![None; 5],
        ..base.clone()
    };
    let (halves, interleaved) = (RotaryLayout::Halves, RotaryLayout::Interleaved);
    let linear = |factor| RopeScaling::Linear { factor };
    let cases = [
        ("qwen2", halves, ModelConfig { qkv_bias: true, ..five(Architecture::Qwen2) }),
        ("qwen3", halves, ModelConfig { qk_norm: true, head_dim: 6, ..five(Architecture::Qwen3) }),
        (
            "smollm3",
            interleaved,
            ModelConfig {
                rope_layers: vec![true, true, true, false, true],
                ..five(Architecture::SmolLm3)
            },
        ),
        ("linear", interleaved, ModelConfig { rope_scaling: linear(2.0), ..base.clone() }),
        ("linear-2023", interleaved, ModelConfig { rope_scaling: linear(4.0), ..base.clone() }),
        ("window", interleaved, ModelConfig { sliding_window: vec![Some(16)], ..base.clone() }),
        ("ends", interleaved, ModelConfig { eos_tokens: vec![0, 1, 2], ..base.clone() }),
        ("vocab-size", interleaved, ModelConfig { vocab_size: 7, ..base.clone() }),
        (
            "llama3",
            interleaved,
            ModelConfig { rope_scaling: RopeScaling::Factors(vec![4.0]), ..base.clone() },
        ),
        ("untied", interleaved, ModelConfig { tie_word_embeddings: false, ..base.clone() }),
        (
            "biases",
            interleaved,
            ModelConfig { qkv_bias: true, output_bias: true, mlp_bias: true, ..base.clone() },
        ),
        ("version-2", interleaved, base.clone()),
        ("alignment-64", interleaved, base),
    ];
    for (name, layout, expected) in cases {
        let path = fixtures().join("sound").join(name).with_extension("gguf");
        let model = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(model.config().unwrap_or_else(|e| panic!("{name}: {e}")), expected, "{name}");
        assert_eq!(model.rotary_layout(), layout, "{name}");
        let mut row = [0.0; 8];
        let embedding = model.tensor("model.embed_tokens.weight").expect("an embedding");
        embedding.read_f32(1..2, &mut row);
        assert_eq!(row, std::array::from_fn(|i| (8 + i) as f32 / 8.0), "{name}");
    }
}
