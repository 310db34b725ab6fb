//! What can stop a model reference from becoming a local path, each in one line that also
//! says what to do.
//!
//! The exit code lives here because only the source of an error knows whether the caller
//! asked for something wrong (2) or the world failed (1). A cause is part of the line and
//! therefore not an `Error::source`, which would print it twice.

use std::io;
use std::path::{Path, PathBuf};

/// A model that could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The text is no model reference.
    #[error(
        "`{text}` is not a model: {why}; expected a .gguf file, a model folder, \
         hf:org/name[@rev][:file.gguf], pip:package==version or `default`"
    )]
    BadReference {
        /// As given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A local path that does not exist or holds no model.
    #[error("{}: {why}", path.display())]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What was expected and found, and what to do.
        why: String,
    },
    /// No interpreter to run pip with.
    #[error("cannot run `{python}` ({cause}): install Python 3, or name it in CLLM_PYTHON")]
    PythonMissing {
        /// The command tried.
        python: String,
        /// Why it did not start.
        cause: io::Error,
    },
    /// An interpreter without pip.
    #[error(
        "`{python}` has no pip: run `{python} -m ensurepip --upgrade` (Debian and Ubuntu: \
         `apt install python3-pip`), or name another Python in CLLM_PYTHON"
    )]
    PipMissing {
        /// The interpreter.
        python: String,
    },
    /// pip knows no such package or version.
    #[error("pip finds no {requirement}: {available}")]
    PackageNotFound {
        /// `package==version`.
        requirement: String,
        /// The versions there are, or that there is none.
        available: String,
    },
    /// pip failed in a way without a line of its own.
    #[error("pip failed to download {requirement} ({status}); its last lines:\n{log}")]
    PipFailed {
        /// `package==version`.
        requirement: String,
        /// How pip ended.
        status: String,
        /// The end of its output.
        log: String,
    },
    /// A package or repository that holds no model, or several.
    #[error("{what}: {why}")]
    NoModel {
        /// The package or repository.
        what: String,
        /// What it holds instead, and how to choose.
        why: String,
    },
    /// A downloaded file that breaks its format.
    #[error("{what}: {why}; try again, and report it if it stays so")]
    Damaged {
        /// The file.
        what: String,
        /// What was expected and found.
        why: String,
    },
    /// A file with other bytes than it must have.
    #[error("{what}: wrong hash: expected {expected}, found {found}; {advice}")]
    WrongHash {
        /// The file.
        what: String,
        /// Hexadecimal.
        expected: String,
        /// Hexadecimal.
        found: String,
        /// What to do.
        advice: String,
    },
    /// No room left.
    #[error("no space left on the disk of {}: free some, or move the cache with {variable}", at.display())]
    DiskFull {
        /// Where the write failed.
        at: PathBuf,
        /// The environment variable that moves this cache.
        variable: &'static str,
    },
    /// A cache that cannot be written.
    #[error("cannot write to {}: {cause}; make it writable, or move the cache with {variable}", at.display())]
    Unwritable {
        /// Where the write failed.
        at: PathBuf,
        /// The environment variable that moves this cache.
        variable: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// Any other refusal of the operating system.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// No connection.
    #[error(
        "no connection to fetch {what}: {why}; check the network (proxies: HTTPS_PROXY), then try again"
    )]
    NoNetwork {
        /// What was to be fetched.
        what: String,
        /// The client's own words.
        why: String,
    },
    /// The cache lacks the model, and the network is forbidden.
    #[error("{what} is not in the cache ({}) and HF_HUB_OFFLINE is set: unset it to download", cache.display())]
    Offline {
        /// What was asked for.
        what: String,
        /// The Hub cache.
        cache: PathBuf,
    },
    /// The Hub has no such repository, revision or file.
    #[error("{what}: {why}")]
    HubNotFound {
        /// What was asked for.
        what: String,
        /// What is missing, and what to try.
        why: String,
    },
    /// The Hub wants other credentials.
    #[error("{what}: {why}")]
    HubDenied {
        /// What was asked for.
        what: String,
        /// What to do about it.
        why: String,
    },
    /// The Hub answered something we cannot use.
    #[error("{what}: the server answered {answer}; try again later (HF_ENDPOINT is {endpoint})")]
    HubAnswer {
        /// What was asked for.
        what: String,
        /// Status or body.
        answer: String,
        /// The server.
        endpoint: String,
    },
    /// Neither a cache variable nor a home directory.
    #[error("no home directory to keep models in: set {variable} to a folder")]
    NoHome {
        /// The variable to set.
        variable: &'static str,
    },
}

impl SourceError {
    /// 2 when another reference is needed, 1 when the same one may work later.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            SourceError::BadReference { .. }
            | SourceError::NotAModel { .. }
            | SourceError::PackageNotFound { .. }
            | SourceError::NoModel { .. }
            | SourceError::Offline { .. }
            | SourceError::HubNotFound { .. } => 2,
            _ => 1,
        }
    }

    /// A failed read.
    pub(super) fn io(path: &Path, cause: io::Error) -> Self {
        SourceError::Io { path: path.into(), cause }
    }

    /// Names the cache on a full disk: the file that did not fit is gone by now.
    pub(super) fn on_disk_of(self, cache: &Path) -> Self {
        match self {
            SourceError::DiskFull { variable, .. } => {
                SourceError::DiskFull { at: cache.into(), variable }
            }
            error => error,
        }
    }

    /// A failed write into the cache that `variable` moves.
    pub(super) fn write(at: &Path, variable: &'static str, cause: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match cause.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => {
                SourceError::DiskFull { at: at.into(), variable }
            }
            Kind::PermissionDenied
            | Kind::ReadOnlyFilesystem
            | Kind::NotADirectory
            | Kind::AlreadyExists
            | Kind::NotFound => SourceError::Unwritable { at: at.into(), variable, cause },
            _ => SourceError::io(at, cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_names_the_variable_that_moves_the_cache() {
        let write = |kind: io::ErrorKind| {
            SourceError::write(Path::new("cache"), "CLLM_HOME", kind.into()).to_string()
        };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert!(write(kind).starts_with("no space left on the disk of cache"));
        }
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            assert!(write(kind).starts_with("cannot write to cache"));
            assert!(write(kind).ends_with("CLLM_HOME"));
        }
    }
}
