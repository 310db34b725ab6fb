//! A pool of n-grams: what followed these last tokens before?
//!
//! Guesses that cost nothing come from three places: the prompt, the answer so far, and what
//! a forward said at positions that came to nothing. The last is the pool of lookahead decoding
//! (Fu et al. 2024, arXiv 2402.02057), filled by its window, and the *rejection recycling* of
//! Jacobi Forcing (arXiv 2512.14681), filled by discarded states: a model that is a token
//! late or early says the right phrase at the wrong place, and it is one look-up away.
//!
//! The key is the last k tokens for every k up to `key`, the longest known one answers first.
//! Of each key the `width` latest continuations are kept. Keys are stored as their hash: a
//! collision is a bad guess, which costs a row and changes no answer.

use std::collections::BTreeMap;

use crate::counter::hash;
use crate::lm::Token;

/// Keys beyond which the pool starts over: some ten megabytes, a hundred thousand tokens.
const CAPACITY: usize = 1 << 17;

/// Continuations of token sequences, the latest few of each.
#[derive(Debug, Clone)]
pub struct NgramPool {
    key: usize,
    len: usize,
    width: usize,
    /// By hash of the key, the latest last.
    map: BTreeMap<u64, Vec<Vec<Token>>>,
    /// How much of the text has been read.
    read: usize,
}

impl NgramPool {
    /// A pool of continuations of up to `len` tokens after keys of up to `key` tokens, the
    /// `width` latest of each. 0 counts as 1.
    pub fn new(key: usize, len: usize, width: usize) -> Self {
        let (key, len, width) = (key.max(1), len.max(1), width.max(1));
        Self { key, len, width, map: BTreeMap::new(), read: 0 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.map.clear();
        self.read = 0;
    }

    /// Takes in what is new of `text`: from call to call it grows.
    pub fn read(&mut self, text: &[Token]) {
        if self.read < text.len() {
            // The continuations that ended where the text ended have grown.
            let from = self.read.saturating_sub(self.len);
            self.insert_all(text, from);
            self.read = text.len();
        }
    }

    /// Takes in every n-gram of `tokens` whose continuation starts after the token with index
    /// `from`.
    pub fn insert_all(&mut self, tokens: &[Token], from: usize) {
        for end in from + 1..tokens.len() {
            let continuation = &tokens[end..tokens.len().min(end + self.len)];
            for k in 1..=self.key.min(end) {
                self.insert(&tokens[end - k..end], continuation);
            }
        }
    }

    /// Takes in one n-gram as the latest of its key. It replaces one that is its beginning;
    /// if it is itself a beginning of one, that one becomes the latest.
    pub fn insert(&mut self, key: &[Token], continuation: &[Token]) {
        if continuation.is_empty() {
            return;
        }
        if self.map.len() >= CAPACITY {
            self.map.clear();
        }
        let known = self.map.entry(word(key)).or_default();
        let related = |old: &Vec<Token>| {
            let common = old.len().min(continuation.len());
            old[..common] == continuation[..common]
        };
        let latest = match known.iter().position(related) {
            Some(at) => {
                let old = known.remove(at);
                if old.len() > continuation.len() { old } else { continuation.to_vec() }
            }
            None => continuation.to_vec(),
        };
        if known.len() == self.width {
            known.remove(0);
        }
        known.push(latest);
    }

    /// What followed the end of `text` followed by `guesses`, those after the longest key
    /// first, of each key the latest first.
    pub fn continuations(
        &self,
        text: &[Token],
        guesses: &[Token],
    ) -> impl Iterator<Item = &[Token]> + use<'_> {
        let all = text.len() + guesses.len();
        let at = |i: usize| if i < text.len() { text[i] } else { guesses[i - text.len()] };
        let keys: Vec<u64> =
            (1..=self.key.min(all)).rev().map(|k| fold((all - k..all).map(at))).collect();
        let known = keys.into_iter().filter_map(|key| self.map.get(&key));
        known.flat_map(|known| known.iter().rev()).map(Vec::as_slice)
    }
}

fn fold(tokens: impl Iterator<Item = Token>) -> u64 {
    tokens.fold(0, |word, token| hash(word, u64::from(token) + 1))
}

fn word(key: &[Token]) -> u64 {
    fold(key.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pool: &NgramPool, text: &[Token]) -> Vec<Vec<Token>> {
        pool.continuations(text, &[]).map(<[Token]>::to_vec).collect()
    }

    #[test]
    fn longest_key_first_then_latest() {
        let mut pool = NgramPool::new(2, 3, 2);
        pool.read(&[1, 2, 3, 4, 5, 9, 2, 6]);
        assert_eq!(all(&pool, &[1, 2]), [vec![3, 4, 5], vec![6], vec![3, 4, 5]]);
        assert_eq!(all(&pool, &[7, 7]), Vec::<Vec<Token>>::new());
        // The text has grown; the short continuation has too, and stands once.
        pool.read(&[1, 2, 3, 4, 5, 9, 2, 6, 7, 8, 2]);
        assert_eq!(all(&pool, &[2]), [vec![6, 7, 8], vec![3, 4, 5]]);
        // A third one displaces the oldest.
        pool.insert(&[2], &[8, 8, 8]);
        assert_eq!(all(&pool, &[2]), [vec![8, 8, 8], vec![6, 7, 8]]);
        // One that is known becomes the latest.
        pool.insert(&[2], &[6, 7]);
        assert_eq!(all(&pool, &[2]), [vec![6, 7, 8], vec![8, 8, 8]]);
        // Guesses count as text.
        let mut pool = NgramPool::new(2, 3, 2);
        pool.insert(&[1, 2], &[3]);
        assert_eq!(pool.continuations(&[5, 1], &[2]).collect::<Vec<_>>(), [&[3][..]]);
        pool.clear();
        assert_eq!(pool.continuations(&[5, 1], &[2]).count(), 0);
    }
}
