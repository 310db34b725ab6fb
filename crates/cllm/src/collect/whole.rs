//! Files that are complete or not there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Writes `path`: `fill` writes a file beside it, which then takes its name. On an error
/// nothing stays. A process that is killed leaves the file beside it, named `PATH.TAG.tmp`;
/// the next one that writes with the same tag uses it up. Two processes that may write at
/// the same time need different tags.
pub(crate) fn write(
    path: &Path,
    tag: &str,
    fill: impl FnOnce(&mut File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{tag}.tmp"));
    let beside = PathBuf::from(name);
    let filled = || -> anyhow::Result<()> {
        let mut file = File::create(&beside)?;
        fill(&mut file)?;
        file.sync_all()?;
        Ok(fs::rename(&beside, path)?)
    };
    filled()
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let text = || fs::read_to_string(&path).unwrap();
        // What a killed process left.
        fs::write(folder.path().join("a.txt.x.tmp"), "much more than the new text").unwrap();
        write(&path, "x", |file| Ok(file.write_all(b"one")?)).unwrap();
        assert_eq!(text(), "one");
        let error = write(&path, "x", |file| {
            file.write_all(b"two")?;
            anyhow::bail!("no space left")
        });
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("a.txt: no space left"), "{error}");
        assert_eq!(text(), "one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let error = write(Path::new("/proc/nowhere"), "x", |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("cannot write /proc/nowhere"), "{error}");
        // /dev/full has no space, whoever writes.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::os::unix::fs::symlink("/dev/full", folder.path().join("a.txt.x.tmp")).unwrap();
        let error = write(&path, "x", |file| Ok(file.write_all(b"one")?)).unwrap_err();
        assert!(format!("{error:#}").contains("No space left on device"), "{error:#}");
        assert!(!path.exists());
    }
}
