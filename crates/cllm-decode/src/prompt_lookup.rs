//! Prompt lookup (Saxena 2023; vLLM's and transformers' n-gram speculation): the guess is
//! what followed the last tokens where they stood before, and there is no other guess.
//!
//! It pays where answers repeat their prompt: edits of code, summaries, quotations. Where
//! there is no match there is one row, so it never costs more than the autoregressive way but
//! for guesses that were wrong.
//!
//! A continuation that runs into the end of the text goes on with itself, as in
//! a text with a period.
//!
//! With a [`History`] it also looks in earlier answers. The longer match is taken, of two as long
//! the text's own.

use crate::batch::Batch;
use crate::decoder::{Decoder, Verdict};
use crate::history::History;
use crate::lm::{Output, Token};
use crate::tree::Tree;

/// Where a match was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Earlier in the text.
    Text,
    /// In an earlier answer.
    History,
}

/// A decoder that guesses from the text alone.
#[derive(Debug, Clone)]
pub struct PromptLookup {
    ngram: usize,
    tokens: usize,
    history: Option<History>,
    tree: Tree,
}

impl PromptLookup {
    /// A decoder that looks for the last `ngram` tokens, or fewer down to one, and guesses
    /// `tokens` tokens. With 0 of either it is autoregressive decoding.
    pub fn new(ngram: usize, tokens: usize) -> Self {
        Self { ngram, tokens, history: None, tree: Tree::default() }
    }

    /// Looks in earlier answers too, of which it remembers about `capacity` tokens; 0 for none.
    #[must_use]
    pub fn remember(mut self, capacity: usize) -> Self {
        self.history = (capacity > 0).then(|| History::new(self.ngram, capacity));
        self
    }

    /// How many of the last tokens of `text`, up to its `ngram`, stood together before: in the text,
    /// and in earlier answers.
    pub(crate) fn matched(&mut self, text: &[Token]) -> [(Place, usize); 2] {
        let earlier = self.history.as_mut().and_then(|history| {
            history.read(text);
            history.find(text)
        });
        let here = find(text, self.ngram).map_or(0, |(length, _)| length);
        [(Place::Text, here), (Place::History, earlier.map_or(0, |(length, _)| length))]
    }

    /// Proposes what followed the match of that place.
    pub(crate) fn propose_from(
        &mut self,
        place: Place,
        text: &[Token],
        room: usize,
        sequence: usize,
        batch: &mut Batch,
    ) {
        self.tree.begin(text[text.len() - 1], room);
        if self.tokens > 0 && room > 1 {
            match place {
                Place::Text => {
                    if let Some((_, from)) = find(text, self.ngram) {
                        let period = text.len() - from;
                        let guesses = (0..self.tokens).map(|i| text[from + i % period]);
                        self.tree.chain(Tree::ROOT, guesses);
                    }
                }
                Place::History => {
                    let found = self.history.as_ref().and_then(|history| history.find(text));
                    if let Some((_, guesses)) = found {
                        self.tree.chain(Tree::ROOT, guesses.iter().copied().take(self.tokens));
                    }
                }
            }
        }
        self.tree.push(text.len(), sequence, batch);
    }

    /// Another decoder's forward settled these tokens.
    pub(crate) fn settled(&mut self, tokens: &[Token]) {
        if let Some(history) = &mut self.history {
            history.settled(tokens);
        }
    }
}

/// The longest, then latest earlier occurrence of the end of `text`, of at most `limit`
/// tokens: its length and where it ends. Time is the text's length times `limit` at worst.
fn find(text: &[Token], limit: usize) -> Option<(usize, usize)> {
    let mut best = None;
    let mut longest = 0;
    for end in (1..text.len()).rev() {
        let both = text[..end].iter().rev().zip(text.iter().rev());
        let matched = both.take(limit).take_while(|(a, b)| a == b).count();
        if matched > longest {
            (longest, best) = (matched, Some((matched, end)));
            if matched == limit {
                break;
            }
        }
    }
    best
}

impl Decoder for PromptLookup {
    fn begin(&mut self) {
        if let Some(history) = &mut self.history {
            history.begin();
        }
    }

    fn resume(&mut self, _guesses: &[Token]) {}

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        let [(_, here), (_, earlier)] = self.matched(text);
        let place = if earlier > here { Place::History } else { Place::Text };
        self.propose_from(place, text, room, sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        self.tree.absorb(first_row, output);
        if let Some(history) = &mut self.history {
            history.settled(self.tree.settled());
        }
        self.tree.verdict()
    }
}
