//! Tensors read in Hugging Face's names and order, from GGUF files and folders.

use std::path::{Path, PathBuf};

use cllm_model::Checkpoint;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/models").join(name)
}

/// Every tensor that a configuration promises is there, in its shape, and nothing else is
/// in the file but rotary factors.
#[test]
fn the_configuration_names_every_tensor() {
    let mut models = 0;
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let path = entry.unwrap().path();
        let gguf = path.extension().is_some_and(|e| e == "gguf");
        if !(path.is_dir() || gguf) {
            continue;
        }
        let checkpoint = Checkpoint::open(&path).unwrap();
        let config = checkpoint.config().unwrap();
        let promised = config.tensors();
        for (name, shape) in &promised {
            let values = checkpoint.tensor_f32(&config, name).unwrap();
            assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        }
        let found = checkpoint.tensors().filter(|t| t.name != "rope_freqs.weight").count();
        assert_eq!(found, promised.len(), "{}", path.display());
        models += 1;
    }
    assert!(models > 20);
}

#[test]
fn names_that_the_network_lacks_are_errors() {
    let checkpoint = Checkpoint::open(&golden("llama-f16")).unwrap();
    let config = checkpoint.config().unwrap();
    let error = checkpoint.tensor_f32(&config, "lm_head.weight").unwrap_err();
    assert!(error.to_string().contains("no tensor of this name"), "{error}");
}
