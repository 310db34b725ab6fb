//! The allocator: mimalloc, which keeps the freed memory of a training step.
//!
//! The tensors of training are large and short-lived. The system's allocator gives their
//! pages back and gets them zeroed again; so does mimalloc after 10 ms, and clearing pages
//! was half of a step of 2,048 rows (docs/train.md).

use std::ffi::c_int;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, in milliseconds; the crate has no name for it.
const PURGE_DELAY: c_int = 15;

/// From here on freed memory stays with the process, up to its peak. A value that the user
/// gave in `MIMALLOC_PURGE_DELAY` wins.
pub(crate) fn keep_freed_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    #[expect(unsafe_code, reason = "a C function")]
    // SAFETY: sets a number that mimalloc reads when it frees; any thread may at any time.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "a C function")]
    fn the_option_is_the_one_that_delays_purges() {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            return;
        }
        // SAFETY: reads a number.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert!(delay() > 0, "the default is a delay, found {}", delay());
        keep_freed_memory();
        assert_eq!(delay(), -1);
    }
}
