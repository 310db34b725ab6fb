//! Models of the Hugging Face Hub, in the cache that `huggingface_hub` and transformers
//! use, so that no model is stored twice.
//!
//! ```text
//! HF_HUB_CACHE/models--ORG--NAME/refs/REVISION           a commit
//!                               /blobs/ETAG              content, named by its hash
//!                               /snapshots/COMMIT/FILE   links into blobs
//!             /.locks/models--ORG--NAME/ETAG.lock
//! ```
//!
//! The crate `hf-hub` (0.5) gives the layout, the addresses and the listing of a
//! repository. The download itself ([`fetch`]) is ours: the crate's puts a file in place
//! without looking at its size or hash, and appends to a partial file whatever the server
//! sends. Blobs appear only complete and checked; the reference is written last, so a
//! revision is never taken for complete when it is not.

mod choose;
mod fetch;
mod listing;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{CacheRepo, Repo, RepoType};

use self::choose::{Choice, Weights};
use self::fetch::Download;
use self::listing::{Hub, Listing};
use super::cache::lock_file;
use super::digest::Hash;
use super::options::HubOptions;
use super::reference::HubRef;
use super::{Fetched, Resolved, SourceError};
use crate::progress::{Progress, Task};

/// The variable that moves this cache.
const VARIABLE: &str = "HF_HOME";

/// The path of the repository's model, fetched if it is not in the cache.
pub(super) fn resolve(
    reference: &HubRef,
    progress: &dyn Progress,
    options: &HubOptions,
) -> Result<Resolved, SourceError> {
    let store = Store::new(reference, options);
    if options.offline {
        return store.find(reference)?.ok_or_else(|| SourceError::Offline {
            what: reference.to_string(),
            cache: options.cache.clone(),
        });
    }
    // A commit cannot move, so nobody need be asked about it.
    if store.revision_is_commit()
        && let Ok(Some(found)) = store.find(reference)
    {
        return Ok(found);
    }
    let hub = Hub::new(reference, options)?;
    let listing = match hub.list() {
        Err(error @ SourceError::NoNetwork { .. }) => {
            let Ok(Some(found)) = store.find(reference) else { return Err(error) };
            progress.note(&format!("{error}; the cached {reference} is used"));
            return Ok(found);
        }
        listing => listing?,
    };
    let fetched = store.fetch(&hub, &listing, reference, progress);
    fetched.map_err(|error| error.on_disk_of(&options.cache))
}

/// Hashes the files of a snapshot, or one file of it, against the names of their blobs.
pub(super) fn verify(path: &Path) -> Result<Vec<(PathBuf, String)>, SourceError> {
    let mut files = BTreeSet::new();
    if path.is_dir() {
        files.extend(walk(path).into_iter().map(|name| path.join(name)));
    } else {
        files.insert(path.to_owned());
    }
    let mut checked = Vec::new();
    for file in files {
        let blob = fs::canonicalize(&file).map_err(|e| SourceError::io(&file, e))?;
        let expected = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Where there are no links the name of the blob is lost, and with it the hash.
        let Some(hash) = Hash::of_etag(&expected) else { continue };
        let found = hash.of_file(&blob)?;
        if found != expected {
            let advice = format!("delete {} and pull again", blob.display());
            let what = file.display().to_string();
            return Err(SourceError::WrongHash { what, expected, found, advice });
        }
        checked.push((file, found));
    }
    Ok(checked)
}

/// One repository's part of the cache.
struct Store<'a> {
    repo: CacheRepo,
    folder: PathBuf,
    locks: PathBuf,
    revision: &'a str,
}

impl<'a> Store<'a> {
    fn new(reference: &'a HubRef, options: &'a HubOptions) -> Self {
        let revision = reference.revision.as_deref().unwrap_or("main");
        let repo =
            Repo::with_revision(reference.repo.clone(), RepoType::Model, revision.to_owned());
        let name = repo.folder_name();
        Store {
            folder: options.cache.join(&name),
            locks: options.cache.join(".locks").join(name),
            repo: hf_hub::Cache::new(options.cache.clone()).repo(repo),
            revision,
        }
    }

    fn revision_is_commit(&self) -> bool {
        self.revision.len() == 40 && Hash::of_etag(self.revision).is_some()
    }

    /// The commit that the cache knows for the revision.
    fn commit(&self) -> Option<String> {
        if self.revision_is_commit() {
            return Some(self.revision.to_owned());
        }
        let text = fs::read_to_string(self.folder.join("refs").join(self.revision)).ok()?;
        let commit = text.trim();
        (Hash::of_etag(commit) == Some(Hash::GitBlob)).then(|| commit.to_owned())
    }

