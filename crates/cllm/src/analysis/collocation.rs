//! Collocations: n-grams that a model settles together (Kou et al. 2024, section 4.3).
//!
//! An occurrence of an n-gram in an answer is *together* if one forward settled all its
//! tokens. The rate of an n-gram is `(together + 1/2) / (occurrences + 1)`: the half on
//! either side (Jeffreys' prior) keeps a single sighting from looking like certainty. Its
//! *lift* is the model's rate over the baseline's, each with its own answers; the counts
//! stand beside it.
//!
//! Of each kind the n-grams with the highest lift are listed, the more frequent first among
//! equals. One that is part of a listed one, or has a listed one as part, is left out.
//! N-grams with a stop token, and those that never settled together, do not count.

use std::collections::HashMap;

use cllm_decode::Token;
use serde::Serialize;

use super::kind::{Kind, kind};
use super::{Named, Settings, autoregressive, settling};

/// Tokens of an answer that an example shows before and after.
const AROUND: usize = 8;
/// Examples of an n-gram.
const EXAMPLES: usize = 2;

/// An n-gram that settles together.
#[derive(Debug, Serialize)]
pub(crate) struct Collocation {
    pub(crate) model: String,
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) occurrences: usize,
    pub(crate) together: usize,
    pub(crate) rate: f64,
    pub(crate) baseline_occurrences: Option<usize>,
    pub(crate) baseline_together: Option<usize>,
    pub(crate) baseline_rate: Option<f64>,
    /// `rate / baseline_rate`; null without a baseline.
    pub(crate) lift: Option<f64>,
    pub(crate) examples: Vec<Example>,
}

/// Where it was settled together.
#[derive(Debug, Serialize)]
pub(crate) struct Example {
    pub(crate) before: String,
    pub(crate) text: String,
    pub(crate) after: String,
}

#[derive(Debug, Default)]
struct Count {
    occurrences: usize,
    together: usize,
    /// Answer and index of some that settled together.
    places: Vec<(usize, usize)>,
}

impl Count {
    fn rate(&self) -> f64 {
        (self.together as f64 + 0.5) / (self.occurrences as f64 + 1.0)
    }
}

type Counts<'a> = HashMap<&'a [Token], Count>;

/// The collocations of all models that guess, but the baseline.
pub(super) fn rank(
    all: &[Named],
    baseline: Option<usize>,
    settings: &Settings,
) -> Vec<Collocation> {
    let base = baseline.map(|index| count(&all[index], settings.longest));
    let ranked =
        all.iter().enumerate().filter(|(i, named)| Some(*i) != baseline && !autoregressive(named));
    ranked.flat_map(|(_, named)| of_model(named, base.as_ref(), settings)).collect()
}

fn of_model(named: &Named, base: Option<&Counts<'_>>, settings: &Settings) -> Vec<Collocation> {
    let none = Count::default();
    let counts = count(named, settings.longest);
    let mut found: Vec<_> = counts
        .iter()
        .filter(|(_, count)| count.occurrences >= settings.min_count && count.together > 0)
        .map(|(gram, count)| {
            let beside = base.map(|base| base.get(gram).unwrap_or(&none));
            let lift = beside.map(|beside| count.rate() / beside.rate());
            (*gram, count, beside, lift)
        })
        .filter(|(.., lift)| lift.is_none_or(|lift| lift > 1.0))
        .collect();
    found.sort_by(|a, b| {
        let score = |x: &(_, &Count, _, Option<f64>)| x.3.unwrap_or(x.1.together as f64);
        score(b)
            .total_cmp(&score(a))
            .then(b.1.together.cmp(&a.1.together))
            .then(b.0.len().cmp(&a.0.len()))
            // The map has no order of its own.
            .then(a.0.cmp(b.0))
    });

    let mut listed: Vec<Collocation> = Vec::new();
    for kind_listed in [Kind::Phrases, Kind::Syntax, Kind::Numbers] {
        let from = listed.len();
        for (gram, count, beside, lift) in &found {
            if listed.len() - from == settings.top {
                break;
            }
            let (answer, at) = count.places[0];
            let text =
                named.answers[answer].text(&named.answers[answer].tokens[at..][..gram.len()]);
            let known =
                |other: &Collocation| within(&other.tokens, gram) || within(gram, &other.tokens);
            if kind(&text) != kind_listed || listed[from..].iter().any(known) {
                continue;
            }
            listed.push(Collocation {
                model: named.name.clone(),
                kind: kind_listed,
                text,
                tokens: gram.to_vec(),
                occurrences: count.occurrences,
                together: count.together,
                rate: count.rate(),
                baseline_occurrences: beside.map(|count| count.occurrences),
                baseline_together: beside.map(|count| count.together),
                baseline_rate: beside.map(Count::rate),
                lift: *lift,
                examples: count
                    .places
                    .iter()
                    .map(|&(answer, at)| example(named, answer, at, gram.len()))
                    .collect(),
            });
        }
    }
    listed
}

