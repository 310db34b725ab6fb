//! A pool of n-grams: what has followed a token before.
//!
//! Lookahead decoding (Fu et al. 2024, arXiv 2402.02057) fills such a pool from its window,
//! Jacobi Forcing (arXiv 2512.14681) from discarded guesses (rejection recycling); prompt and
//! answer are further sources. All of them are guesses: they cost rows when tried, never the
//! answer.

use std::collections::{HashMap, VecDeque};

use crate::lm::Token;

/// Keys a pool holds; the oldest goes first. A continuation is a few tokens, so this is a few
/// megabytes at most.
const KEYS: usize = 16_384;

/// Continuations by the token before them.
#[derive(Debug, Clone)]
pub struct Pool {
    length: usize,
    per_token: usize,
    /// Most recent last, all different.
    after: HashMap<Token, Vec<Vec<Token>>>,
    /// Keys in the order in which they came.
    order: VecDeque<Token>,
    /// The next place of the text to be read.
    read: usize,
}

impl Pool {
    /// An empty pool of continuations of `length` tokens, the most recent `per_token` for
    /// each token.
    pub fn new(length: usize, per_token: usize) -> Self {
        let (after, order) = (HashMap::new(), VecDeque::new());
        Self { length, per_token, after, order, read: 0 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.after.clear();
        self.order.clear();
        self.read = 0;
    }

    /// Takes in what is new of a text that begins as it did before.
    pub fn read(&mut self, text: &[Token]) {
        while self.read + self.length < text.len() {
            let (token, rest) = (text[self.read], &text[self.read + 1..]);
            self.insert(token, &rest[..self.length]);
            self.read += 1;
        }
    }

    /// Takes in every n-gram of `tokens`.
    pub fn feed(&mut self, tokens: &[Token]) {
        for gram in tokens.windows(self.length + 1) {
            self.insert(gram[0], &gram[1..]);
        }
    }

    fn insert(&mut self, token: Token, continuation: &[Token]) {
        if self.per_token == 0 || self.length == 0 {
            return;
        }
        let after = self.after.entry(token).or_insert_with(|| {
            self.order.push_back(token);
            Vec::new()
        });
        if let Some(at) = after.iter().position(|other| other == continuation) {
            let again = after.remove(at);
            after.push(again);
        } else {
            if after.len() == self.per_token {
                after.remove(0);
            }
            after.push(continuation.to_vec());
        }
        if self.order.len() > KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.after.remove(&oldest);
        }
    }

    /// What has followed `token`, the most recent first.
    pub fn after(&self, token: Token) -> impl Iterator<Item = &[Token]> {
        self.after.get(&token).into_iter().flatten().rev().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pool: &Pool, token: Token) -> Vec<Vec<Token>> {
        pool.after(token).map(<[Token]>::to_vec).collect()
    }

    #[test]
    fn a_text_is_read_once_and_the_most_recent_comes_first() {
        let mut pool = Pool::new(2, 2);
        let text = [1, 2, 3, 1, 2, 4, 1, 5, 6];
        pool.read(&text[..4]);
        assert_eq!(after(&pool, 1), [[2, 3]]);
        pool.read(&text);
        pool.read(&text);
        assert_eq!(after(&pool, 1), [[5, 6], [2, 4]], "two for each token");
        assert!(after(&pool, 6).is_empty(), "nothing follows the last tokens yet");
        pool.feed(&[1, 2, 4, 9]);
        assert_eq!(after(&pool, 1), [[2, 4], [5, 6]], "said again, it is the most recent");
        assert_eq!(after(&pool, 2)[0], [4, 9]);
        pool.clear();
        assert!(after(&pool, 1).is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut pool = Pool::new(1, 3);
        let tokens: Vec<Token> = (0..3 * KEYS as Token).collect();
        pool.feed(&tokens);
        assert_eq!((pool.after.len(), pool.order.len()), (KEYS, KEYS));
        assert!(after(&pool, 0).is_empty());
        assert_eq!(after(&pool, tokens[tokens.len() - 2]).len(), 1);
    }
}
