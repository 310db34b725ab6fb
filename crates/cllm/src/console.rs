//! Where words go: data to standard output, everything else to standard error.
//!
//! Colours pass through `anstream`, which drops them when the stream is no terminal or
//! `NO_COLOR` is set, so the callers always write them. Data does not pass through it: it
//! would lose control characters too.

use std::fmt::Display;
use std::io::{StdoutLock, Write};

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
