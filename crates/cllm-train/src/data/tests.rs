//! Packed forwards against their definition.
//!
//! The definition knows nothing of rows: it lists, for every example, the texts after which
//! something is predicted. From a packed forward the same is read back by following what
//! each scored row sees. Both lists have to be equal, whatever is shared or left out.

use cllm_decode::{Token, counter};
use proptest::prelude::*;

use super::noise::Place;
use super::weigh::{Coefficients, weigh};
use super::*;
use crate::packed::Packed;

const VOCAB: usize = 50;

/// The text that a row has read, itself last.
fn text(packed: &Packed, row: usize) -> Vec<Token> {
    let segment = packed.segments.iter().find(|segment| segment.rows.contains(&row)).unwrap();
    let seen = segment.sees.iter().cloned().flatten().chain(segment.rows.start..=row);
    let seen: Vec<usize> = seen.collect();
    let positions: Vec<usize> = seen.iter().map(|&row| packed.positions[row]).collect();
    assert_eq!(positions, (0..seen.len()).collect::<Vec<_>>(), "a text has no holes");
    seen.iter().map(|&row| packed.tokens[row]).collect()
}

/// (text, next token) and (student's text, teacher's text), sorted.
type Scores = (Vec<(Vec<Token>, Token)>, Vec<(Vec<Token>, Vec<Token>)>);

fn read_back(forwards: &[Packed]) -> Scores {
    let (mut tokens, mut rows) = (Vec::new(), Vec::new());
    for packed in forwards {
        packed.validate(VOCAB).unwrap();
        tokens.extend(packed.tokens_scored.iter().map(|t| (text(packed, t.row), t.token)));
        rows.extend(
            packed.rows_scored.iter().map(|t| (text(packed, t.student), text(packed, t.teacher))),
        );
    }
    tokens.sort();
    rows.sort();
    (tokens, rows)
}

fn define(examples: &[Example], packing: &Packing, epoch: u64) -> Scores {
    let (mut tokens, mut rows) = (Vec::new(), Vec::new());
    for (e, example) in examples.iter().enumerate() {
        let Example { prompt, answer, reference, blocks } = example;
        let scored = match packing.ar {
            Some(ArAnswers::Data | ArAnswers::Both) => Some(reference.as_ref().unwrap_or(answer)),
            Some(ArAnswers::Teacher) => Some(answer),
            None => None,
        };
        for (i, &token) in scored.into_iter().flatten().enumerate() {
            tokens.push(([&prompt[..], &scored.unwrap()[..i]].concat(), token));
        }
        if packing.ar == Some(ArAnswers::Both)
            && let Some(own) = reference
        {
            for i in (1..answer.len()).filter(|&i| !own.starts_with(&answer[..i])) {
                tokens.push(([&prompt[..], &answer[..i]].concat(), answer[i]));
            }
        }
        for copy in 0..packing.noisy_copies {
            let mut noisy = prompt.clone();
            for (b, block) in blocks.iter().enumerate() {
                let fixed = &answer[block.start()..block.start() + block.len()];
                let place = Place { epoch, example: e, copy, block: b };
                let d = packing.noise.draw(packing.seed, packing.augmented_share, place, block);
                let state = |j: usize, augmented| {
                    if j < block.unfinished() { block.state(j, augmented) } else { fixed }
                };
                let (shown, next) = (state(d.state, d.augmented), state(d.state + 1, false));
                let clean = [&prompt[..], &answer[..block.start()]].concat();
                let before = if packing.history == History::Clean { &clean } else { &noisy };
                for i in 0..block.len() {
                    if shown[..i] == fixed[..i] {
                        continue;
                    }
                    let teacher = match packing.consistency {
                        Consistency::Global => fixed,
                        Consistency::Local => next,
                    };
                    rows.push(([before, &shown[..i]].concat(), [&clean, &teacher[..i]].concat()));
                }
                noisy.extend(shown);
            }
        }
    }
    tokens.sort();
    rows.sort();
    (tokens, rows)
}

