//! Copying and hashing of files.
//!
//! A copy keeps apart who failed, the reader or the writer: a broken connection is tried
//! again, a full disk is not.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::Digest as _;

use super::SourceError;

/// Large enough that system calls do not count, small enough to stay in the L2 cache.
const CHUNK: usize = 128 * 1024;

/// Which side of a copy failed.
#[derive(Debug)]
pub(super) enum CopyFault {
    /// The data stopped coming.
    Read(io::Error),
    /// The data could not be put away.
    Write(io::Error),
}

/// Copies everything, telling `seen` the bytes copied so far after each chunk; returns
/// their number.
pub(super) fn copy(
    from: &mut dyn Read,
    to: &mut dyn Write,
    seen: &mut dyn FnMut(u64),
) -> Result<u64, CopyFault> {
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CopyFault::Read(e)),
        };
        to.write_all(&chunk[..n]).map_err(CopyFault::Write)?;
        total += n as u64;
        seen(total);
    }
    to.flush().map_err(CopyFault::Write)?;
    Ok(total)
}

/// The names of content that we meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// Of large files on the Hub, and of everything in our own cache.
    Sha256,
    /// Git's name of a blob, SHA-1 of `blob SIZE\0` and the content: small files on the Hub.
    GitBlob,
}

impl Hash {
    /// Which hash a Hub etag is, by its length; `None` for anything else.
    pub(super) fn of_etag(etag: &str) -> Option<Hash> {
        let hex = etag.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match etag.len() {
            64 if hex => Some(Hash::Sha256),
            40 if hex => Some(Hash::GitBlob),
            _ => None,
        }
    }

    /// The hash of a file's content, in lower-case hexadecimal.
    pub(super) fn of_file(self, path: &Path) -> Result<String, SourceError> {
        let fail = |e| SourceError::io(path, e);
        let mut file = File::open(path).map_err(fail)?;
        match self {
            Hash::Sha256 => {
                let mut state = sha2::Sha256::new();
                feed(&mut file, &mut |chunk| state.update(chunk)).map_err(fail)?;
                Ok(hex(&state.finalize()))
            }
            Hash::GitBlob => {
                let mut state = sha1::Sha1::new();
                state.update(format!("blob {}\0", file.metadata().map_err(fail)?.len()));
                feed(&mut file, &mut |chunk| state.update(chunk)).map_err(fail)?;
                Ok(hex(&state.finalize()))
            }
        }
    }
}

fn feed(file: &mut File, update: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => update(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_hashes_of_short_texts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::Sha256.of_file(&path).unwrap(), sha256);
        // `printf 'test content\n' | git hash-object --stdin`, as in the Pro Git book.
        std::fs::write(&path, "test content\n").unwrap();
        let blob = "d670460b4b4aece5915caf5c68d12f560a9fe3e4";
        assert_eq!(Hash::GitBlob.of_file(&path).unwrap(), blob);
        assert_eq!(Hash::of_etag(sha256), Some(Hash::Sha256));
        assert_eq!(Hash::of_etag(blob), Some(Hash::GitBlob));
        assert_eq!(Hash::of_etag("../../etc"), None);
    }

    #[test]
    fn a_copy_says_which_side_failed() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut seen = |_| ();
        let read = copy(&mut Broken, &mut Vec::new(), &mut seen);
        assert!(
            matches!(read, Err(CopyFault::Read(e)) if e.kind() == io::ErrorKind::ConnectionReset)
        );
        let write = copy(&mut &b"abc"[..], &mut Full, &mut seen);
        assert!(
            matches!(write, Err(CopyFault::Write(e)) if e.kind() == io::ErrorKind::StorageFull)
        );
        let mut to = Vec::new();
        let mut last = 0;
        assert_eq!(copy(&mut &b"abc"[..], &mut to, &mut |n| last = n).unwrap(), 3);
        assert_eq!((to.as_slice(), last), (&b"abc"[..], 3));
    }
}
