//! Memory for weights: zeroed, on cache lines, in huge pages where the system has them.
//!
//! A forward reads every weight once; with 4 KB pages the translation of addresses misses
//! its cache on every page.

use std::ops::{Deref, DerefMut};

/// Bytes on cache lines.
pub(crate) struct Lines {
    map: memmap2::MmapMut,
    len: usize,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("len", &self.len).finish()
    }
}

impl Lines {
    /// `len` zero bytes.
    ///
    /// # Panics
    /// If the system has no memory left, as any allocation does.
    pub(crate) fn zeros(len: usize) -> Self {
        let map = memmap2::MmapMut::map_anon(len.max(1)).expect("memory for weights");
        // A hint: where it is refused, pages are just smaller.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Self { map, len }
    }
}

impl Deref for Lines {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.len]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }
}
