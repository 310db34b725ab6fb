//! A decoder that knows the answer and errs on purpose, to measure what an acceptance rate is
//! worth on a machine (`bench --synthetic-acceptance`).
//!
//! Each guess is right with probability p, by a coin that depends on (seed, position). The
//! first wrong guess ends what a forward settles, so with n rows it is
//! `1 + p + p^2 + .. + p^(n-1)` tokens on average. Like every decoder it is exact: if the text
//! it was told is not what the model says, that costs forwards and changes nothing.

use crate::batch::Batch;
use crate::counter;
use crate::decoder::{Decoder, Verdict};
use crate::lm::{LmError, Output, Token};
use crate::tree::Tree;

/// Guesses from a known text.
#[derive(Debug, Clone)]
pub struct Oracle {
    text: Vec<Token>,
    n: usize,
    p: f64,
    seed: u64,
    tree: Tree,
}

impl Oracle {
    /// A decoder of `n` rows whose guesses are those of `text`, the prompt and its answer, each
    /// right with probability `p`.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for n = 0.
    pub fn new(text: Vec<Token>, n: usize, p: f64, seed: u64) -> Result<Self, LmError> {
        if n == 0 {
            return Err(LmError::EmptyBlock);
        }
        Ok(Self { text, n, p, seed, tree: Tree::default() })
    }

    /// The guess for a position, if the text has one.
    fn guess(&self, position: usize) -> Option<Token> {
        let right = *self.text.get(position)?;
        let word = counter::hash(self.seed, position as u64);
        // 53 bits: a number from 0 up to but not 1.
        if ((word >> 11) as f64) < self.p * (1u64 << 53) as f64 {
            return Some(right);
        }
        // Any other token of the text, which so is one of the vocabulary.
        let start = counter::index(!self.seed, position as u64, self.text.len());
        let (before, after) = self.text.split_at(start);
        Some(after.iter().chain(before).copied().find(|&t| t != right).unwrap_or(right))
    }
}

impl Decoder for Oracle {
    fn begin(&mut self) {}

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        let last = text[text.len() - 1];
        self.tree.begin(last, room);
        // Beyond the known text any guess will do: the number of rows is the point.
        for i in 0..self.n - 1 {
            let guess = self.guess(text.len() + i).unwrap_or(last);
            let parent = self.tree.len() - 1;
            if self.tree.child(parent, guess).is_none() {
                break;
            }
        }
        self.tree.push(text.len(), sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        self.tree.absorb(first_row, output);
        self.tree.verdict()
    }
}
