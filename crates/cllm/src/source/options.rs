//! Where models are kept and how they are fetched: the environment, read once.
//!
//! The Hub's variables mean what they mean to `huggingface_hub`, so that both share one
//! cache and one login.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SourceError;

/// Everything [`super::resolve`] takes from outside.
#[derive(Debug, Clone)]
pub(crate) struct SourceOptions {
    /// cllm's own cache (`CLLM_HOME`).
    pub(crate) home: PathBuf,
    /// The Python that has pip (`CLLM_PYTHON`).
    pub(crate) python: OsString,
    /// The Hub.
    pub(crate) hub: HubOptions,
}

/// The Hub's part of [`SourceOptions`].
#[derive(Debug, Clone)]
pub(crate) struct HubOptions {
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`.
    pub(crate) cache: PathBuf,
    /// `HF_ENDPOINT`, without a slash at its end.
    pub(crate) endpoint: String,
    /// `HF_TOKEN`, else the file `huggingface-cli login` wrote.
    pub(crate) token: Option<String>,
    /// `HF_HUB_OFFLINE`: only the cache.
    pub(crate) offline: bool,
    /// Wait before the second attempt at a broken download; doubles after each failure.
    pub(crate) pause: Duration,
}

impl SourceOptions {
    /// From the process's environment.
    pub(crate) fn from_env() -> Result<Self, SourceError> {
        let platform = Platform { home: dirs::home_dir(), cache: dirs::cache_dir() };
        Self::from_vars(&|name| std::env::var_os(name).filter(|v| !v.is_empty()), platform)
    }

    fn from_vars(
        var: &dyn Fn(&str) -> Option<OsString>,
        platform: Platform,
    ) -> Result<Self, SourceError> {
        let path = |name: &str| var(name).map(PathBuf::from);
        let text = |name: &str| var(name).map(|v| v.to_string_lossy().trim().to_owned());
        let truth = |name: &str| {
            text(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&&*v.to_uppercase()))
        };

        let home = path("CLLM_HOME")
            .or_else(|| Some(platform.cache?.join("cllm")))
            .ok_or(SourceError::NoHome { variable: "CLLM_HOME" })?;
        let hf_home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(platform.home?.join(".cache").join("huggingface")))
            .ok_or(SourceError::NoHome { variable: "HF_HOME" })?;
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Ok(SourceOptions {
            home,
            python: var("CLLM_PYTHON").unwrap_or_else(|| "python3".into()),
            hub: HubOptions {
                cache: path("HF_HUB_CACHE")
                    .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                    .unwrap_or_else(|| hf_home.join("hub")),
                endpoint: endpoint.trim_end_matches('/').to_owned(),
                token: text("HF_TOKEN")
                    .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
                    .or_else(|| read_token(&token_file))
                    .filter(|token| !token.is_empty()),
                offline: truth("HF_HUB_OFFLINE"),
                pause: Duration::from_millis(500),
            },
        })
    }
}

/// The platform's folders, absent for a user without a home.
struct Platform {
    home: Option<PathBuf>,
    cache: Option<PathBuf>,
}

fn read_token(file: &Path) -> Option<String> {
    Some(std::fs::read_to_string(file).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(vars: &[(&str, &str)]) -> Result<SourceOptions, SourceError> {
        let platform = Platform { home: Some("/u".into()), cache: Some("/u/cache".into()) };
        let var = |name: &str| vars.iter().find(|v| v.0 == name).map(|v| v.1.into());
        SourceOptions::from_vars(&var, platform)
    }

    #[test]
    fn without_variables_the_platform_decides() {
        let o = options(&[]).unwrap();
        assert_eq!(o.home, Path::new("/u/cache/cllm"));
        assert_eq!(o.python, "python3");
        assert_eq!(o.hub.cache, Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(o.hub.endpoint, "https://huggingface.co");
        assert!(o.hub.token.is_none() && !o.hub.offline);
    }

    #[test]
    fn the_narrower_hub_variable_wins() {
        let cache = |vars: &[(&str, &str)]| options(vars).unwrap().hub.cache;
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        let mut vars = vec![("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")];
        assert_eq!(cache(&vars), Path::new("/h/hub"));
        vars.push(("HF_HUB_CACHE", "/c"));
        assert_eq!(cache(&vars), Path::new("/c"));
    }

    #[test]
    fn tokens_come_from_the_variable_or_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", dir.path().to_str().unwrap());
        assert_eq!(options(&[home]).unwrap().hub.token.as_deref(), Some("hf_file"));
        let both = [home, ("HF_TOKEN", " hf_env ")];
        assert_eq!(options(&both).unwrap().hub.token.as_deref(), Some("hf_env"));
    }

    #[test]
    fn other_variables() {
        let offline = |v| options(&[("HF_HUB_OFFLINE", v)]).unwrap().hub.offline;
        assert!(offline("1") && offline("true") && offline("Yes"));
        assert!(!offline("0") && !offline("no"));
        let endpoint = options(&[("HF_ENDPOINT", "http://mirror/")]).unwrap().hub.endpoint;
        assert_eq!(endpoint, "http://mirror");
    }

    #[test]
    fn no_home_at_all_is_an_error_that_names_the_variable() {
        let none = Platform { home: None, cache: None };
        let error = SourceOptions::from_vars(&|_| None, none).unwrap_err();
        assert!(error.to_string().ends_with("set CLLM_HOME to a folder"));
    }
}
