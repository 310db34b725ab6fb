//! Adapters: those saved by PEFT give PEFT's logits, those written are read back, and
//! broken ones are errors.

use std::fs;
use std::path::{Path, PathBuf};

use cllm_decode::{Batch, CausalLm, Output, Token, Want};
use cllm_model::adapter::{FloatType, LoraConfig, LoraPair, Targets};
use cllm_model::{Adapter, Checkpoint, Compute, LoadOptions, Model};
use serde::Deserialize;
use serde_json::{Value, json};

mod common;
use common::distance;

/// As for the models without adapters: see `golden_models.rs`.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    name: String,
    base: String,
    tokens: Vec<Token>,
}

fn goldens(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens").join(what)
}

fn logits(base: &Path, adapters: &[PathBuf], tokens: &[Token]) -> Vec<f32> {
    let adapters = adapters.to_vec();
    let options = LoadOptions { compute: Compute::F32, adapters, ..LoadOptions::default() };
    let mut lm = Model::load(base, &options).unwrap().lm;
    let (mut cache, mut batch, mut output) = (lm.new_cache(), Batch::new(), Output::new());
    batch.push_causal(0, 0, tokens.iter().copied(), |_| Want::Logits);
    lm.forward(&batch, &mut [&mut cache], &mut output).unwrap();
    (0..tokens.len()).flat_map(|row| output.logits(row).to_vec()).collect()
}

fn index() -> Vec<Golden> {
    serde_json::from_slice(&fs::read(goldens("adapters/index.json")).unwrap()).unwrap()
}

#[test]
fn merged_adapters_give_the_logits_of_peft() {
    for golden in index() {
        let bytes = fs::read(goldens(&format!("adapters/{}.logits", golden.name))).unwrap();
        let expected: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let base = goldens("models").join(&golden.base);
        let found = logits(&base, &[goldens("adapters").join(&golden.name)], &golden.tokens);
        let off = distance(&found, &expected);
        assert!(off < TOLERANCE, "{}: off by {off:e}", golden.name);
    }
}

/// Reading, writing and reading again gives the same numbers.
#[test]
fn written_adapters_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for golden in index() {
        let adapter = Adapter::open(&goldens("adapters").join(&golden.name)).unwrap();
        let path = dir.path().join("adapter");
        // The second and later ones replace the first.
        adapter.write(&path, FloatType::F32).unwrap();
        let again = Adapter::open(&path).unwrap();
        assert_eq!(again.pairs(), adapter.pairs(), "{}", golden.name);
        assert_eq!(again.config(), adapter.config(), "{}", golden.name);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}

/// Two adapters add up: with itself negated an adapter does nothing, up to rounding.
#[test]
fn several_adapters_add_up() {
    let golden = &index()[0];
    let (base, path) = (goldens("models").join(&golden.base), goldens("adapters/all-linear"));
    let adapter = Adapter::open(&path).unwrap();
    let negated = adapter.pairs().iter().map(|pair| {
        let b = pair.b.iter().map(|x| -x).collect();
        LoraPair { b, ..pair.clone() }
    });
    let dir = tempfile::tempdir().unwrap();
    let negative = dir.path().join("negative");
    let negated = Adapter::new(adapter.config().clone(), negated.collect()).unwrap();
    negated.write(&negative, FloatType::F32).unwrap();
    let plain = logits(&base, &[], &golden.tokens);
    let both = logits(&base, &[path, negative], &golden.tokens);
    assert!(distance(&both, &plain) < TOLERANCE);
}

#[test]
fn eight_bits_unless_asked_otherwise() {
    let golden = &index()[0];
    let base = goldens("models").join(&golden.base);
    let adapters = vec![goldens("adapters").join(&golden.name)];
    let formats = |compute| {
        let options = LoadOptions { compute, adapters: adapters.clone(), ..LoadOptions::default() };
        Model::load(&base, &options).unwrap().lm.formats()[0].to_string()
    };
    assert_eq!(formats(Compute::Auto), "w8");
    assert_eq!(formats(Compute::Bf16), "bf16");
}

const MODULE: &str = "model.layers.0.self_attn.q_proj";