    /// The model in the cache, if all of it is there.
    fn find(&self, reference: &HubRef) -> Result<Option<Resolved>, SourceError> {
        let Some(commit) = self.commit() else { return Ok(None) };
        let snapshot = self.repo.pointer_path(&commit);
        let names = walk(&snapshot);
        let complete = match choose::choose(reference, &names) {
            Ok(Choice::Gguf(name)) => Some(snapshot.join(name)),
            Ok(Choice::Folder { weights, .. }) => match weights {
                Weights::Files(_) => Some(snapshot),
                Weights::Index(index) => {
                    let shards = choose::shards(&snapshot.join(index), &reference.to_string())?;
                    shards.iter().all(|shard| names.contains(shard)).then_some(snapshot)
                }
            },
            Err(error) if choose::ggufs(&names).len() > 1 && reference.file.is_none() => {
                return Err(error);
            }
            Err(_) => None,
        };
        Ok(complete.map(|path| Resolved { path, fetched: Fetched::Before }))
    }

    fn fetch(
        &self,
        hub: &Hub,
        listing: &Listing,
        reference: &HubRef,
        progress: &dyn Progress,
    ) -> Result<Resolved, SourceError> {
        let snapshot = self.repo.pointer_path(&listing.commit);
        let names: BTreeSet<String> = listing.files.keys().cloned().collect();
        let get = |names: &[String]| self.fetch_files(hub, listing, names, progress);
        let (path, fetched) = match choose::choose(reference, &names)? {
            Choice::Gguf(name) => {
                let path = snapshot.join(&name);
                (path, get(&[name])?)
            }
            Choice::Folder { mut small, weights } => {
                let (small, shards) = match weights {
                    Weights::Files(shards) => (get(&small)?, shards),
                    Weights::Index(index) => {
                        let path = snapshot.join(&index);
                        small.push(index);
                        (get(&small)?, choose::shards(&path, &reference.to_string())?)
                    }
                };
                (snapshot, get(&shards)? | small)
            }
        };
        if !self.revision_is_commit() {
            let refs = self.folder.join("refs");
            self.repo
                .create_ref(&listing.commit)
                .map_err(|e| SourceError::write(&refs, VARIABLE, e))?;
        }
        let fetched = if fetched { Fetched::Now } else { Fetched::Before };
        Ok(Resolved { path, fetched })
    }

    /// Makes the named files of the listing appear in the snapshot; whether anything had
    /// to be downloaded.
    fn fetch_files(
        &self,
        hub: &Hub,
        listing: &Listing,
        names: &[String],
        progress: &dyn Progress,
    ) -> Result<bool, SourceError> {
        let snapshot = self.repo.pointer_path(&listing.commit);
        let mut missing = Vec::new();
        for name in names {
            let remote = listing.files.get(name).ok_or_else(|| SourceError::Damaged {
                what: hub.what.clone(),
                why: format!("its index names `{name}`, which the repository does not have"),
            })?;
            if size_of(&snapshot.join(name)) != Some(remote.size) {
                missing.push((name, remote));
            }
        }
        if missing.is_empty() {
            return Ok(false);
        }
        let total = missing.iter().map(|(_, remote)| remote.size).fold(0, u64::saturating_add);
        let task = Task::begin(progress, &hub.what, Some(total));
        let mut before = 0_u64;
        for (name, remote) in missing {
            let blob = self.repo.blob_path(&remote.etag);
            let lock = self.locks.join(format!("{}.lock", remote.etag));
            let _lock = lock_file(&lock, VARIABLE, progress)?;
            if size_of(&blob) != Some(remote.size) {
                let url = hub.file_url(&listing.commit, name);
                let download = Download { hub, url, name, remote, blob: &blob };
                download.run(&|done| task.at(before.saturating_add(done)))?;
            }
            let link_path = snapshot.join(name);
            link(&blob, &link_path, name.split('/').count() + 1)
                .map_err(|e| SourceError::write(&link_path, VARIABLE, e))?;
            before = before.saturating_add(remote.size);
            task.at(before);
        }
        Ok(true)
    }
}

/// Makes `at` a relative link to the blob, `depth` folders up, as huggingface_hub does.
fn link(blob: &Path, at: &Path, depth: usize) -> io::Result<()> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(at) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    #[cfg(unix)]
    {
        let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
        target.push("blobs");
        target.push(blob.file_name().unwrap_or_default());
        std::os::unix::fs::symlink(target, at)
    }
    // Links need a privilege elsewhere; huggingface_hub moves the file, too.
    #[cfg(not(unix))]
    {
        let _ = depth;
        fs::rename(blob, at)
    }
}

fn size_of(path: &Path) -> Option<u64> {
    Some(fs::metadata(path).ok()?.len())
}

/// The names, with `/`, of the files in a snapshot that are really there. Folders below
/// the second level hold no models.
fn walk(snapshot: &Path) -> BTreeSet<String> {
    fn visit(dir: &Path, prefix: &str, depth: usize, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            if path.is_file() {
                names.insert(name);
            } else if depth > 0 && path.is_dir() {
                visit(&path, &format!("{name}/"), depth - 1, names);
            }
        }
    }
    let mut names = BTreeSet::new();
    visit(snapshot, "", 2, &mut names);
    names
}
