//! Text coloured by how many tokens settled together: what fast-forwarding looks like.
//!
//! The classes are powers of two, as the eye tells few colours apart.

use std::fmt::Write;

use anstyle::{AnsiColor, Color, Style};

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// From how many tokens settled together on, what to call it, and its colour.
const CLASSES: [(usize, &str, Style); 5] = [
    (1, "1", Style::new()),
    (2, "2", colour(AnsiColor::Green)),
    (3, "3-4", colour(AnsiColor::Cyan)),
    (5, "5-8", colour(AnsiColor::Yellow)),
    (9, "9 and more", colour(AnsiColor::Magenta)),
];

/// The style of a token that settled with `settled - 1` others.
pub(crate) fn style(settled: usize) -> Style {
    let class = CLASSES.iter().rev().find(|(from, ..)| settled >= *from);
    class.map_or(Style::new(), |(_, _, style)| *style)
}

/// Joins pieces of text, each coloured by its count. Neighbours of one colour share it.
pub(crate) fn paint<'a>(pieces: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let mut text = String::new();
    let mut current = Style::new();
    for (piece, settled) in pieces {
        let next = style(settled);
        if next != current && !piece.is_empty() {
            let _ = write!(text, "{current:#}{next}");
            current = next;
        }
        text.push_str(piece);
    }
    let _ = write!(text, "{current:#}");
    text
}

/// The colours and what they mean, in one line.
pub(crate) fn legend() -> String {
    let classes = CLASSES.map(|(_, name, style)| format!("{style}{name}{style:#}"));
    format!("tokens settled by one forward: {}", classes.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_adds_colours_and_nothing_else() {
        let pieces = [("a", 1), ("b", 2), ("", 9), ("c", 2), ("d", 4), ("e", 16), ("f", 1)];
        let painted = paint(pieces);
        let green = colour(AnsiColor::Green);
        assert!(painted.starts_with(&format!("a{green}bc{green:#}")), "{painted:?}");
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), "abcdef");
        assert_eq!(paint([("plain", 1)]), "plain");
    }

    #[test]
    fn every_count_has_the_colour_of_its_class() {
        for (count, class) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)] {
            assert_eq!(style(count), CLASSES[class].2, "{count}");
        }
    }
}
