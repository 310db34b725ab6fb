//! The default model, SmolLM2-135M-Instruct Q4_1. Not hermetic, so ignored by default:
//! `CLLM_TEST_MODEL=path/to/model.gguf cargo test --workspace --test real_model -- --ignored --nocapture`

use std::path::PathBuf;

use cllm_model::Checkpoint;
use cllm_model::config::{Architecture, ModelConfig, RopeScaling};
use cllm_model::weights::{DType, RotaryLayout};

fn model() -> Checkpoint {
    let path = std::env::var_os("CLLM_TEST_MODEL").expect("CLLM_TEST_MODEL names the model");
    Checkpoint::open(&PathBuf::from(path)).expect("the default model opens")
}

#[test]
#[ignore = "needs CLLM_TEST_MODEL"]
fn configuration() {
    let expected = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 49_152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_layers: 30,
        num_heads: 9,
        num_kv_heads: 3,
        head_dim: 64,
        context_length: 8192,
        rms_norm_eps: 1e-5,
        rope_theta: 100_000.0,
        rope_scaling: RopeScaling::None,
        rope_layers: vec![true; 30],
        sliding_window: vec![None; 30],
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: true,
        bos_token: Some(1),
        eos_tokens: vec![2],
    };
    let model = model();
    assert_eq!(model.config().expect("a valid configuration"), expected);
    assert_eq!(model.rotary_layout(), RotaryLayout::Interleaved);
}

#[test]
#[ignore = "needs CLLM_TEST_MODEL"]
fn tensors() {
    let model = model();
    assert_eq!(model.tensors().len(), 272);
    let embedding = model.tensor("model.embed_tokens.weight").expect("an embedding");
    assert_eq!((embedding.dtype, &embedding.shape[..]), (DType::Q8_0, &[49_152, 576][..]));
    for layer in 0..30 {
        for (part, dtype, shape) in [
            ("input_layernorm", DType::F32, &[576][..]),
            ("self_attn.q_proj", DType::Q4_1, &[576, 576]),
            ("self_attn.k_proj", DType::Q4_1, &[192, 576]),
            ("self_attn.v_proj", DType::Q4_1, &[192, 576]),
            ("self_attn.o_proj", DType::Q4_1, &[576, 576]),
            ("post_attention_layernorm", DType::F32, &[576]),
            ("mlp.gate_proj", DType::Q4_1, &[1536, 576]),
            ("mlp.up_proj", DType::Q4_1, &[1536, 576]),
            ("mlp.down_proj", DType::Q4_1, &[576, 1536]),
        ] {
            let name = format!("model.layers.{layer}.{part}.weight");
            let t = model.tensor(&name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!((t.dtype, &t.shape[..]), (dtype, shape), "{name}");
        }
    }
}

#[test]
#[ignore = "needs CLLM_TEST_MODEL"]
fn tokenizer_tables() {
    let model = model();
    let gguf = model.gguf().expect("a GGUF file");
    let tokens = gguf.get_strings("tokenizer.ggml.tokens").expect("strings").expect("tokens");
    assert_eq!((tokens.len(), tokens[0], tokens[2]), (49_152, "<|endoftext|>", "<|im_end|>"));
    let merges = gguf.get_strings("tokenizer.ggml.merges").expect("strings").expect("merges");
    assert_eq!(merges[0], "Ġ t");
    let types = gguf.get_u32s("tokenizer.ggml.token_type").expect("integers").expect("types");
    assert_eq!((types.len(), types[0], types[20]), (49_152, 3, 1));
}
