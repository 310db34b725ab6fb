//! Answers given before: what followed these tokens in an earlier request?
//!
//! Those who serve a model for one purpose are asked similar things again and again, and a text that was
//! answered once is a good guess for the next: retrieval (He et al. 2023, REST, arXiv
//! 2311.08252) with nothing to prepare, over one's own outputs as in suffix decoding (Oliaro et
//! al. 2024, arXiv 2411.04975). A guess is still only a guess: the answer is the model's.
//!
//! The key is the last k tokens for every k up to `key`; what followed their latest occurrence is
//! the guess. Keys are stored as their hash: a collision is a bad guess, which costs a row and
//! changes no answer.
//!
//! To forget the oldest there are two generations. The young one takes what comes; when it
//! holds half of what may be kept it becomes the old one, and the old one goes.

use std::collections::HashMap;
use std::ops::Range;

use crate::counter::hash;
use crate::lm::Token;

/// Where an occurrence of a key ends, and its answer.
type Place = Range<u32>;

#[derive(Debug, Clone, Default)]
struct Generation {
    tokens: Vec<Token>,
    /// By hash of the key, the latest.
    index: HashMap<u64, Place>,
}

/// Earlier answers by what stands in them.
#[derive(Debug, Clone)]
pub struct History {
    key: usize,
    capacity: usize,
    young: Generation,
    old: Generation,
    /// The answer under way, behind the last tokens of its prompt, `key` at most.
    current: Vec<Token>,
    /// Of `current`, those of the prompt.
    first: usize,
    /// Tokens of the request's text that have been read.
    read: usize,
    /// What the last forward settled, which the text may not show any more.
    last: Vec<Token>,
}

/// Hashes of the last 1, 2, .. `limit` tokens of `text`.
fn keys(text: &[Token], limit: usize) -> impl Iterator<Item = u64> {
    text.iter().rev().take(limit).scan(0, |word, &token| {
        *word = hash(*word, u64::from(token) + 1);
        Some(*word)
    })
}

impl History {
    /// Remembers about `capacity` tokens, at least the last half of them, and looks for the last
    /// `key` tokens or fewer. A token takes some hundred bytes.
    pub fn new(key: usize, capacity: usize) -> Self {
        // Places have 32 bits.
        let capacity = capacity.min(1 << 31);
        let (young, old) = (Generation::default(), Generation::default());
        let (current, last) = (Vec::new(), Vec::new());
        Self { key, capacity, young, old, current, first: 0, read: 0, last }
    }

    /// Another request begins: the answer under way is remembered.
    pub fn begin(&mut self) {
        let mut answer = std::mem::take(&mut self.current);
        answer.append(&mut self.last);
        if self.read > 0 {
            self.insert(&answer, self.first);
        }
        self.read = 0;
    }

    /// Takes note of the text of the request under way: first the prompt and the answer's first
    /// token, from call to call it grows.
    pub fn read(&mut self, text: &[Token]) {
        if self.read == 0 {
            // Of the prompt as much as can be a key.
            self.first = self.key.min(text.len().saturating_sub(1));
            self.read = text.len().saturating_sub(1 + self.first);
        }
        self.current.extend_from_slice(&text[self.read.min(text.len())..]);
        self.read = text.len();
        self.last.clear();
    }

    /// Takes note of what follows that text. It need not be read any more.
    pub fn settled(&mut self, tokens: &[Token]) {
        self.last.clear();
        self.last.extend_from_slice(tokens);
    }

    /// Remembers `tokens`, whose continuations are of interest from index `first` on.
    fn insert(&mut self, tokens: &[Token], first: usize) {
        if tokens.len() > self.capacity / 2 {
            return;
        }
        if self.young.tokens.len() + tokens.len() > self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let Generation { tokens: all, index } = &mut self.young;
        let start = all.len();
        all.extend_from_slice(tokens);
        let answer_end = all.len() as u32;
        for end in first.max(1)..tokens.len() {
            for key in keys(&tokens[..end], self.key) {
                index.insert(key, (start + end) as u32..answer_end);
            }
        }
    }

    /// How many of the last tokens of `text`, up to `key`, stood together in an earlier
    /// answer, and what followed; the longest match, of these the latest.
    pub fn find(&self, text: &[Token]) -> Option<(usize, &[Token])> {
        let mut found = None;
        for generation in [&self.old, &self.young] {
            for (i, key) in keys(text, self.key).enumerate() {
                // A sequence that is not known is the end of none that is.
                let Some(place) = generation.index.get(&key) else { break };
                if found.as_ref().is_none_or(|(length, _)| *length <= i + 1) {
                    let place = place.start as usize..place.end as usize;
                    found = Some((i + 1, &generation.tokens[place]));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request, decoded `step` tokens a forward.
    fn answer(history: &mut History, prompt: &[Token], answer: &[Token], step: usize) {
        history.begin();
        let text = [prompt, answer].concat();
        let mut len = prompt.len() + 1;
        while len < text.len() {
            history.read(&text[..len]);
            let next = text.len().min(len + step);
            history.settled(&text[len..next]);
            len = next;
        }
    }

    #[test]
    fn longest_match_first_then_latest() {
        for step in 1..5 {
            let mut history = History::new(3, 1_000);
            answer(&mut history, &[90, 91], &[1, 2, 3, 4], step);
            assert_eq!(history.find(&[1, 2]), None, "not yet");
            answer(&mut history, &[90, 91], &[5, 2, 6, 7], step);
            assert_eq!(history.find(&[9, 1, 2]), Some((2, &[3, 4][..])));
            answer(&mut history, &[92], &[8, 8], step);
            assert_eq!(history.find(&[2]), Some((1, &[6, 7][..])), "the latest");
            assert_eq!(history.find(&[1, 2]), Some((2, &[3, 4][..])), "the longest");
            assert_eq!(
                history.find(&[90, 91, 1]),
                Some((3, &[2, 3, 4][..])),
                "with the prompt's end"
            );
            assert_eq!(history.find(&[91]), Some((1, &[5, 2, 6, 7][..])));
            assert_eq!(history.find(&[90]), None, "prompts are not answers");
            assert_eq!(history.find(&[7]), None, "nothing followed");
            assert_eq!(history.find(&[]), None);
        }
    }

    #[test]
    fn the_oldest_is_forgotten_and_the_latest_half_is_not() {
        let mut history = History::new(2, 40);
        for i in 0..100 {
            answer(&mut history, &[1_000], &[i, i, 500, i], 1);
        }
        history.begin();
        let known = |i: Token| history.find(&[i, i]).is_some_and(|(length, _)| length == 2);
        let latest = (0..100).rev().take_while(|&i| known(i)).count();
        assert!((4..=8).contains(&latest), "{latest}");
        assert!((0..90).all(|i| !known(i)));
        assert!(history.young.tokens.len() + history.old.tokens.len() <= 40);
    }

    #[test]
    fn no_room_is_no_memory() {
        for (key, capacity) in [(0, 100), (3, 0), (3, 1)] {
            let mut history = History::new(key, capacity);
            answer(&mut history, &[1, 2], &[3, 4, 5], 1);
            history.begin();
            assert_eq!(history.find(&[2, 3]), None, "{key} {capacity}");
        }
    }
}
