//! Prompt lookup (Saxena 2023; vLLM's and transformers' n-gram speculation): the guess is
//! what followed the last tokens where they stood before, and there is no other guess.
//!
//! It pays where answers repeat their prompt: edits of code, summaries, quotations. Where
//! there is no match there is one row, so it never costs more than the autoregressive way but
//! for guesses that were wrong.
//!
//! A continuation that runs into the end of the text goes on with itself, as in
//! a text with a period.

use crate::batch::Batch;
use crate::decoder::{Decoder, Verdict};
use crate::lm::{Output, Token};
use crate::tree::Tree;

/// A decoder that guesses from the text alone.
#[derive(Debug, Clone)]
pub struct PromptLookup {
    ngram: usize,
    tokens: usize,
    tree: Tree,
}

impl PromptLookup {
    /// A decoder that looks for the last `ngram` tokens, or fewer down to one, and guesses
    /// `tokens` tokens. With 0 of either it is autoregressive decoding.
    pub fn new(ngram: usize, tokens: usize) -> Self {
        Self { ngram, tokens, tree: Tree::default() }
    }

    /// How many of the last tokens of `text`, up to its `ngram`, stood together before.
    pub fn matched(&self, text: &[Token]) -> usize {
        find(text, self.ngram).map_or(0, |(length, _)| length)
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
    fn begin(&mut self) {}

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        self.tree.begin(text[text.len() - 1], room);
        if self.tokens > 0
            && room > 1
            && let Some((_, from)) = find(text, self.ngram)
        {
            let period = text.len() - from;
            let guesses = (0..self.tokens).map(|i| text[from + i % period]);
            self.tree.chain(Tree::ROOT, guesses);
        }
        self.tree.push(text.len(), sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        self.tree.absorb(first_row, output);
        self.tree.verdict()
    }
}
