//! Which tokens a row sees, and how often the answer among them has each.

use std::collections::HashMap;

use crate::lm::Token;

/// Counts over a text that grows, from which those of a row differ by a few tokens.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    prompt_len: usize,
    /// How often each token of the text stands in its answer; 0 for one of the prompt.
    counts: HashMap<Token, u32>,
    /// Tokens of the text that are counted.
    counted: usize,
    /// What a row sees beyond them: its counts, with those above.
    beyond: Vec<(Token, u32)>,
}

impl Seen {
    /// Of a text whose prompt has `prompt_len` tokens.
    pub(super) fn new(prompt_len: usize) -> Self {
        Self { prompt_len, counts: HashMap::new(), counted: 0, beyond: Vec::new() }
    }

    /// Counts the first `len` tokens of `text`, which begins as it did before.
    pub(super) fn count(&mut self, text: &[Token], len: usize) {
        if len < self.counted {
            self.counts.clear();
            self.counted = 0;
        }
        for (position, &token) in text.iter().enumerate().take(len).skip(self.counted) {
            *self.counts.entry(token).or_default() += u32::from(position >= self.prompt_len);
        }
        self.counted = len;
        self.beyond.clear();
    }

    /// Adds a token that one row sees at `position`, until [`count`](Self::count) is next
    /// called.
    pub(super) fn add(&mut self, position: usize, token: Token) {
        let answers = u32::from(position >= self.prompt_len);
        match self.beyond.iter_mut().find(|(other, _)| *other == token) {
            Some((_, count)) => *count += answers,
            None => {
                let before = self.counts.get(&token).copied().unwrap_or(0);
                self.beyond.push((token, before + answers));
            }
        }
    }

    /// Every token that is seen, with its count in the answer.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (Token, u32)> + '_ {
        let added = |token: &Token| self.beyond.iter().any(|(other, _)| other == token);
        let counted = self.counts.iter().map(|(&token, &count)| (token, count));
        counted.filter(move |(token, _)| !added(token)).chain(self.beyond.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_the_answer_and_what_a_row_adds_goes_again() {
        let mut seen = Seen::new(2);
        let tokens = |seen: &Seen| {
            let mut all: Vec<_> = seen.tokens().collect();
            all.sort_unstable();
            all
        };
        let text = [5, 6, 5, 7];
        seen.count(&text, 3);
        assert_eq!(tokens(&seen), [(5, 1), (6, 0)]);
        seen.add(3, 7);
        seen.add(4, 5);
        seen.add(5, 5);
        assert_eq!(tokens(&seen), [(5, 3), (6, 0), (7, 1)]);
        seen.count(&text, 4);
        assert_eq!(tokens(&seen), [(5, 1), (6, 0), (7, 1)]);
        seen.count(&text, 1);
        assert_eq!(tokens(&seen), [(5, 0)]);
        seen.add(1, 6);
        assert_eq!(tokens(&seen), [(5, 0), (6, 0)]);
    }
}
