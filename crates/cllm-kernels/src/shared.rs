//! A slice that several threads write at once, each to places of its own.

use std::marker::PhantomData;

/// A mutable slice shared between the threads of one pool run.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    _slice: PhantomData<&'a mut [T]>,
}

// SAFETY: sharing it only shares the pointer; every access is an unsafe call whose caller
// promises that no two threads touch the same element.
#[expect(unsafe_code, reason = "threads write disjoint parts of one output")]
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Borrows `slice` for as long as the value lives.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { data: slice.as_mut_ptr(), len: slice.len(), _slice: PhantomData }
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// No other thread may touch these elements while the result lives.
    #[expect(unsafe_code, reason = "the caller promises disjoint ranges")]
    #[expect(clippy::mut_from_ref, reason = "that is the purpose of the type")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: the range lies within the borrowed slice by the assertion, and the
        // caller promises that nobody else touches it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}
