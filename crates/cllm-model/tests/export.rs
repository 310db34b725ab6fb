//! Models written and loaded again: the same bits as the checkpoint they were written from,
//! adapters merged in.

use std::fs;
use std::path::{Path, PathBuf};

use cllm_decode::{Batch, CausalLm, Output};
use cllm_model::adapter::FloatType;
use cllm_model::export::{GgufType, SHARD_BYTES, write_folder, write_gguf};
use cllm_model::{Adapter, Checkpoint, Compute, LoadOptions, Model, ModelError};

fn goldens(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens").join(what)
}

fn logits(path: &Path, adapters: &[PathBuf]) -> Vec<u32> {
    let adapters = adapters.to_vec();
    let options = LoadOptions { compute: Compute::F32, adapters, ..LoadOptions::default() };
    let model = Model::load(path, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lm = model.lm;
    let (mut cache, mut batch, mut output) = (lm.new_cache(), Batch::new(), Output::new());
    batch.push_causal(0, 0, (0..24).map(|i| i * 11), |_| cllm_decode::Want::Logits);
    lm.forward(&batch, &mut [&mut cache], &mut output).unwrap();
    (0..24)
        .flat_map(|row| output.logits(row).iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        .collect()
}

fn open(base: &Path, adapters: &[PathBuf]) -> Checkpoint {
    let mut checkpoint = Checkpoint::open(base).unwrap();
    for adapter in adapters {
        checkpoint.add_adapter(Adapter::open(adapter).unwrap()).unwrap();
    }
    checkpoint
}

#[track_caller]
fn check(base: &Path, adapters: &[PathBuf]) {
    let expected = logits(base, adapters);
    let checkpoint = open(base, adapters);
    let dir = tempfile::tempdir().unwrap();
    let name = base.file_name().unwrap().to_string_lossy().into_owned();

    let folder = dir.path().join("folder");
    match write_folder(&checkpoint, &folder, FloatType::F32, 20_000) {
        Ok(()) => {
            assert_eq!(logits(&folder, &[]), expected, "{name} as folder");
            assert!(folder.join("model.safetensors.index.json").is_file(), "{name}: in shards");
        }
        Err(ModelError::Unsupported { what, .. }) => {
            assert!(what.contains("config.json cannot say"), "{name}: {what}");
            assert!(!folder.exists());
        }
        Err(error) => panic!("{name}: {error}"),
    }
    let file = dir.path().join("model.gguf");
    match write_gguf(&checkpoint, &file, GgufType::F32) {
        // Rotary factors are divided by twice: a last bit may differ.
        Ok(()) if name.contains("llama3") => assert!(!logits(&file, &[]).is_empty()),
        Ok(()) => assert_eq!(logits(&file, &[]), expected, "{name} as GGUF"),
        Err(ModelError::Unsupported { what, .. }) => {
            assert!(what.contains("GGUF file cannot say"), "{name}: {what}");
            assert!(!file.exists());
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

#[test]
fn every_golden_model_survives() {
    for entry in fs::read_dir(goldens("models")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|e| e == "gguf") {
            check(&path, &[]);
        }
    }
}

#[test]
fn a_merged_model_is_the_adapted_one() {
    for (name, base) in [
        ("all-linear", "llama-f32"),
        ("head", "llama-f32"),
        ("patterns", "llama.F16.gguf"),
        ("quantised", "llama.Q4_1.gguf"),
        ("rslora", "qwen3-f32"),
    ] {
        check(&goldens("models").join(base), &[goldens("adapters").join(name)]);
    }
}

#[test]
fn smaller_types_are_written_as_they_are_called() {
    let checkpoint = open(&goldens("models/llama.Q4_1.gguf"), &[]);
    let dir = tempfile::tempdir().unwrap();
    let types = |path: &Path, name: &str| {
        let checkpoint = Checkpoint::open(path).unwrap();
        checkpoint.tensor(name).unwrap().dtype.to_string()
    };
    let (matrix, norm) = ("model.layers.0.mlp.up_proj.weight", "model.norm.weight");
    for (kind, name) in [(GgufType::F16, "F16"), (GgufType::Bf16, "BF16"), (GgufType::Q8_0, "Q8_0")]
    {
        let path = dir.path().join(format!("{name}.gguf"));
        write_gguf(&checkpoint, &path, kind).unwrap();
        assert_eq!((types(&path, matrix), types(&path, norm)), (name.into(), "F32".into()));
        Model::load(&path, &LoadOptions::default()).unwrap();
    }
    for (kind, name) in [(FloatType::F16, "F16"), (FloatType::Bf16, "BF16")] {
        let path = dir.path().join(name);
        write_folder(&checkpoint, &path, kind, SHARD_BYTES).unwrap();
        assert_eq!((types(&path, matrix), types(&path, norm)), (name.into(), name.into()));
        assert!(path.join("model.safetensors").is_file());
    }
}

#[test]
fn numbers_that_do_not_fit_are_errors_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = Adapter::open(&goldens("adapters/all-linear")).unwrap();
    let huge = adapter.pairs().iter().map(|pair| {
        let mut pair = pair.clone();
        pair.b.iter_mut().for_each(|b| *b = 1e6);
        pair
    });
    let huge = Adapter::new(adapter.config().clone(), huge.collect()).unwrap();
    let mut checkpoint = Checkpoint::open(&goldens("models/llama-f32")).unwrap();
    checkpoint.add_adapter(huge).unwrap();
    let path = dir.path().join("new");
    let error = write_folder(&checkpoint, &path, FloatType::F16, SHARD_BYTES).unwrap_err();
    assert!(error.to_string().contains("expected numbers up to 65504"), "{error}");
    let error = write_gguf(&checkpoint, &path, GgufType::F16).unwrap_err();
    assert!(error.to_string().contains("expected numbers up to 65504"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn replaced_tensors_are_what_is_written() {
    let base = goldens("models/llama-f32");
    let mut checkpoint = open(&base, &[]);
    let config = checkpoint.config().unwrap();
    // Rows of a query projection are stored in another order in GGUF files.
    let name = "model.layers.0.self_attn.q_proj.weight";
    let old = checkpoint.tensor_f32(&config, name).unwrap();
    let new: Vec<f32> = (0..old.len()).map(|i| i as f32 / 1024.0).collect();

    let error = |e: ModelError| e.to_string();
    let wrong = checkpoint.replace("model.layers.9.x", new.clone()).map_err(error).unwrap_err();
    assert!(wrong.contains("no tensor of this name"), "{wrong}");
    let wrong = checkpoint.replace(name, vec![0.0]).map_err(error).unwrap_err();
    assert!(wrong.contains("found 1 values"), "{wrong}");

    checkpoint.replace(name, new.clone()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (folder, file) = (dir.path().join("folder"), dir.path().join("model.gguf"));
    write_folder(&checkpoint, &folder, FloatType::F32, SHARD_BYTES).unwrap();
    write_gguf(&checkpoint, &file, GgufType::F32).unwrap();
    for path in [&folder, &file] {
        let written = open(path, &[]);
        let config = written.config().unwrap();
        assert_eq!(written.tensor_f32(&config, name).unwrap(), new, "{}", path.display());
        let other = "model.layers.0.self_attn.k_proj.weight";
        assert_eq!(
            written.tensor_f32(&config, other).unwrap(),
            checkpoint.tensor_f32(&config, other).unwrap(),
            "{}",
            path.display()
        );
    }
    assert_eq!(logits(&folder, &[]), logits(&file, &[]));
    assert_ne!(logits(&folder, &[]), logits(&base, &[]));
}
