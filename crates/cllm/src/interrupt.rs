//! Ctrl-C: the first one stops the answer under way, the second one the program.
//!
//! Outside of an answer one Ctrl-C ends the program with code 130, as shells expect.

use std::sync::atomic::{AtomicUsize, Ordering};

/// No answer under way.
const IDLE: usize = 0;
/// An answer under way.
const BUSY: usize = 1;
/// An answer that shall stop.
const STOPPING: usize = 2;

static STATE: AtomicUsize = AtomicUsize::new(IDLE);

/// While it lives, Ctrl-C asks the answer to stop instead of ending the program.
#[derive(Debug)]
pub(crate) struct Interruptible(());

impl Interruptible {
    /// Starts to listen. Where no handler can be installed, Ctrl-C ends the program.
    pub(crate) fn new() -> Self {
        static HANDLER: std::sync::Once = std::sync::Once::new();
        HANDLER.call_once(|| {
            let _ = ctrlc::set_handler(|| {
                let asked =
                    STATE.compare_exchange(BUSY, STOPPING, Ordering::Relaxed, Ordering::Relaxed);
                if asked.is_err() {
                    crate::console::show_cursor();
                    std::process::exit(130);
                }
            });
        });
        STATE.store(BUSY, Ordering::Relaxed);
        Self(())
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn stopped(&self) -> bool {
        STATE.load(Ordering::Relaxed) == STOPPING
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::Relaxed);
    }
}
