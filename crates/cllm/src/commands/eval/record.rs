//! One answered question: a line of `--out`, and all that the report is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::figures::Figures;

/// What the task says of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Scored {
    /// Each figure by its name; a null one could not be judged.
    pub(super) scores: BTreeMap<String, Option<bool>>,
    /// What was found and how it was judged.
    pub(super) details: Value,
}

/// One answered question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its line in the data, from 1.
    pub(super) line: usize,
    /// The answer.
    pub(super) text: String,
    /// `stop`, or `length` if it was cut.
    pub(super) finish_reason: String,
    /// What the task says of it.
    #[serde(flatten)]
    pub(super) scored: Scored,
    /// What it cost.
    pub(super) figures: Figures,
    /// Tokens that settled beside the guaranteed one of their forward.
    pub(super) fast_forwarded_tokens: usize,
    /// Tokens that were right while one before them was wrong, and stayed right.
    pub(super) stationary_tokens: usize,
    /// 4-grams of the answer, and those that stood earlier in it.
    pub(super) four_grams: (usize, usize),
    /// With `--check`: whether the tokens are AR's, and what AR cost.
    pub(super) ar: Option<Against>,
}

/// The comparison with autoregressive decoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Against {
    /// Whether the token ids are the same.
    pub(super) exact: bool,
    /// What autoregressive decoding cost.
    pub(super) figures: Figures,
}

impl Record {
    /// Whether the answer ended by itself.
    pub(super) fn ended(&self) -> bool {
        self.finish_reason == "stop"
    }
}
