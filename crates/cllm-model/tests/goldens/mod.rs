//! Where the golden models are.

use std::path::PathBuf;

/// The folder of golden models, written by `goldens/models.py`.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../goldens/models")
}
