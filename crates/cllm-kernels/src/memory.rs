//! Memory for weights: zeroed, on cache lines, in huge pages where the system has them.
//!
//! A forward reads every weight once. With 4 KB pages the translation of addresses misses
//! its cache on every page, and the processor's prefetching stops at each. A matrix of a
//! small model is smaller than a huge page (2 MB), so matrices share large maps, one after
//! the other in the order in which they are made.
#![expect(unsafe_code, reason = "hands out disjoint parts of a map")]

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A cache line.
const LINE: usize = 64;
/// What maps are aligned to.
const HUGE_PAGE: usize = 2 << 20;
/// The least size of a map; untouched pages of it cost nothing.
const CHUNK: usize = 64 << 20;

/// Bytes on cache lines.
pub(crate) struct Lines {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

/// A map that several [`Lines`] share.
struct Chunk {
    /// Keeps the memory; freed with the last of the lines.
    _map: memmap2::MmapMut,
    base: *mut u8,
    size: usize,
}

// SAFETY: the pointer is to memory that the map owns, and is only used through `Lines`,
// each of which has its own part.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

/// The map that is being handed out, and how much of it has been. It goes when the last of
/// its lines does.
static CURRENT: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("len", &self.len).finish()
    }
}

impl Chunk {
    fn new(size: usize) -> Arc<Self> {
        let mut map = memmap2::MmapMut::map_anon(size + HUGE_PAGE).expect("memory for weights");
        // A hint: where it is refused, pages are just smaller.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let skip = map.as_ptr().align_offset(HUGE_PAGE);
        let base = map[skip..].as_mut_ptr();
        Arc::new(Self { _map: map, base, size })
    }
}

impl Lines {
    /// `len` zero bytes.
    ///
    /// # Panics
    /// If the system has no memory left, as any allocation does.
    pub(crate) fn zeros(len: usize) -> Self {
        let size = len.next_multiple_of(LINE);
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, used) = &mut *current;
        if let Some(chunk) = chunk.upgrade()
            && chunk.size - *used >= size
        {
            let start = *used;
            *used += size;
            return Self { chunk, start, len };
        }
        let chunk = Chunk::new(size.max(CHUNK));
        *current = (Arc::downgrade(&chunk), size);
        Self { chunk, start: 0, len }
    }
}

impl Deref for Lines {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in the map, which `chunk` keeps, and belongs to this value.
        unsafe { std::slice::from_raw_parts(self.chunk.base.add(self.start), self.len) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.base.add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zero_disjoint_and_on_lines() {
        let mut parts: Vec<Lines> =
            [0, 1, 64, 65, 3 << 20, CHUNK + 1, 100].into_iter().map(Lines::zeros).collect();
        for (i, part) in parts.iter_mut().enumerate() {
            assert!(part.iter().all(|&b| b == 0));
            assert!(part.as_ptr().addr().is_multiple_of(LINE));
            part.fill(i as u8 + 1);
        }
        for (i, part) in parts.iter().enumerate() {
            assert!(part.iter().all(|&b| b == i as u8 + 1));
        }
    }
}
