//! Files with a name to call them by: `NAME=FILE`, or a file called as it is.

use std::path::PathBuf;
use std::str::FromStr;

/// A file and what reports call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedFile {
    /// The name; without one the file's, without its ending.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
}

impl FromStr for NamedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
            None => {
                let path = PathBuf::from(text);
                let stem = path.file_stem().unwrap_or_default();
                (stem.to_string_lossy().into_owned(), path)
            }
        };
        if name.is_empty() || path.as_os_str().is_empty() {
            return Err(format!("`{text}`: expected NAME=FILE, or a file"));
        }
        Ok(Self { name, path })
    }
}

/// The first name that stands twice.
pub(crate) fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_name_with_or_without_one() {
        let parse = |text: &str| text.parse::<NamedFile>();
        let file = |name: &str, path: &str| NamedFile { name: name.into(), path: path.into() };
        assert_eq!(parse("cllm=runs/a.jsonl"), Ok(file("cllm", "runs/a.jsonl")));
        assert_eq!(parse("runs/a.jsonl"), Ok(file("a", "runs/a.jsonl")));
        for text in ["", "=a", "a="] {
            assert!(parse(text).unwrap_err().contains("expected NAME=FILE"), "{text}");
        }
        assert_eq!(twice(["a", "b", "a"]), Some("a"));
        assert_eq!(twice(["a", "b"]), None);
    }
}
