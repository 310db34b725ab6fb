//! When to try again what did not pay.

/// A pause that doubles with every failure.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    /// Forwards left to wait.
    wait: usize,
    /// How long the last wait was, and may be.
    pause: usize,
    most: usize,
}

impl Backoff {
    /// Waits `wait` forwards, after the first failure twice `pause`, and never more than `most`.
    pub(super) fn new(wait: usize, pause: usize, most: usize) -> Self {
        Self { wait, pause, most }
    }

    /// Whether it is time.
    pub(super) fn due(&self) -> bool {
        self.wait == 0
    }

    /// Waits no longer than this.
    pub(super) fn at_most(&mut self, wait: usize) {
        self.wait = self.wait.min(wait);
    }

    /// A forward has passed.
    pub(super) fn pass(&mut self) {
        self.wait = self.wait.saturating_sub(1);
    }

    /// It did not pay: wait twice as long as before.
    pub(super) fn failed(&mut self) {
        self.pause = (self.pause * 2).min(self.most);
        self.wait = self.pause;
    }
}
