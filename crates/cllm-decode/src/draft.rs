//! Where the window's first guesses come from.
//!
//! A guess decides how fast a decode is, never what it says. All sources are free: they
//! look at the text and ask no model. A guess must be a token of the vocabulary, and
//! taking it from the text guarantees that.

use std::fmt;
use std::str::FromStr;

use crate::counter;
use crate::lm::Token;

/// How many tokens back an n-gram match is compared. Longer matches tell the same story,
/// and a bound keeps a repetitive text from costing its length squared.
const MATCH_LIMIT: usize = 8;

/// A source of first guesses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Draft {
    /// A token drawn uniformly from the settled text, by (seed, absolute position): the
    /// initial state of Kou et al. 2024.
    #[default]
    Context,
    /// The last token of the text, again.
    LastToken,
    /// What followed the last tokens where they stood before: the longest match (up to 8
    /// tokens, the most recent among equals) in text and guesses so far. Without any
    /// match, as `Context`. This is prompt lookup, one token at a time.
    NGram,
}

impl Draft {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Context, Self::LastToken, Self::NGram];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::LastToken => "last-token",
            Self::NGram => "ngram",
        }
    }

    /// Guesses the token at position `text.len() + guesses.len()`, after the settled
    /// `text`, not empty, and the `guesses` already made for the positions between.
    ///
    /// # Panics
    /// If `text` is empty.
    pub fn guess(self, seed: u64, text: &[Token], guesses: &[Token]) -> Token {
        let position = text.len() + guesses.len();
        let context = || text[counter::index(seed, position as u64, text.len())];
        match self {
            Self::Context => context(),
            Self::LastToken => text[text.len() - 1],
            Self::NGram => continuation(text, guesses).unwrap_or_else(context),
        }
    }
}

/// The token after the longest, then latest, earlier occurrence of the end of
/// `text ++ guesses`.
fn continuation(text: &[Token], guesses: &[Token]) -> Option<Token> {
    let at = |i: usize| if i < text.len() { text[i] } else { guesses[i - text.len()] };
    let len = text.len() + guesses.len();
    let mut best = (0, None);
    for end in (1..len).rev() {
        let longest = end.min(MATCH_LIMIT);
        let matched = (1..=longest).take_while(|k| at(end - k) == at(len - k)).count();
        if matched > best.0 {
            best = (matched, Some(at(end)));
            if matched == MATCH_LIMIT {
                break;
            }
        }
    }
    best.1
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no draft source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown draft `{0}`: expected context, last-token or ngram")]
pub struct UnknownDraft(String);

impl FromStr for Draft {
    type Err = UnknownDraft;

    fn from_str(name: &str) -> Result<Self, UnknownDraft> {
        Self::ALL
            .into_iter()
            .find(|draft| draft.name() == name)
            .ok_or_else(|| UnknownDraft(name.to_owned()))
    }
}
