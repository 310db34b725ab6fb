//! What followed the end of a text where it stood before.
//!
//! An index of n-grams that grows with the text, so that a search costs a few hash lookups
//! whatever the length of the context.

use std::collections::HashMap;

use crate::counter;
use crate::lm::Token;

/// Where n-grams of up to `longest` tokens ended last.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    longest: usize,
    /// By a hash of length and tokens: the place after the most recent occurrence.
    ends: HashMap<u64, usize>,
    /// n-grams that end before this place are in `ends`.
    indexed: usize,
}

/// Earlier text that ends as the text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    /// Index of the token that followed.
    pub(crate) at: usize,
    /// How many tokens agree, up to the longest n-gram.
    pub(crate) len: usize,
}

impl Lookup {
    pub(crate) fn new(longest: usize) -> Self {
        Self { longest, ends: HashMap::new(), indexed: 1 }
    }

    /// Forgets the text.
    pub(crate) fn clear(&mut self) {
        self.ends.clear();
        self.indexed = 1;
    }

    /// The longest match of the end of `text`, the most recent among equals. `text` begins
    /// with what it was before.
    pub(crate) fn find(&mut self, text: &[Token]) -> Option<Match> {
        // The end of the text itself has nothing after it yet.
        for end in self.indexed..text.len() {
            for len in 1..=self.longest.min(end) {
                self.ends.insert(key(&text[end - len..end]), end);
            }
        }
        self.indexed = self.indexed.max(text.len());
        let longest = self.longest.min(text.len());
        (1..=longest).rev().find_map(|len| {
            let gram = &text[text.len() - len..];
            let at = *self.ends.get(&key(gram))?;
            // Two n-grams may have one hash.
            (at >= len && text.get(at - len..at) == Some(gram)).then_some(Match { at, len })
        })
    }
}

fn key(gram: &[Token]) -> u64 {
    gram.iter().fold(gram.len() as u64, |key, &token| counter::hash(key, u64::from(token)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_definition(text: &[Token], longest: usize) -> Option<Match> {
        let matched = |at: usize| {
            let most = longest.min(at);
            (1..=most).take_while(|k| text[at - k] == text[text.len() - k]).count()
        };
        let all = (1..text.len()).map(|at| Match { at, len: matched(at) });
        all.filter(|found| found.len > 0).max_by_key(|found| (found.len, found.at))
    }

    proptest! {
        #[test]
        fn the_longest_and_latest_is_found_as_a_text_grows(
            text in prop::collection::vec(0..4u32, 1..60),
            steps in prop::collection::vec(1..6usize, 1..20),
            longest in 1..5usize,
        ) {
            let mut lookup = Lookup::new(longest);
            let mut len = 0;
            for step in steps {
                len = (len + step).min(text.len());
                prop_assert_eq!(lookup.find(&text[..len]), by_definition(&text[..len], longest));
            }
            lookup.clear();
            prop_assert_eq!(lookup.find(&[9, 9]), Some(Match { at: 1, len: 1 }));
        }
    }
}
