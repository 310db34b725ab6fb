//! `generate --watch`: the block in the terminal while it converges.
//!
//! After every forward the screen shows the answer so far, coloured by how many tokens
//! settled together, and behind it what the forward said for the unknowns: underlined where
//! it said the same before, dim where it is new. Only the last lines are drawn again: a line
//! that has settled as a whole is left to the terminal, so an answer may be longer than the
//! screen. Widths are counted simply (wide from Hangul on), no grapheme is put together.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::Style;
use cllm_decode::{Iteration, Phase, Token};
use cllm_model::Tokenizer;

use crate::colour;
use crate::console::HiddenCursor;

/// How many columns and lines, where the terminal does not say.
const SIZE: (usize, usize) = (80, 24);

/// Whether standard output is a terminal that can be drawn on.
pub(super) fn possible() -> bool {
    let choice = anstream::AutoStream::choice(&io::stdout());
    io::stdout().is_terminal() && choice != anstream::ColorChoice::Never
}

/// The moving picture.
pub(super) struct Watch<W> {
    out: W,
    size: (usize, usize),
    pause: Duration,
    cursor: Option<HiddenCursor>,
    /// Text that settled since the last forward.
    fresh: String,
    /// Settled characters that are not left to the terminal yet.
    tail: Vec<(char, Style)>,
    /// Lines on the screen that may change.
    live: usize,
    /// Where the last outputs began, and what they were.
    last: (usize, Vec<Token>),
}

impl<W: Write> Watch<W> {
    /// Draws on `out`, and waits for `pause` after each forward.
    pub(super) fn new(out: W, pause: Duration) -> Self {
        let size = terminal_size::terminal_size();
        let size = size.map_or(SIZE, |(w, h)| (usize::from(w.0).max(8), usize::from(h.0).max(3)));
        let (fresh, tail, last) = (String::new(), Vec::new(), (0, Vec::new()));
        Self { out, size, pause, cursor: None, fresh, tail, live: 0, last }
    }

    /// Text that has settled, and is drawn with its forward.
    pub(super) fn settled(&mut self, text: &str) {
        self.fresh.push_str(text);
    }

    /// A forward has run.
    pub(super) fn forward(&mut self, it: &Iteration<'_>, tokenizer: &Tokenizer) -> io::Result<()> {
        let decoding = it.phase == Phase::Decode;
        let style = colour::style(if decoding { it.settled } else { 1 });
        self.tail.extend(self.fresh.drain(..).map(|c| (c, style)));
        let known = it.start + it.settled;
        let mut guesses = Vec::new();
        for (i, &token) in it.output.iter().enumerate().skip(it.settled) {
            let before = (it.start + i).checked_sub(self.last.0).and_then(|i| self.last.1.get(i));
            let style = if before == Some(&token) {
                Style::new().underline()
            } else {
                Style::new().dimmed()
            };
            let text = tokenizer.token_text(token);
            guesses.extend(text.chars().map(|c| (if c == '\n' { '⏎' } else { c }, style)));
        }
        self.last = (known, it.output.get(it.settled..).unwrap_or_default().to_vec());
        self.draw(&guesses)?;
        if decoding {
            std::thread::sleep(self.pause);
        }
        Ok(())
    }

    /// Leaves the answer on the screen, without guesses, and the cursor on a new line.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.tail.extend(self.fresh.drain(..).map(|c| (c, Style::new())));
        self.draw(&[])?;
        writeln!(self.out)?;
        self.cursor = None;
        self.out.flush()
    }

    fn draw(&mut self, guesses: &[(char, Style)]) -> io::Result<()> {
        if self.cursor.is_none() {
            self.cursor = Some(HiddenCursor::new(&mut self.out)?);
        }
        let (width, height) = self.size;
        let lines = layout(self.tail.iter().chain(guesses).copied(), width);
        // A line is left to the terminal once all of it has settled and another follows.
        let mut used = 0;
        let done = lines.iter().take(lines.len() - 1).take_while(|line| {
            used += line.taken;
            used <= self.tail.len()
        });
        let done = done.count();
        let shown = lines.len().min(done + height - 1);

        let mut picture = String::from("\r");
        if self.live > 1 {
            picture += &format!("\x1b[{}A", self.live - 1);
        }
        picture += "\x1b[J";
        for (i, line) in lines[..shown].iter().enumerate() {
            if i > 0 {
                picture += "\r\n";
            }
            picture += &line.painted();
        }
        let left: usize = lines[..done].iter().map(|line| line.taken).sum();
        self.tail.drain(..left);
        self.live = shown - done;
        self.out.write_all(picture.as_bytes())?;
        self.out.flush()
    }
}

