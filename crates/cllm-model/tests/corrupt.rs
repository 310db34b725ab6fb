//! Files with random damage: whatever comes of it, an error or a model, there is no
//! panic on the way, up to the last value of the last tensor.

use std::fs;
use std::path::Path;

use cllm_model::Checkpoint;
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile").join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Damage to a file: bytes replaced, then the end cut off.
#[derive(Debug, Clone)]
struct Damage {
    /// Place, as a share of the file, and new byte.
    bytes: Vec<(f64, u8)>,
    /// What is left, as a share of the file.
    keep: f64,
}

fn damage() -> impl Strategy<Value = Damage> {
    // Mostly small bytes: they make other lengths, types and shapes, not just huge ones.
    let byte = prop_oneof![0u8..16, any::<u8>(), Just(b'"'), Just(b'9')];
    let keep = prop_oneof![3 => Just(1.0), 1 => 0.0..1.0];
    (prop::collection::vec((0.0..1.0, byte), 0..4), keep)
        .prop_map(|(bytes, keep)| Damage { bytes, keep })
}

impl Damage {
    fn apply(&self, mut data: Vec<u8>) -> Vec<u8> {
        let len = data.len() as f64;
        for &(place, byte) in &self.bytes {
            data[(place * len) as usize] = byte;
        }
        data.truncate((self.keep * len) as usize);
        data
    }
}

/// Opens a model and uses all of it that an undamaged one would let us use.
fn use_all(path: &Path) {
    let Ok(model) = Checkpoint::open(path) else { return };
    if let Ok(config) = model.config() {
        assert!(config.num_layers == config.rope_layers.len());
    }
    for t in model.tensors() {
        let mut row = vec![0.0; t.row_len()];
        for r in 0..t.rows() {
            t.read_f32(r..r + 1, &mut row);
        }
    }
    if let Some(gguf) = model.gguf() {
        for key in gguf.keys() {
            assert!(gguf.get(key).is_some(), "{key} was read before");
            let _ = gguf.get_strings(key).map(|v| v.map(|v| v.len()));
            let _ = gguf.get_f32s(key).map(|v| v.map(|v| v.len()));
            let _ = gguf.get_u32s(key).map(|v| v.map(|v| v.len()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn gguf(damage in damage()) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("model.gguf");
        fs::write(&path, damage.apply(fixture("valid.gguf"))).expect("a file");
        use_all(&path);
    }

    #[test]
    fn folder(weights in damage(), config in damage()) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let damaged = weights.apply(fixture("valid.safetensors"));
        fs::write(dir.path().join("model.safetensors"), damaged).expect("a file");
        let damaged = config.apply(fixture("valid.json"));
        fs::write(dir.path().join("config.json"), damaged).expect("a file");
        use_all(dir.path());
    }
}
