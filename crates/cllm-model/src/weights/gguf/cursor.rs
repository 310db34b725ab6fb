//! Reading a GGUF file front to back without trusting it.
//!
//! Every read is checked against the bytes that are left, and every count is compared
//! with the bytes its elements need at least, before anything is allocated or looped
//! over. Errors say at which byte.

use std::fmt::Display;
use std::path::Path;

use crate::ModelError;

/// A position in the bytes of a GGUF file.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `at`, which may be the end but not beyond it.
    pub(super) fn new(path: &'a Path, bytes: &'a [u8], at: usize) -> Self {
        Self { path, bytes, at: at.min(bytes.len()) }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// A broken file.
    pub(super) fn format(&self, what: impl Into<String>) -> ModelError {
        ModelError::Format { path: self.path.into(), what: what.into() }
    }

    /// A file of a kind we do not read.
    pub(super) fn unsupported(&self, what: impl Into<String>) -> ModelError {
        ModelError::Unsupported { path: self.path.into(), what: what.into() }
    }

    /// The next `len` bytes, which are `what`.
    pub(super) fn take(&mut self, len: usize, what: impl Display) -> Result<&'a [u8], ModelError> {
        if len > self.left() {
            return Err(self.format(format!(
                "{what} at byte {} needs {len} bytes, but the file has only {} left",
                self.at,
                self.left()
            )));
        }
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: impl Display) -> Result<[u8; N], ModelError> {
        let bytes = self.take(N, what)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    pub(super) fn u32(&mut self, what: impl Display) -> Result<u32, ModelError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: impl Display) -> Result<u64, ModelError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of elements of at least `least` bytes each.
    pub(super) fn count(&mut self, least: usize, what: impl Display) -> Result<usize, ModelError> {
        let at = self.at;
        let count = self.u64(&what)?;
        match usize::try_from(count) {
            Ok(n) if n <= self.left() / least => Ok(n),
            _ => Err(self.format(format!(
                "{what} at byte {at} is {count}, but the {} bytes left hold at most {}",
                self.left(),
                self.left() / least
            ))),
        }
    }

    /// A length in bytes, then that many bytes of UTF-8.
    pub(super) fn string(&mut self, what: impl Display) -> Result<&'a str, ModelError> {
        let at = self.at;
        let len = self.count(1, format_args!("the length of {what}"))?;
        let bytes = self.take(len, &what)?;
        str::from_utf8(bytes)
            .map_err(|e| self.format(format!("{what} at byte {at} is not UTF-8: {e}")))
    }

    /// A string of at most `max` bytes.
    pub(super) fn name(&mut self, max: usize, what: impl Display) -> Result<&'a str, ModelError> {
        let at = self.at;
        let name = self.string(&what)?;
        if name.len() > max {
            return Err(self.format(format!(
                "{what} at byte {at} has {} bytes; the format allows {max}",
                name.len()
            )));
        }
        Ok(name)
    }

    /// Where the data begins: the next multiple of `alignment`, a power of two.
    pub(super) fn align(&self, alignment: usize) -> usize {
        self.at.next_multiple_of(alignment)
    }

    /// Length of the file.
    pub(super) fn file_len(&self) -> usize {
        self.bytes.len()
    }
}
