//! Folders that appear whole or not at all.

use std::fs;
use std::path::Path;

use crate::error::ModelError;

/// Lets `fill` write into a folder beside `dir`, then puts it in place of `dir`. What was
/// there stays if anything fails. Between the two renames that a replacement takes, a
/// crash leaves the old folder as `.NAME.old`.
pub(crate) fn replace_folder(
    dir: &Path,
    fill: impl FnOnce(&Path) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let io = |source| ModelError::Io { path: dir.into(), source };
    let Some(name) = dir.file_name() else {
        return Err(io(std::io::Error::other("expected the name of a folder to write")));
    };
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(io)?;
    let staged = tempfile::Builder::new().prefix(".cllm-").tempdir_in(parent).map_err(io)?;
    // Temporary folders are private; this one is to be as public as any other.
    let inner = staged.path().join("new");
    fs::create_dir(&inner).map_err(io)?;
    fill(&inner)?;
    // So are files that a library made private.
    let plain = staged.path().join("plain");
    let permissions =
        fs::File::create(&plain).and_then(|file| file.metadata()).map_err(io)?.permissions();
    for entry in fs::read_dir(&inner).map_err(io)? {
        let file = fs::File::open(entry.map_err(io)?.path()).map_err(io)?;
        if file.metadata().map_err(io)?.is_file() {
            file.set_permissions(permissions.clone()).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
    }
    if !dir.exists() {
        return fs::rename(&inner, dir).map_err(io);
    }
    let mut old = std::ffi::OsString::from(".");
    old.push(name);
    old.push(".old");
    let old = parent.join(old);
    if old.exists() {
        fs::remove_dir_all(&old).map_err(io)?;
    }
    fs::rename(dir, &old).map_err(io)?;
    if let Err(error) = fs::rename(&inner, dir) {
        fs::rename(&old, dir).map_err(io)?;
        return Err(io(error));
    }
    fs::remove_dir_all(&old).map_err(io)
}
