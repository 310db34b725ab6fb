//! Everything that can be wrong with a model's files, said with what was expected, what
//! was found, and where.

use std::path::PathBuf;

/// A model that cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file breaks its own format.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where in it, what was expected and what was found.
        what: String,
    },
    /// A well-formed file that describes something we do not support.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it asks for, and what is supported.
        what: String,
    },
    /// A tensor that is missing or has another shape or type than the configuration says.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// The tensor's name, in the file's own spelling where there is one.
        name: String,
        /// What was expected and found.
        what: String,
    },
    /// Text that the tokenizer or the chat template cannot handle.
    #[error("{0}")]
    Text(String),
}
