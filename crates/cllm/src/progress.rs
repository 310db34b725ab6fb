//! Progress of long work on stderr: a bar on a terminal, a plain line every few seconds
//! otherwise, so that a log file stays readable.
//!
//! Only stderr is written: stdout belongs to results.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where work on many bytes reports to. One task runs at a time.
pub(crate) trait Progress {
    /// A task begins; `total` bytes, when known.
    fn begin(&self, what: &str, total: Option<u64>);
    /// So many bytes of the task are done.
    fn at(&self, done: u64);
    /// The task is over, well or not.
    fn end(&self);
    /// One line the user should see.
    fn note(&self, line: &str);
}

/// A begun task that ends when dropped, so that an error cannot leave a bar behind.
pub(crate) struct Task<'a>(&'a dyn Progress);

impl<'a> Task<'a> {
    /// Begins a task of `total` bytes, when known.
    pub(crate) fn begin(progress: &'a dyn Progress, what: &str, total: Option<u64>) -> Self {
        progress.begin(what, total);
        Task(progress)
    }

    /// So many bytes are done.
    pub(crate) fn at(&self, done: u64) {
        self.0.at(done);
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Time between two plain lines.
const PAUSE: Duration = Duration::from_secs(3);

/// Progress for people, on stderr.
pub(crate) enum Meter {
    /// stderr is a terminal.
    Bar(RefCell<Option<ProgressBar>>),
    /// stderr is a file or a pipe.
    Lines(RefCell<Lines>),
}

impl Meter {
    /// A bar or lines, as stderr is.
    pub(crate) fn stderr() -> Self {
        if std::io::stderr().is_terminal() {
            Meter::Bar(RefCell::new(None))
        } else {
            Meter::Lines(RefCell::new(Lines::default()))
        }
    }
}

impl Progress for Meter {
    fn begin(&self, what: &str, total: Option<u64>) {
        match self {
            Meter::Bar(bar) => {
                let new = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
                new.set_style(style(total.is_some()));
                new.set_message(what.to_owned());
                new.enable_steady_tick(Duration::from_millis(200));
                if let Some(old) = bar.borrow_mut().replace(new) {
                    old.finish_and_clear();
                }
            }
            Meter::Lines(lines) => print(lines.borrow_mut().begin(what, total, Instant::now())),
        }
    }

    fn at(&self, done: u64) {
        match self {
            Meter::Bar(bar) => {
                if let Some(bar) = &*bar.borrow() {
                    bar.set_position(done);
                }
            }
            Meter::Lines(lines) => {
                if let Some(line) = lines.borrow_mut().at(done, Instant::now()) {
                    print(line);
                }
            }
        }
    }

    fn end(&self) {
        match self {
            Meter::Bar(bar) => {
                if let Some(bar) = bar.borrow_mut().take() {
                    bar.finish_and_clear();
                }
            }
            Meter::Lines(lines) => *lines.borrow_mut() = Lines::default(),
        }
    }

    fn note(&self, line: &str) {
        match self {
            Meter::Bar(bar) => match &*bar.borrow() {
                Some(bar) => bar.println(line),
                None => print(line.to_owned()),
            },
            Meter::Lines(_) => print(line.to_owned()),
        }
    }
}

/// A closed stderr is no reason to stop working.
fn print(line: String) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn style(total_known: bool) -> ProgressStyle {
    let template = if total_known {
        "{msg} [{wide_bar:.cyan}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}"
    } else {
        "{spinner} {msg} {bytes} {bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The plain lines of one task. Time comes from outside, so that tests need no clock.
#[derive(Default)]
pub(crate) struct Lines {
    what: String,
    total: Option<u64>,
    /// Time and bytes of the last line.
    last: Option<(Instant, u64)>,
}

impl Lines {
    fn begin(&mut self, what: &str, total: Option<u64>, now: Instant) -> String {
        *self = Lines { what: what.to_owned(), total, last: Some((now, 0)) };
        match total {
            Some(total) => format!("{what}: {}", HumanBytes(total)),
            None => what.to_owned(),
        }
    }

    /// A line when one is due; the rate is that since the last line.
    fn at(&mut self, done: u64, now: Instant) -> Option<String> {
        let (since, before) = self.last?;
        let elapsed = now.saturating_duration_since(since);
        if elapsed < PAUSE || done == before {
            return None;
        }
        self.last = Some((now, done));
        let rate = done.saturating_sub(before) as f64 / elapsed.as_secs_f64();
        let of = self.total.map(|total| format!(" of {}", HumanBytes(total))).unwrap_or_default();
        Some(format!("{}: {}{of}, {}/s", self.what, HumanBytes(done), HumanBytes(rate as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_rare_and_say_how_far() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines::default();
        assert_eq!(lines.at(5, start), None, "no task, no line");
        assert_eq!(lines.begin("m.gguf", Some(8 << 20), start), "m.gguf: 8.00 MiB");
        assert_eq!(lines.at(1 << 20, at(1)), None, "too soon");
        let line = lines.at(4 << 20, at(4)).unwrap();
        assert_eq!(line, "m.gguf: 4.00 MiB of 8.00 MiB, 1.00 MiB/s");
        assert_eq!(lines.at(5 << 20, at(5)), None, "too soon again");
        assert_eq!(lines.at(4 << 20, at(60)), None, "nothing new");
        assert_eq!(lines.begin("pip", None, at(60)), "pip");
        assert_eq!(lines.at(1 << 20, at(64)).unwrap(), "pip: 1.00 MiB, 256.00 KiB/s");
    }
}