/// A line of the screen.
#[derive(Debug, Default)]
struct Line {
    characters: Vec<(char, Style)>,
    /// Characters of the text it took, its newline included.
    taken: usize,
}

impl Line {
    fn painted(&self) -> String {
        let mut text = String::new();
        let mut current = Style::new();
        for &(c, style) in &self.characters {
            if style != current {
                text += &format!("{current:#}{style}");
                current = style;
            }
            text.push(c);
        }
        text + &format!("{current:#}")
    }
}

/// Breaks text into lines of at most `width` columns; at least one line.
fn layout(text: impl Iterator<Item = (char, Style)>, width: usize) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    let mut column = 0;
    for (c, style) in text {
        if c == '\n' {
            lines.last_mut().expect("never empty").taken += 1;
            lines.push(Line::default());
            column = 0;
            continue;
        }
        // What would move the cursor is shown as a sign: a guess may be anything.
        let c = if c == '\t' {
            ' '
        } else if c.is_control() {
            '·'
        } else {
            c
        };
        let columns = if c >= '\u{1100}' && !('\u{2000}'..'\u{2e80}').contains(&c) { 2 } else { 1 };
        if column + columns > width {
            lines.push(Line::default());
            column = 0;
        }
        column += columns;
        let line = lines.last_mut().expect("never empty");
        line.characters.push((c, style));
        line.taken += 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Vec<(char, Style)> {
        text.chars().map(|c| (c, Style::new())).collect()
    }

    fn watch() -> Watch<Vec<u8>> {
        Watch { size: (10, 4), ..Watch::new(Vec::new(), Duration::ZERO) }
    }

    #[test]
    fn lines_break_at_the_width_and_at_newlines() {
        let lines = layout(plain("abcdefgh\n\x1b漢漢").into_iter(), 4);
        let texts: Vec<String> =
            lines.iter().map(|line| line.characters.iter().map(|(c, _)| c).collect()).collect();
        assert_eq!(texts, ["abcd", "efgh", "·漢", "漢"]);
        assert_eq!(lines.iter().map(|line| line.taken).collect::<Vec<_>>(), [4, 5, 2, 1]);
    }

    #[test]
    fn settled_lines_are_drawn_once_and_the_rest_again() {
        let mut watch = watch();
        watch.tail = plain("0123456789ab");
        watch.draw(&plain("xyz")).unwrap();
        assert_eq!((watch.live, watch.tail.len()), (1, 2), "the full line is left alone");
        watch.out.clear();
        watch.draw(&plain("0123456789")).unwrap();
        assert_eq!(watch.live, 2);
        watch.out.clear();
        watch.settled("c");
        watch.finish().unwrap();
        assert_eq!(String::from_utf8_lossy(&watch.out), "\r\x1b[1A\x1b[Jabc\n");
    }

    #[test]
    fn what_a_forward_said_again_is_underlined_and_what_is_new_is_dim() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/models/llama-f32");
        let model = cllm_model::Model::load(golden.as_ref(), &cllm_model::LoadOptions::default());
        let tokenizer = model.unwrap().tokenizer;
        let tokens = |text: &str| tokenizer.encode(text, false).unwrap();
        let mut watch = watch();
        watch.size = (40, 4);
        let mut picture = |start: usize, settled: &str, guesses: &str| {
            watch.settled(settled);
            let output = tokens(&format!("{settled}{guesses}"));
            let it = Iteration {
                phase: Phase::Decode,
                start,
                draft: &output[1..],
                output: &output,
                settled: settled.len(),
                rows: output.len(),
            };
            watch.forward(&it, &tokenizer).unwrap();
            String::from_utf8(std::mem::take(&mut watch.out)).unwrap()
        };
        let (dim, line) = (Style::new().dimmed(), Style::new().underline());
        let first = picture(0, "a", "xyz");
        assert!(first.ends_with(&format!("{dim}xyz{dim:#}")), "{first:?}");
        // `x` settles with `b`, of the guesses behind it one stays.
        let second = picture(1, "xb", "zq");
        let style = colour::style(2);
        assert!(second.contains(&format!("{style}xb{style:#}")), "{second:?}");
        assert!(second.ends_with(&format!("{line}z{line:#}{dim}q{dim:#}")), "{second:?}");
    }

    #[test]
    fn guesses_never_fill_more_than_the_screen() {
        let mut watch = watch();
        watch.draw(&plain(&"x".repeat(100))).unwrap();
        assert_eq!(watch.live, 3);
    }
}
