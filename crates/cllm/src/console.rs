//! Where words go: data to standard output, everything else to standard error.
//!
//! Colours pass through `anstream`, which drops them when the stream is no terminal or
//! `NO_COLOR` is set, so the callers always write them. Data does not pass through it: it
//! would lose control characters too.

use std::fmt::Display;
use std::io::{StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Color, Style};

/// Locks standard output for a command's data, which passes as it is. Errors go back to
/// the caller: a closed pipe ends the program quietly, see [`crate::exit`].
pub(crate) fn out() -> StdoutLock<'static> {
    std::io::stdout().lock()
}

/// Locks standard output for text of our own, with colours.
pub(crate) fn coloured() -> anstream::AutoStream<StdoutLock<'static>> {
    anstream::stdout().lock()
}

/// Writes one line to standard error. A failure is ignored: nobody is left to tell.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Writes one dim line to standard error: figures beside an answer.
pub(crate) fn aside(line: impl Display) {
    let style = DIM;
    note(format_args!("{style}{line}{style:#}"));
}

/// For figures that should not compete with the answer.
pub(crate) const DIM: Style = Style::new().dimmed();

/// For headings.
pub(crate) const BOLD: Style = Style::new().bold();

/// For failures.
pub(crate) const RED: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));

static CURSOR_HIDDEN: AtomicBool = AtomicBool::new(false);

/// While it lives, a terminal on standard output shows no cursor.
#[derive(Debug)]
pub(crate) struct HiddenCursor(());

impl HiddenCursor {
    /// Hides it.
    pub(crate) fn new(out: &mut impl Write) -> std::io::Result<Self> {
        CURSOR_HIDDEN.store(true, Ordering::Relaxed);
        out.write_all(b"\x1b[?25l")?;
        Ok(Self(()))
    }
}

impl Drop for HiddenCursor {
    fn drop(&mut self) {
        if CURSOR_HIDDEN.swap(false, Ordering::Relaxed) {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(SHOW_CURSOR).and_then(|()| out.flush());
        }
    }
}

const SHOW_CURSOR: &[u8] = b"\x1b[?25h";

/// Shows the cursor if it is hidden, for whoever ends the program by force. Not through
/// standard output, whose lock is held by the thread that is stopped.
pub(crate) fn show_cursor() {
    if CURSOR_HIDDEN.swap(false, Ordering::Relaxed) {
        let terminal = std::fs::OpenOptions::new().write(true).open("/dev/tty");
        let _ = terminal.and_then(|mut terminal| terminal.write_all(SHOW_CURSOR));
    }
}
