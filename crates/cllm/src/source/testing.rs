//! What the tests of this module share: a progress that remembers.

use std::cell::{Cell, RefCell};

use crate::progress::Progress;

/// Remembers notes and the last position instead of showing them.
#[derive(Default)]
pub(crate) struct Notes {
    lines: RefCell<Vec<String>>,
    /// Total and position of the running or last task.
    pub(crate) last: Cell<(Option<u64>, u64)>,
    /// Tasks begun and not ended.
    pub(crate) open: Cell<i32>,
}

impl Notes {
    /// The notes so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }
}

impl Progress for Notes {
    fn begin(&self, _: &str, total: Option<u64>) {
        self.last.set((total, 0));
        self.open.set(self.open.get() + 1);
    }

    fn at(&self, done: u64) {
        self.last.set((self.last.get().0, done));
    }

    fn end(&self) {
        self.open.set(self.open.get() - 1);
    }

    fn note(&self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }
}
