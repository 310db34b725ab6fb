//! Decoders side by side on one prompt, and what the comparison says.
//!
//! Autoregressive decoding is the oracle and the baseline: a decoder is *exact* where its
//! tokens are AR's, and its speed-up is against AR in this same process, on these same
//! prompts. The decoders take turns prompt by prompt, each time starting with another
//! one, so that a machine that slows down or warms up slows all of them alike.

use std::collections::HashSet;
use std::ops::ControlFlow;

use cllm_decode::{CausalLm, Finish, LmError, Oracle, Request, Sequence, Token};
use serde::Serialize;

use crate::decoder::{DecoderSpec, Making};
use crate::figures::Figures;
use crate::run::{Run, run, run_with};

/// Answers `request` with every decoder, each with an empty cache, the first being
/// `decoders[turn]` (modulo their number). Returns the runs in the order of `decoders`.
pub(crate) fn compete<L: CausalLm>(
    lm: &mut L,
    decoders: &[DecoderSpec],
    making: &Making,
    request: &Request,
    turn: usize,
) -> Result<Vec<Run>, LmError> {
    let mut runs: Vec<Option<Run>> = decoders.iter().map(|_| None).collect();
    for i in 0..decoders.len() {
        let i = (i + turn) % decoders.len();
        let mut sequence = Sequence::new(lm.new_cache());
        let go_on = &mut |_| ControlFlow::Continue(());
        runs[i] = Some(run(lm, &mut sequence, decoders[i], making, request, go_on)?);
    }
    Ok(runs.into_iter().flatten().collect())
}

/// Answers `request` with autoregressive decoding and then with windows whose guesses are
/// right with probability `p`, by coins of `seed`, as its answer is known. In the order of `decoders`.
pub(crate) fn pretend<L: CausalLm>(
    lm: &mut L,
    decoders: &[DecoderSpec],
    (p, seed): (f64, u64),
    making: &Making,
    request: &Request,
) -> Result<Vec<Run>, LmError> {
    let mut known = compete(lm, &[DecoderSpec::Ar], making, request, 0)?;
    let text = [&request.prompt[..], &known[0].answer.tokens].concat();
    let mut runs = Vec::with_capacity(decoders.len());
    for decoder in decoders {
        let DecoderSpec::Jacobi { n, .. } = *decoder else {
            runs.extend(known.pop());
            continue;
        };
        let mut sequence = Sequence::new(lm.new_cache());
        let mut oracle = Oracle::new(text.clone(), n, p, seed)?;
        runs.push(run_with(lm, &mut sequence, &mut oracle, request)?);
    }
    Ok(runs)
}

/// The first place where two answers differ, if they do.
pub(crate) fn first_difference(a: &[Token], b: &[Token]) -> Option<usize> {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    (common < a.len().max(b.len())).then_some(common)
}

/// What one decoder did on all prompts.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Standing {
    /// The decoder, as it prints.
    pub(crate) decoder: String,
    /// Prompts answered.
    pub(crate) prompts: usize,
    /// Cost and speed.
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Share of prompts whose token ids equal AR's.
    pub(crate) exact: f64,
    /// `tokens_per_second` over AR's.
    pub(crate) speedup: Option<f64>,
    /// AR's `total_seconds` over these: prefill included.
    pub(crate) total_speedup: Option<f64>,
    /// Share of answers that ended with a stop token.
    pub(crate) eos_share: f64,
    /// Share of 4-grams that stood earlier in the same answer: acceptance is easy where
    /// a model repeats itself.
    pub(crate) repetition_rate: Option<f64>,
}

/// Sums up: `runs[p][d]` is the run of `decoders[d]` on prompt p, `decoders[baseline]` is AR.
pub(crate) fn standings(
    decoders: &[DecoderSpec],
    baseline: usize,
    runs: &[Vec<Run>],
) -> Vec<Standing> {
    let of = |d: usize| runs.iter().map(move |prompt| &prompt[d]);
    let ar = Figures::of(of(baseline));
    let share = |count: usize| count as f64 / runs.len().max(1) as f64;
    let standing = |(d, decoder): (usize, &DecoderSpec)| {
        let figures = Figures::of(of(d));
        let equal = of(d).zip(of(baseline)).filter(|(a, b)| a.answer.tokens == b.answer.tokens);
        let speedup =
            figures.tokens_per_second.zip(ar.tokens_per_second).map(|(ours, ars)| ours / ars);
        let total_speedup = (figures.total_seconds > 0.0 && ar.total_seconds > 0.0)
            .then(|| ar.total_seconds / figures.total_seconds);
        Standing {
            decoder: decoder.to_string(),
            prompts: runs.len(),
            exact: share(equal.count()),
            speedup,
            total_speedup,
            eos_share: share(of(d).filter(|r| r.answer.finish == Finish::StopToken).count()),
            repetition_rate: repetition_rate(of(d).map(|run| run.answer.tokens.as_slice())),
            figures,
        }
    };
    decoders.iter().enumerate().map(standing).collect()
}

/// The share of 4-grams, over all answers, that stood earlier in their own answer.
pub(crate) fn repetition_rate<'a>(answers: impl Iterator<Item = &'a [Token]>) -> Option<f64> {
    let (mut all, mut repeated) = (0, 0);
    for tokens in answers {
        let grams = four_grams(tokens);
        all += grams.0;
        repeated += grams.1;
    }
    (all > 0).then(|| repeated as f64 / all as f64)
}