fn pair(module: &str, rank: usize, inputs: usize, outputs: usize) -> LoraPair {
    let values = |n| (0..n).map(|i| i as f32 / 64.0).collect();
    let (a, b) = (values(rank * inputs), values(outputs * rank));
    LoraPair { module: module.into(), rank, inputs, outputs, a, b }
}

fn config(r: usize, targets: Option<&[&str]>) -> LoraConfig {
    let names = |names: &[&str]| Targets::Names(names.iter().map(|n| (*n).into()).collect());
    LoraConfig { r, target_modules: targets.map(names), ..LoraConfig::default() }
}

#[test]
fn parts_that_contradict_each_other_are_errors() {
    let error = |config, pair| Adapter::new(config, vec![pair]).unwrap_err().to_string();
    let q = pair(MODULE, 4, 32, 32);
    let found = error(config(8, None), q.clone());
    assert!(found.contains("expected rank 8 as in adapter_config.json, found 4"), "{found}");
    let found = error(config(4, Some(&["v_proj"])), q.clone());
    assert!(found.contains("not among the `target_modules`"), "{found}");
    let found = error(config(4, None), LoraPair { b: vec![0.0; 3], ..q.clone() });
    assert!(found.contains("128 and 3 values"), "{found}");
    let mut nan = q;
    nan.b[7] = f32::NAN;
    assert!(error(config(4, None), nan).contains("NaN or infinity"));
}

/// An adapter of one module, edited by `edit` before it is opened for `llama-f32`.
#[track_caller]
fn refused(settings: LoraConfig, pairs: Vec<LoraPair>, edit: impl Fn(&Path), part: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    Adapter::new(settings, pairs).unwrap().write(&path, FloatType::F32).unwrap();
    edit(&path);
    let mut checkpoint = Checkpoint::open(&goldens("models/llama-f32")).unwrap();
    let error = Adapter::open(&path).and_then(|a| checkpoint.add_adapter(a)).unwrap_err();
    assert!(error.to_string().contains(part), "expected {part}, found {error}");
}

/// Rewrites the header of the safetensors file, which keeps its length.
fn rename(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let path = path.join("adapter_model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn adapters_of_other_networks_are_errors() {
    let keep = |_: &Path| ();
    let one = |pair: LoraPair| (config(4, None), vec![pair]);
    let (c, p) = one(pair(MODULE, 4, 24, 32));
    refused(c, p, keep, "the network has shape [32, 32], the adapter is for [32, 24]");
    let (c, p) = one(pair("model.layers.9.self_attn.q_proj", 4, 32, 32));
    refused(c, p, keep, "a module that the network does not have");
    let (c, p) = one(pair("model.embed_tokens", 4, 32, 272));
    refused(c, p, keep, "a module that the network does not have");
    let q = vec![pair(MODULE, 4, 32, 32)];
    refused(config(4, Some(&["q_proj"])), q, keep, "has no lora_A and lora_B");
}

#[test]
fn broken_folders_are_errors() {
    let c = || config(4, None);
    let q = || vec![pair(MODULE, 4, 32, 32)];
    refused(c(), q(), |p| rename(p, "lora_A", "lora_C"), "supported are lora_A and lora_B");
    refused(
        c(),
        q(),
        |p| rename(p, "0.self_attn.q_proj.lora_A", "1.self_attn.q_proj.lora_A"),
        "no lora_A",
    );
    refused(c(), q(), |p| rename(p, "[4,32]", "[32,4]"), "expected (r, in) and (out, r)");
    refused(c(), q(), |p| rename(p, "\"F32\"", "\"I32\""), "I32");
    refused(c(), q(), |p| fs::remove_file(p.join("adapter_model.safetensors")).unwrap(), "No such");
    refused(c(), q(), |p| fs::remove_file(p.join("adapter_config.json")).unwrap(), "saved by PEFT");
    refused(c(), q(), |p| fs::write(p.join("adapter_config.json"), "{").unwrap(), "EOF");
    let cut = |p: &Path| {
        let path = p.join("adapter_model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 5]).unwrap();
    };
    refused(c(), q(), cut, "truncated");
    let dora = |p: &Path| {
        let path = p.join("adapter_config.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json["use_dora"] = json!(true);
        fs::write(path, json.to_string()).unwrap();
    };
    refused(c(), q(), dora, "use_dora");
}