/// An example made of random bits: prompts of a few families, states that settle from left
/// to right.
fn example(seed: u64, augment: bool) -> Example {
    let draw = |at: u64, n: usize| counter::index(seed, at, n);
    let family = draw(0, 3) as u64;
    let mut prompt: Vec<Token> =
        (0..40).map(|i| counter::index(family, i, VOCAB) as Token).collect();
    prompt.truncate(30 + draw(1, 11));
    prompt.extend((0..draw(2, 4)).map(|i| draw(10 + i as u64, VOCAB) as Token));
    let n = 1 + draw(3, 5);
    let answer: Vec<Token> =
        (0..1 + draw(4, 14)).map(|i| draw(20 + i as u64, VOCAB) as Token).collect();
    let (mut trajectories, mut augmented) = (Vec::new(), Vec::new());
    for (b, fixed) in answer.chunks(n).enumerate() {
        let (mut states, mut others, mut wrong) = (Vec::new(), Vec::new(), draw(50 + b as u64, 2));
        let mut at = 1000 * (b as u64 + 1);
        while wrong < fixed.len() {
            let mut state = fixed.to_vec();
            state[wrong] = (state[wrong] + 1) % VOCAB as Token;
            for token in &mut state[wrong + 1..] {
                at += 1;
                *token = draw(at, VOCAB) as Token;
            }
            let mut other = state.clone();
            for i in wrong + 1..fixed.len() {
                at += 1;
                if draw(at, 2) == 0 {
                    other[i] = fixed[i];
                }
            }
            states.push(state);
            others.push(other);
            at += 1;
            wrong += 1 + draw(at, 2);
        }
        states.push(fixed.to_vec());
        trajectories.push(states);
        augmented.push(others);
    }
    if !augment {
        augmented.clear();
    }
    let reference = (0..1 + draw(5, 6)).map(|i| draw(70 + i as u64, VOCAB) as Token).collect();
    let example = Example::new(prompt, answer).unwrap();
    example.with_trajectories(&trajectories, &augmented).unwrap().with_reference(reference)
}

fn packing() -> impl Strategy<Value = Packing> {
    let noise = prop_oneof![
        Just(NoiseSchedule::Uniform),
        (1usize..6).prop_map(|window| NoiseSchedule::Progressive { window }),
    ];
    let kind = prop_oneof![
        Just((History::Clean, Consistency::Global)),
        Just((History::Clean, Consistency::Local)),
        Just((History::Noisy, Consistency::Global)),
    ];
    let ar = prop_oneof![
        Just(None),
        Just(Some(ArAnswers::Teacher)),
        Just(Some(ArAnswers::Data)),
        Just(Some(ArAnswers::Both)),
    ];
    (any::<u64>(), 0usize..3, noise, kind, ar, prop_oneof![Just(0.0), Just(0.5), Just(1.0)])
        .prop_map(|(seed, noisy_copies, noise, (history, consistency), ar, augmented_share)| {
            Packing { seed, noisy_copies, noise, augmented_share, history, consistency, ar }
        })
}

proptest! {
    #[test]
    fn what_is_scored_is_what_the_definition_says(
        packing in packing(),
        seeds in prop::collection::vec(any::<u64>(), 1..12),
        augment in any::<bool>(),
        bundle in 1usize..6,
        size in prop_oneof![(1usize..5).prop_map(BatchSize::Examples),
                            (1usize..300).prop_map(BatchSize::Rows)],
        epoch in 0u64..3,
    ) {
        let examples: Vec<Example> = seeds.iter().map(|&s| example(s, augment)).collect();
        let expected = define(&examples, &packing, epoch);
        let data = DataSet::new(examples, Batches { packing, size, bundle });
        let forwards = data.epoch(epoch);
        let mut members: Vec<usize> =
            forwards.iter().flatten().flat_map(|b| b.members.clone()).collect();
        members.sort_unstable();
        prop_assert_eq!(members, (0..data.len()).collect::<Vec<_>>());
        let packed: Vec<Packed> = forwards.iter().map(|f| data.pack(f, epoch)).collect();
        for (forward, packed) in forwards.iter().zip(&packed) {
            let examples: usize = forward.iter().map(|b| b.members.len()).sum();
            match size {
                BatchSize::Examples(most) => prop_assert!(examples <= most),
                BatchSize::Rows(most) => prop_assert!(packed.len() <= most || examples == 1),
            }
        }
        prop_assert_eq!(read_back(&packed), expected);
    }

    #[test]
    fn the_loss_is_the_weighted_sum_of_means(
        packing in packing(),
        seeds in prop::collection::vec(any::<u64>(), 1..6),
    ) {
        let examples: Vec<Example> = seeds.iter().map(|&s| example(s, false)).collect();
        let size = BatchSize::Examples(2);
        let data = DataSet::new(examples, Batches { packing, size, bundle: 1 });
        let mut packed: Vec<Packed> = data.epoch(0).iter().map(|f| data.pack(f, 0)).collect();
        weigh(&mut packed, Coefficients { consistency: 3.0, ar: 5.0 });
        let sum = |weights: Vec<f32>| weights.iter().map(|&w| f64::from(w)).sum::<f64>();
        let rows = sum(packed.iter().flat_map(|p| &p.rows_scored).map(|t| t.weight).collect());
        let tokens = sum(packed.iter().flat_map(|p| &p.tokens_scored).map(|t| t.weight).collect());
        prop_assert!(rows == 0.0 || (rows - 3.0).abs() < 1e-4, "{}", rows);
        prop_assert!(tokens == 0.0 || (tokens - 5.0).abs() < 1e-4, "{}", tokens);
    }
}