/// The 4-grams of an answer, and how many of them stood earlier in it.
pub(crate) fn four_grams(tokens: &[Token]) -> (usize, usize) {
    let mut seen = HashSet::new();
    let grams = tokens.windows(4);
    (grams.len(), grams.filter(|gram| !seen.insert(*gram)).count())
}

#[cfg(test)]
mod tests {
    use cllm_decode::fake::{Fake, Kind};

    use super::*;
    use crate::figures::tests::run_of;

    #[test]
    fn every_decoder_answers_and_the_order_of_turns_changes_nothing() {
        let mut lm = Fake::new(Kind::Markov { order: 2, seed: 1 }, 12, 256);
        let decoders: Vec<DecoderSpec> =
            ["ar", "jacobi:4", "jacobi:8,draft=ngram"].map(|d| d.parse().unwrap()).into();
        let mut runs = Vec::new();
        for turn in 0..5 {
            let prompt = vec![1, 2, turn as Token];
            let request =
                Request { prompt, max_new_tokens: 60, stop_tokens: vec![11], ..Request::default() };
            let round = compete(&mut lm, &decoders, &Making::default(), &request, turn).unwrap();
            for run in &round {
                assert_eq!(run.settled_together().len(), run.answer.tokens.len());
            }
            assert_eq!(round[0].answer.stats.mean_acceptance_length().unwrap_or(1.0), 1.0);
            runs.push(round);
        }
        let standings = standings(&decoders, 0, &runs);
        assert_eq!(standings.len(), 3);
        for standing in &standings {
            assert_eq!((standing.prompts, standing.exact), (5, 1.0), "{}", standing.decoder);
            assert!((0.0..=1.0).contains(&standing.eos_share));
        }
        assert_eq!(standings[0].speedup.unwrap_or(1.0), 1.0);
        let forwards = |i: usize| standings[i].figures.forwards;
        assert!(forwards(1) <= forwards(0));
    }

    #[test]
    fn what_was_answered_is_no_guess_once_it_is_forgotten() {
        // The next token depends on the last five, so the text does not repeat itself.
        let mut lm = Fake::new(Kind::Markov { order: 5, seed: 1 }, 1_000, 256);
        let decoders: Vec<DecoderSpec> =
            ["ar", "auto", "auto:history=0"].map(|d| d.parse().unwrap()).into();
        let request =
            Request { prompt: vec![1, 2, 3, 4, 5], max_new_tokens: 100, ..Request::default() };
        let making = Making::default();
        let mut forwards = |making: &Making| {
            let round = compete(&mut lm, &decoders, making, &request, 0).unwrap();
            assert!(round.iter().all(|run| run.answer.tokens == round[0].answer.tokens));
            [1, 2].map(|d: usize| round[d].answer.stats.decode_forwards)
        };
        let [first, again] = [forwards(&making), forwards(&making)];
        assert!(first[0] > 90 && again[0] < 30, "{first:?} {again:?}");
        assert!(first[1] > 90 && again[1] > 90, "{first:?} {again:?}");
        making.forget();
        assert_eq!(forwards(&making), first);
    }

    #[test]
    fn pretended_acceptance_is_what_was_asked_for_and_the_answer_is_the_models() {
        let mut lm = Fake::new(Kind::Markov { order: 3, seed: 1 }, 50, 1_000);
        let decoders: Vec<DecoderSpec> =
            ["ar", "jacobi:4", "jacobi:8"].map(|d| d.parse().unwrap()).into();
        let request = Request { prompt: vec![1, 2, 3], max_new_tokens: 401, ..Request::default() };
        let mut lengths = |p: f64| {
            let making = Making::default();
            let runs = pretend(&mut lm, &decoders, (p, 7), &making, &request).unwrap();
            assert!(runs.iter().all(|run| run.answer.tokens == runs[0].answer.tokens));
            [1, 2].map(|d: usize| runs[d].answer.stats.mean_acceptance_length().unwrap())
        };
        assert_eq!(lengths(0.0), [1.0, 1.0]);
        assert_eq!(lengths(1.0), [4.0, 8.0]);
        // 1 + p + p^2 + p^3 with p = 1/2.
        let [four, _] = lengths(0.5);
        assert!((1.6..2.2).contains(&four), "{four}");
    }

    #[test]
    fn a_wrong_answer_lowers_exact() {
        let decoders: Vec<DecoderSpec> = ["ar", "jacobi:4"].map(|d| d.parse().unwrap()).into();
        let mut wrong = run_of(20, 5, 0.5, 1.0);
        wrong.answer.tokens[3] += 1;
        let right = || run_of(20, 5, 0.5, 1.0);
        let ar = || run_of(20, 20, 0.5, 2.0);
        let runs = vec![vec![ar(), wrong], vec![ar(), right()]];
        let standings = standings(&decoders, 0, &runs);
        assert_eq!((standings[0].exact, standings[1].exact), (1.0, 0.5));
        assert_eq!(standings[1].speedup, Some(2.0));
        assert_eq!(standings[1].total_speedup, Some(5.0 / 3.0));
        assert_eq!(standings[1].figures.mean_acceptance_length, Some(4.0));
    }

    #[test]
    fn differences_and_repetitions_are_found() {
        assert_eq!(first_difference(&[1, 2], &[1, 2]), None);
        assert_eq!(first_difference(&[1, 2], &[1, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2], &[1, 2, 3]), Some(2));
        let rate = |tokens: &[Token]| repetition_rate(std::iter::once(tokens));
        assert_eq!(rate(&[1, 2, 3]), None);
        assert_eq!(rate(&[1, 2, 3, 4, 5]), Some(0.0));
        assert_eq!(rate(&[7; 7]), Some(0.75));
    }
}
