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
use std::time::Duration;

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

/// Downloads the file `name` at `url` to `blob`, telling `at` the bytes that are there.
/// The caller holds the blob's lock.
pub(super) fn blob(
    hub: &Hub,
    url: &str,
    name: &str,
    remote: &Remote,
    blob: &Path,
    pause: Duration,
    at: &dyn Fn(u64),
) -> Result<(), SourceError> {
    let part = PathBuf::from(format!("{}.incomplete", blob.display()));
    let write = |e| SourceError::write(&part, VARIABLE, e);
    if let Some(parent) = part.parent() {
        fs::create_dir_all(parent).map_err(write)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(&part).map_err(write)?;
    let length = |file: &File| file.metadata().map(|meta| meta.len()).map_err(write);
    // Bytes of an earlier process may belong to something else: then one more try is due.
    let mut inherited = length(&file)? > 0;
    let mut fruitless = 0;
    loop {
        let have = length(&file)?;
        if have == remote.size {
            let found = remote.hash.of_file(&part)?;
            if found == remote.etag {
                file.sync_all().map_err(write)?;
                return fs::rename(&part, blob).map_err(write);
            }
            file.set_len(0).map_err(write)?;
            if !inherited {
                let _ = fs::remove_file(&part);
                return Err(SourceError::WrongHash {
                    what: format!("{}: {name}", hub.what),
                    expected: remote.etag.clone(),
                    found,
                    advice: "nothing was stored; try again, or another HF_ENDPOINT".into(),
                });
            }
            inherited = false;
            continue;
        }
        if have > remote.size {
            file.set_len(0).map_err(write)?;
            inherited = false;
            continue;
        }
        let broken = match attempt(hub, url, name, remote, &mut file, have, at) {
            Ok(()) => continue,
            Err(Fault::Broken(why)) => why,
            Err(Fault::Final(error)) => {
                if length(&file)? == 0 {
                    let _ = fs::remove_file(&part);
                }
                return Err(error);
            }
        };
        fruitless = if length(&file)? > have { 0 } else { fruitless + 1 };
        if fruitless == ATTEMPTS {
            if length(&file)? == 0 {
                let _ = fs::remove_file(&part);
            }
            return Err(hub.no_network(format!("{name}: {broken}")));
        }
        thread::sleep(pause * 2_u32.pow(fruitless));
    }
}

/// One request for what is missing after the first `have` bytes, appended to `file`.
fn attempt(
    hub: &Hub,
    url: &str,
    name: &str,
    remote: &Remote,
    file: &mut File,
    have: u64,
    at: &dyn Fn(u64),
) -> Result<(), Fault> {
    // A compressed answer would count other bytes than the range.
    let mut request = hub.agent.get(url).header(ACCEPT_ENCODING, "identity");
    if let Some(value) = &hub.authorization {
        request = request.header(AUTHORIZATION, value);
    }
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let response = request.call().map_err(|e| Fault::Broken(e.to_string()))?;
    let write = |e| Fault::Final(SourceError::write(Path::new(name), VARIABLE, e));
    let status = response.status();
    let (start, length) = match status.as_u16() {
        200 => (0, number(response.headers(), CONTENT_LENGTH.as_str())),
        206 => {
            let answer = || Fault::Final(hub.unusable("a Content-Range we did not ask for".into()));
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
    let copied = copy(&mut body, file, &mut |n| at(start + n)).map_err(|fault| match fault {
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
