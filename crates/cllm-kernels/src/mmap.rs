//! Read-only memory maps of weight files.
//!
//! Mapping is `unsafe` in Rust because another process may change or truncate the file
//! while its bytes are borrowed. That cannot be prevented on common systems; every
//! engine that maps weights accepts it. The one unsafe call lives here so that the rest
//! of the project stays free of them.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file, mapped read-only. An empty file gives an empty slice.
#[derive(Debug)]
pub struct MappedFile(Option<memmap2::Mmap>);

impl MappedFile {
    /// Maps the whole file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        if meta.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is read-only and private to this value. The bytes are plain
        // data without invariants, so a concurrent writer can change what we read, but
        // every reader validates counts and offsets against the mapped length before it
        // uses them. Truncation by another process raises SIGBUS, as it does in every
        // program that maps a file.
        #[expect(unsafe_code, reason = "memory maps are unsafe by nature; see the module")]
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self(Some(map)))
    }
}

impl MappedFile {
    /// Tells the system that these bytes of the map will not be needed soon, so that they
    /// stop counting as memory in use. They are read from the file again if they are.
    pub fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        if let Some(map) = &self.0 {
            let (start, len) = (bytes.as_ptr().addr(), bytes.len());
            let offset = start.wrapping_sub(map.as_ptr().addr());
            if len > 0 && offset < map.len() && len <= map.len() - offset {
                // SAFETY: the map is of a file, shared and read-only: dropping its pages
                // loses nothing, and the next access brings the same bytes.
                #[expect(unsafe_code, reason = "the hint is unsafe for private maps")]
                // A hint: where it is refused, nothing is lost.
                let _ = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len)
                };
            }
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}
