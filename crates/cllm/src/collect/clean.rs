//! Answers no model should learn from, each turned down for a reason that is counted.
//!
//! The paper drops answers with ten equal tokens in a row. Small teachers have more ways to
//! repeat themselves, and a consistency model learns each of them as a short cut: a
//! repeated token is easy to settle. The thresholds leave room for what honest answers
//! repeat: rows of a table, numbers, phrases of a proof.

use std::collections::HashMap;

use cllm_decode::{Finish, Token};

/// Equal tokens in a row (Kou et al. 2024).
const RUN: usize = 10;
/// Length of the n-grams looked at, and how often one may stand in an answer.
const GRAM: usize = 8;
const GRAM_REPEATS: usize = 4;
/// Characters from which a sentence counts, and how often one may stand in an answer.
const SENTENCE: usize = 16;
const SENTENCE_REPEATS: usize = 3;

/// Why an answer is turned down; `None` if it is not.
pub(crate) fn fault(tokens: &[Token], text: &str, finish: Option<Finish>) -> Option<&'static str> {
    if finish.is_some_and(|finish| finish != Finish::StopToken) {
        Some("no_eos")
    } else if text.trim().is_empty() {
        Some("empty")
    } else if tokens.chunk_by(|a, b| a == b).any(|run| run.len() >= RUN) {
        Some("token_run")
    } else if most(tokens.windows(GRAM)) > GRAM_REPEATS {
        Some("repeated_ngram")
    } else if most(sentences(text)) > SENTENCE_REPEATS {
        Some("repeated_sentence")
    } else {
        None
    }
}

/// How often the most frequent item comes.
fn most<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> usize {
    let mut counts = HashMap::new();
    items.for_each(|item| *counts.entry(item).or_insert(0) += 1);
    counts.into_values().max().unwrap_or(0)
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let all = text.split(['.', '!', '?', '\n']).map(str::trim);
    all.filter(|sentence| sentence.chars().count() >= SENTENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named() {
        let stop = Some(Finish::StopToken);
        let tokens: Vec<Token> = (0..40).collect();
        assert_eq!(fault(&tokens, "A fine answer.", stop), None);
        assert_eq!(fault(&tokens, "A fine answer.", None), None, "given answers have no finish");
        assert_eq!(fault(&tokens, "x", Some(Finish::MaxNewTokens)), Some("no_eos"));
        assert_eq!(fault(&[2], " ", stop), Some("empty"));
        assert_eq!(fault(&[7; 10], "x", stop), Some("token_run"));
        assert_eq!(fault(&[7; 9], "x", stop), None);
        let cycle: Vec<Token> = (0..40).map(|i| i % 7).collect();
        assert_eq!(fault(&cycle, "x", stop), Some("repeated_ngram"));
        let text = "I do not know it.\n".repeat(4);
        assert_eq!(fault(&tokens, &text, stop), Some("repeated_sentence"));
    }
}