fn within(inner: &[Token], outer: &[Token]) -> bool {
    outer.windows(inner.len()).any(|window| window == inner)
}

fn example(named: &Named, answer: usize, at: usize, n: usize) -> Example {
    let answer = &named.answers[answer];
    let tokens = &answer.tokens;
    Example {
        before: answer.text(&tokens[at.saturating_sub(AROUND)..at]),
        text: answer.text(&tokens[at..at + n]),
        after: answer.text(&tokens[at + n..tokens.len().min(at + n + AROUND)]),
    }
}

/// Counts all n-grams of 2 to `longest` tokens that decode forwards settled.
fn count(named: &Named, longest: usize) -> Counts<'_> {
    let mut counts = Counts::new();
    for (a, answer) in named.answers.iter().enumerate() {
        let (first, by) = settling::settled_by(answer);
        let stop = |token: &Token| answer.stop_tokens.contains(token);
        let text = &answer.tokens[first..];
        let end = text.iter().position(stop).unwrap_or(text.len());
        for n in 2..=longest {
            for (i, gram) in text[..end].windows(n).enumerate() {
                let count = counts.entry(gram).or_default();
                count.occurrences += 1;
                if by[i] == by[i + n - 1] {
                    count.together += 1;
                    if count.places.len() < EXAMPLES {
                        count.places.push((a, first + i));
                    }
                }
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::read::tests::traced;

    #[test]
    fn the_lift_is_the_ratio_of_smoothed_rates() {
        // The CLLM settles 21 22 together three times of three, the teacher once of three.
        let together = || traced(1, &[(&[20], 1), (&[21, 22], 2), (&[23], 1), (&[2], 1)]);
        let apart = || traced(1, &[(&[20], 1), (&[21, 9], 1), (&[22], 1), (&[23], 1), (&[2], 1)]);
        let named = |name: &str, answers| Named { name: name.into(), answers };
        let all = [
            named("teacher", vec![together(), apart(), apart()]),
            named("cllm", vec![together(), together(), together()]),
        ];
        let settings = Settings::default();
        let found = rank(&all, Some(0), &settings);
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!(
            (one.model.as_str(), one.kind, one.text.as_str()),
            ("cllm", Kind::Numbers, " 21 22")
        );
        assert_eq!((one.together, one.occurrences), (3, 3));
        assert_eq!((one.baseline_together, one.baseline_occurrences), (Some(1), Some(3)));
        assert!((one.lift.unwrap() - (3.5 / 4.0) / (1.5 / 4.0)).abs() < 1e-12);
        let example = &one.examples[0];
        assert_eq!((example.before.as_str(), example.after.as_str()), (" 1 20", " 23 2"));
        assert_eq!(one.examples.len(), 2);
        // What is rarer than asked for is not listed; alone, a model has no lift.
        assert!(rank(&all, Some(0), &Settings { min_count: 4, ..settings.clone() }).is_empty());
        assert_eq!(rank(&all[1..], None, &settings)[0].lift, None);
    }

    #[test]
    fn parts_of_listed_ones_are_left_out() {
        assert!(within(&[1, 2], &[0, 1, 2]));
        assert!(!within(&[1, 2], &[1, 0, 2]));
        assert!(!within(&[1, 2, 3], &[1, 2]));
    }
}
