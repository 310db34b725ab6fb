//! Examples whose prompts begin alike: the common beginning travels once.
//!
//! Spider asks hundreds of questions about one schema, and the schema is most of a prompt.
//! Packed as one shared segment with a branch for each question, a forward computes it once
//! and every loss stays what it was: a row of the branch sees the same tokens at the same
//! positions.
//!
//! Examples are sorted by prompt and neighbours put into *families* greedily, while the
//! common beginning is at least [`SHARED`] tokens and half of the shorter prompt; a system
//! prompt alone makes no family. Each epoch a family is shuffled and cut into bundles of at
//! most so many members, and the bundles are shuffled: a step sees several families.

use cllm_decode::{Token, counter};

use super::example::Example;

/// Fewest tokens worth sharing.
pub const SHARED: usize = 32;

/// Examples that travel together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Indices of the examples.
    pub members: Vec<usize>,
    /// Tokens at the beginning of their prompts that travel once.
    pub shared: usize,
}

/// The families of a data set: every example in exactly one.
#[must_use]
pub fn families(examples: &[Example], share: bool) -> Vec<Vec<usize>> {
    let mut sorted: Vec<usize> = (0..examples.len()).collect();
    if !share {
        return sorted.into_iter().map(|index| vec![index]).collect();
    }
    sorted.sort_by(|&a, &b| examples[a].prompt.cmp(&examples[b].prompt).then(a.cmp(&b)));
    let mut families: Vec<Vec<usize>> = Vec::new();
    let mut common: &[Token] = &[];
    for index in sorted {
        let prompt = &examples[index].prompt;
        let alike = alike(common, prompt);
        match families.last_mut() {
            Some(family) if worth(alike, prompt, &examples[family[0]].prompt) => {
                family.push(index);
                common = &prompt[..alike];
            }
            _ => {
                families.push(vec![index]);
                common = prompt;
            }
        }
    }
    families
}

fn worth(alike: usize, a: &[Token], b: &[Token]) -> bool {
    alike >= SHARED && 2 * alike >= a.len().min(b.len())
}

/// Length of the common beginning.
fn alike(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// The bundles of an epoch, each of at most `most` members, in their order.
#[must_use]
pub fn bundles(
    examples: &[Example],
    families: &[Vec<usize>],
    most: usize,
    seed: u64,
    epoch: u64,
) -> Vec<Bundle> {
    let key = counter::hash(counter::hash(seed, 1), epoch);
    let mut bundles = Vec::new();
    for (f, family) in families.iter().enumerate() {
        let mut members = family.clone();
        shuffle(&mut members, counter::hash(key, f as u64 + 1));
        for members in members.chunks(most.max(1)) {
            let first = &examples[members[0]].prompt;
            let shared = members[1..]
                .iter()
                .map(|&other| alike(first, &examples[other].prompt))
                .min()
                .unwrap_or(0);
            bundles.push(Bundle { members: members.to_vec(), shared });
        }
    }
    shuffle(&mut bundles, counter::hash(key, 0));
    bundles
}

/// Fisher and Yates, with draws that depend on `key` alone.
fn shuffle<T>(items: &mut [T], key: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, counter::index(key, i as u64, i + 1));
    }
}
