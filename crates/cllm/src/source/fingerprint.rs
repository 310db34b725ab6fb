//! Names of models by content, so that files made with one are not used with another.

use std::fs;
use std::path::{Path, PathBuf};

use cllm_model::Tokenizer;
use sha2::{Digest as _, Sha256};

use super::SourceError;
use super::digest::{Hash, hex};

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String, SourceError> {
    Hash::Sha256.of_file(path)
}

/// The hash of a model: of its file, or over the names and hashes of a folder's weights
/// and configuration.
fn model_sha256(path: &Path) -> Result<String, SourceError> {
    if !path.is_dir() {
        return sha256(path);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| SourceError::io(path, e))? {
        let file = entry.map_err(|e| SourceError::io(path, e))?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") || name == "config.json" {
            files.push((name, file));
        }
    }
    files.sort();
    let mut state = Sha256::new();
    for (name, file) in files {
        state.update(format!("{name} {}\n", sha256(&file)?));
    }
    Ok(hex(&state.finalize()))
}

/// The hash of a model with adapters: of the model alone if there are none, else over its
/// hash and those of each adapter's two files, in the order they are merged.
pub(crate) fn adapted_sha256(model: &Path, adapters: &[PathBuf]) -> Result<String, SourceError> {
    let base = model_sha256(model)?;
    if adapters.is_empty() {
        return Ok(base);
    }
    let mut state = Sha256::new();
    state.update(format!("model {base}\n"));
    for adapter in adapters {
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            state.update(format!("{name} {}\n", sha256(&adapter.join(name))?));
        }
    }
    Ok(hex(&state.finalize()))
}

/// The hash of a vocabulary: each token's length and bytes, in the order of ids. The same
/// for a GGUF file and the folder it was made from.
pub(crate) fn tokenizer_sha256(tokenizer: &Tokenizer) -> String {
    let mut state = Sha256::new();
    for token in 0..tokenizer.vocab_size() {
        let bytes = tokenizer.token_bytes(token as u32);
        state.update((bytes.len() as u64).to_le_bytes());
        state.update(bytes);
    }
    hex(&state.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_and_their_order_change_a_models_hash() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens");
        let model = goldens.join("models/llama.F16.gguf");
        let (a, b) = (goldens.join("adapters/patterns"), goldens.join("adapters/quantised"));
        let hash = |adapters: &[&std::path::PathBuf]| {
            let adapters: Vec<_> = adapters.iter().map(|path| (*path).clone()).collect();
            adapted_sha256(&model, &adapters).unwrap()
        };
        assert_eq!(hash(&[]), sha256(&model).unwrap());
        let mut all = vec![hash(&[]), hash(&[&a]), hash(&[&b]), hash(&[&a, &b]), hash(&[&b, &a])];
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 5);
    }
}