/// Eleven tokens and three blocks, by hand.
#[test]
fn a_noisy_block_is_its_wrong_tail() {
    let example = Example::new(vec![1, 2], vec![3, 4, 5, 6, 7]).unwrap();
    let states = [vec![vec![9, 9, 9], vec![3, 9, 8], vec![3, 4, 5]], vec![vec![6, 9], vec![6, 7]]];
    let example = example.with_trajectories(&states, &[]).unwrap();
    // Blocks 0 and 1 with w = 2: ratios 0 and 1 in epoch 0, 1 and 0 in epoch 1.
    let noise = NoiseSchedule::Progressive { window: 2 };
    let packing = Packing { noisy_copies: 1, noise, ..Packing::sft() };
    let batches = Batches { packing, size: BatchSize::Rows(100), bundle: 1 };
    let data = DataSet::new(vec![example], batches);
    let packed = |epoch| data.pack(&data.epoch(epoch)[0], epoch);
    // y* scores nothing, nor does a block whose only wrong token is its last.
    assert_eq!(packed(0).tokens, [1, 2, 3, 4, 5, 6]);
    let noisy = packed(1);
    assert_eq!(noisy.tokens, [1, 2, 3, 4, 5, 6, 9, 9]);
    assert_eq!(noisy.positions, [0, 1, 2, 3, 4, 5, 2, 3]);
    assert_eq!(noisy.segments[2].sees, vec![0..2; 1]);
    let pairs: Vec<_> = noisy.rows_scored.iter().map(|t| (t.student, t.teacher)).collect();
    assert_eq!(pairs, [(6, 2), (7, 3)]);
    let scored: Vec<_> = noisy.tokens_scored.iter().map(|t| (t.row, t.token)).collect();
    assert_eq!(scored, [(1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]);
}

/// The same answer with windows that overlap.
#[test]
fn a_window_is_a_block_wherever_it_starts() {
    let example = || Example::new(vec![1, 2], vec![3, 4, 5, 6, 7]).unwrap();
    let windows = [vec![vec![4, 8, 6, 7], vec![4, 5, 6, 7]], vec![vec![9, 6, 7], vec![5, 6, 7]]];
    let packing = Packing { noisy_copies: 1, ..Packing::sft() };
    let batches = Batches { packing, size: BatchSize::Rows(100), bundle: 1 };
    let windowed = example().with_windows(&[1, 2], &windows).unwrap();
    let data = DataSet::new(vec![windowed], batches);
    let packed = data.pack(&data.epoch(0)[0], 0);
    assert_eq!(packed.tokens, [1, 2, 3, 4, 5, 6, 8, 6, 9, 6]);
    assert_eq!(packed.positions, [0, 1, 2, 3, 4, 5, 4, 5, 4, 5]);
    assert_eq!(packed.segments[2].sees, vec![0..4; 1], "prompt and answer before the wrong guess");
    let pairs: Vec<_> = packed.rows_scored.iter().map(|t| (t.student, t.teacher)).collect();
    assert_eq!(pairs, [(6, 4), (7, 5), (8, 4), (9, 5)]);

    let check = |starts: &[usize], part: &str| {
        let error = example().with_windows(starts, &windows).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    check(&[1], "expected 2 starts, found 1");
    check(&[1, 3], "window 2: its last state is not this part of the answer");
    check(&[usize::MAX, 2], "window 1: its last state");
}

#[test]
fn one_schema_travels_once() {
    let schema: Vec<Token> = (0..40).collect();
    let ask = |q: Token| Example::new([&schema[..], &[q, 41]].concat(), vec![q, 2]).unwrap();
    let examples: Vec<Example> = (30..36).map(ask).collect();
    let rows = |bundle| {
        let size = BatchSize::Rows(1000);
        let batches = Batches { packing: Packing::sft(), size, bundle };
        let data = DataSet::new(examples.clone(), batches);
        data.epoch(0).iter().map(|f| data.pack(f, 0).len()).sum::<usize>()
    };
    assert_eq!((rows(1), rows(8), rows(3)), (6 * 43, 40 + 6 * 3, 2 * 40 + 6 * 3));
}

#[test]
fn broken_trajectories_are_named() {
    let check = |states: &[Vec<Vec<Token>>], augmented: &[Vec<Vec<Token>>], part: &str| {
        let example = Example::new(vec![1], vec![3, 4, 5]).unwrap();
        let error = example.with_trajectories(states, augmented).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    check(&[vec![vec![3, 4]]], &[], "expected blocks of 3 tokens as the answer has, found 2");
    check(&[vec![vec![3, 4]], vec![vec![6]]], &[], "block 2: its last state");
    check(&[vec![vec![3, 9], vec![3, 4, 5]]], &[], "state 0: expected 3 tokens, found 2");
    check(&[vec![]], &[], "no states");
    check(&[vec![vec![3, 4, 5], vec![3, 4, 5]]], &[], "state 0: it is the fixed point");
    let one = [vec![vec![3, 9, 9], vec![3, 4, 5]]];
    check(&one, &[vec![vec![3, 4, 9]]], "another first wrong position");
    assert!(Example::new(vec![], vec![1]).unwrap_err().contains("empty prompt"));
}
