//! One file of the Hub into a blob of the cache: resumed when the connection breaks,
//! checked before it appears.
//!
//! The bytes go to `BLOB.incomplete`, the name huggingface_hub uses. A later call, of this
//! process or another, asks for the rest with a Range request. A server that answers with
//! the whole file starts it anew. Attempts end when several in a row bring not one byte;
//! as long as bytes come, a bad line only takes longer. What does not have the listed
//! size and hash is deleted.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;

use ureq::http::HeaderMap;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RANGE};

use super::VARIABLE;
use super::listing::{ATTEMPTS, Hub, Remote, busy};
use crate::source::SourceError;
use crate::source::digest::{CopyFault, copy};

/// Why an attempt ended without the whole file.
enum Fault {
    /// Another one may bring the rest.
    Broken(String),
    /// None will.
    Final(SourceError),
}

/// One file to download.
pub(super) struct Download<'a> {
    /// The repository it is from.
    pub(super) hub: &'a Hub,
    /// Its address.
    pub(super) url: String,
    /// Its name in the repository, for messages.
    pub(super) name: &'a str,
    /// What it must be.
    pub(super) remote: &'a Remote,
    /// Where it goes; the caller holds the lock of this blob.
    pub(super) blob: &'a Path,
}

impl Download<'_> {
    /// Downloads, telling `at` the bytes that are there.
    pub(super) fn run(&self, at: &dyn Fn(u64)) -> Result<(), SourceError> {
        let part = PathBuf::from(format!("{}.incomplete", self.blob.display()));
        let result = self.run_into(&part, at);
        // What came is kept for the next time, unless there is nothing, or the disk is
        // full: it must not stay so because of us.
        let empty = || fs::metadata(&part).is_ok_and(|meta| meta.len() == 0);
        if result.as_ref().is_err_and(|e| matches!(e, SourceError::DiskFull { .. }) || empty()) {
            let _ = fs::remove_file(&part);
        }
        result
    }

    fn run_into(&self, part: &Path, at: &dyn Fn(u64)) -> Result<(), SourceError> {
        let write = |e| SourceError::write(part, VARIABLE, e);
        if let Some(parent) = part.parent() {
            fs::create_dir_all(parent).map_err(write)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(write)?;
        let length = |file: &File| file.metadata().map(|meta| meta.len()).map_err(write);
        // Bytes of an earlier process may belong to something else: then one more try is
        // due.
        let mut inherited = length(&file)? > 0;
        let mut fruitless = 0;
        loop {
            let have = length(&file)?;
            if have < self.remote.size {
                let Err(fault) = self.attempt(&mut file, have, at) else { continue };
                let why = match fault {
                    Fault::Broken(why) => why,
                    Fault::Final(error) => return Err(error),
                };
                fruitless = if length(&file)? > have { 0 } else { fruitless + 1 };
                if fruitless == ATTEMPTS {
                    return Err(self.hub.no_network(format!("{}: {why}", self.name)));
                }
                thread::sleep(self.hub.pause * 2_u32.pow(fruitless));
                continue;
            }
            if have == self.remote.size {
                let found = self.remote.hash.of_file(part)?;
                if found == self.remote.etag {
                    file.sync_all().map_err(write)?;
                    return fs::rename(part, self.blob).map_err(write);
                }
                if !inherited {
                    file.set_len(0).map_err(write)?;
                    return Err(SourceError::WrongHash {
                        what: format!("{}: {}", self.hub.what, self.name),
                        expected: self.remote.etag.clone(),
                        found,
                        advice: "nothing was stored; try again, or another HF_ENDPOINT".into(),
                    });
                }
            }
            file.set_len(0).map_err(write)?;
            inherited = false;
        }
    }

    /// One request for what is missing after the first `have` bytes, appended to `file`.
    fn attempt(&self, file: &mut File, have: u64, at: &dyn Fn(u64)) -> Result<(), Fault> {
        let Download { hub, url, name, remote, blob } = self;
        // A compressed answer would count other bytes than the range.
        let mut request = hub.agent.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(value) = &hub.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(|e| Fault::Broken(e.to_string()))?;
        let write = |e| Fault::Final(SourceError::write(blob, VARIABLE, e));
        let status = response.status();
        let (start, length) = match status.as_u16() {
            200 => (0, number(response.headers(), CONTENT_LENGTH.as_str())),
            206 => {
                let answer =
                    || Fault::Final(hub.unusable("a Content-Range we did not ask for".into()));
                let (start, total) = content_range(response.headers()).ok_or_else(answer)?;
                if start != have {
                    return Err(answer());
                }
                (have, total)
            }
            416 => {
                // Our partial file is not a beginning of this file.
                file.set_len(0).map_err(write)?;
                return Err(Fault::Broken(format!("status {status}")));
            }
            _ if busy(status) => return Err(Fault::Broken(format!("status {status}"))),
            _ => return Err(Fault::Final(hub.refusal(status, response.headers()))),
        };
        if let Some(length) = length.filter(|&length| length != remote.size) {
            return Err(Fault::Final(SourceError::Damaged {
                what: format!("{}: {name}", hub.what),
                why: format!("expected {} bytes as listed, the server has {length}", remote.size),
            }));
        }
        if start < have {
            file.set_len(0).map_err(write)?;
        }
        let mut body = response.into_body().into_reader().take(remote.size - start);
        let copied =
            copy(&mut body, file, &mut |n| at(start + n)).map_err(|fault| match fault {
                CopyFault::Read(e) => Fault::Broken(e.to_string()),
                CopyFault::Write(e) => write(e),
            })?;
        if start + copied < remote.size {
            return Err(Fault::Broken(format!(
                "the connection ended after {} of {} bytes",
                start + copied,
                remote.size
            )));
        }
        Ok(())
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// First byte and total of `bytes FIRST-LAST/TOTAL`; the total may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    Some((first, total.trim().parse().ok()))
}
