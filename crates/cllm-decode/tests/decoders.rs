//! Every decoder gives the tokens of autoregressive decoding, greedy and sampled, alone and
//! in company; and what each promises of its cost.

mod common;

use cllm_decode::fake::{Fake, FakeCache, Kind};
use cllm_decode::{
    Answer, Auto, CostModel, Decoder, Draft, Jacobi, JacobiPool, LmError, Oracle, PromptLookup,
    Recorder, Request, Sampling, Sequence, Stream, Token, ar, stream,
};
use common::kinds;
use proptest::prelude::*;

/// A decoder and its options.
#[derive(Debug, Clone)]
enum Spec {
    Jacobi(usize, Draft),
    Pool { n: usize, candidates: usize, length: usize },
    Lookup { ngram: usize, tokens: usize },
    Auto { rows: usize, slope: f64 },
    Oracle { n: usize, p: f64 },
}

/// T(1) = 1 and so much for each further row.
fn costs(slope: f64) -> CostModel {
    CostModel::new(vec![(1, 1.0), (2, 1.0 + slope)]).expect("costs")
}

impl Spec {
    fn build(&self, answer: &[Token], vocab: usize) -> Box<dyn Decoder> {
        match *self {
            Self::Jacobi(n, draft) => Box::new(Jacobi::new(n, draft, 3).expect("n > 0")),
            Self::Pool { n, candidates, length } => {
                Box::new(JacobiPool::new(n, candidates, length, 3).expect("n > 0"))
            }
            Self::Lookup { ngram, tokens } => {
                Box::new(PromptLookup::new(ngram, tokens).expect("more than 0"))
            }
            Self::Auto { rows, slope } => Box::new(Auto::new(costs(slope), rows, 3).expect("rows")),
            Self::Oracle { n, p } => {
                Box::new(Oracle::new(answer.to_vec(), n, p, 3, vocab).expect("n > 0"))
            }
        }
    }
}

fn specs() -> impl Strategy<Value = Spec> {
    prop_oneof![
        (1..20usize, prop::sample::select(Draft::ALL.to_vec()))
            .prop_map(|(n, d)| Spec::Jacobi(n, d)),
        (1..12usize, 0..4usize, 1..6usize).prop_map(|(n, candidates, length)| Spec::Pool {
            n,
            candidates,
            length
        }),
        (1..5usize, 1..12usize).prop_map(|(ngram, tokens)| Spec::Lookup { ngram, tokens }),
        (1..40usize, 0.0..0.3f64).prop_map(|(rows, slope)| Spec::Auto { rows, slope }),
        (1..12usize, 0.0..=1.0f64).prop_map(|(n, p)| Spec::Oracle { n, p }),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    fake: Fake,
    request: Request,
    chunk: usize,
}

prop_compose! {
    fn cases()(vocab in prop_oneof![1..4u32, 4..40u32])(
        kind in kinds(vocab),
        context in prop_oneof![1 => 2..50usize, 4 => 50..160usize],
        nan_at in prop::option::weighted(0.1, 0..90usize),
        prompt in prop::collection::vec(0..vocab, 1..50),
        max_new_tokens in prop_oneof![0..8usize, 8..100usize, Just(usize::MAX)],
        stop_tokens in prop_oneof![4 => Just(vec![]), 2 => prop::collection::vec(0..vocab, 1..3)],
        temperature in prop_oneof![2 => Just(0.0f32), 1 => 0.1..2.0f32],
        repetition_penalty in prop_oneof![2 => Just(1.0f32), 1 => 0.7..1.5f32],
        seed in any::<u64>(),
        chunk in prop_oneof![1..9usize, Just(512usize)],
        vocab in Just(vocab as usize),
    ) -> Case {
        let fake = Fake { nan_at, ..Fake::new(kind, vocab, context) };
        let sampling =
            Sampling { temperature, repetition_penalty, seed, ..Sampling::default() };
        Case { fake, request: Request { prompt, max_new_tokens, stop_tokens, sampling }, chunk }
    }
}

fn sequence() -> Sequence<FakeCache> {
    Sequence::new(FakeCache::default())
}

fn answer_with(
    case: &Case,
    decoder: &mut dyn Decoder,
) -> (Result<Answer, LmError>, Sequence<FakeCache>) {
    let (mut fake, mut sequence) = (case.fake.clone(), sequence());
    let answer =
        stream::generate(&mut fake, &mut sequence, decoder, &case.request, &mut (), case.chunk);
    (answer, sequence)
}

fn ar(case: &Case) -> Result<Answer, LmError> {
    ar::generate(&mut case.fake.clone(), &mut sequence(), &case.request, &mut (), case.chunk)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn every_decoder_is_ar(case in cases(), spec in specs()) {
        let expected = ar(&case);
        let known = expected.as_ref().map_or(&[][..], |answer| &answer.tokens);
        let mut decoder = spec.build(known, case.fake.vocab);
        let (found, sequence) = answer_with(&case, &mut decoder);
        let outcome = |r: &Result<Answer, LmError>| r.clone().map(|a| (a.tokens, a.finish));
        prop_assert_eq!(outcome(&found), outcome(&expected));
        prop_assert!(sequence.cache.tokens().eq(sequence.tokens.iter().copied()));
        if let (Ok(found), Ok(expected)) = (&found, &expected) {
            let retried = if case.fake.nan_at.is_none() { 1 } else { 2 };
            prop_assert!(found.stats.decode_forwards <= retried * expected.stats.decode_forwards);
        }
        // And again, with what it has learnt.
        prop_assert_eq!(outcome(&answer_with(&case, &mut decoder).0), outcome(&expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn companions_change_nothing(
        case in cases(), others in prop::collection::vec((specs(), any::<u64>()), 1..5),
    ) {
        let fake = Fake { nan_at: None, ..case.fake };
        let case = Case { fake, ..case };
        prop_assume!(case.request.prompt.len() < case.fake.context);
        let expected = |seed| {
            let mut case = case.clone();
            case.request.sampling.seed = seed;
            (ar(&case).expect("no NaN").tokens, case.request)
        };
        let mut streams = Vec::new();
        for (spec, seed) in &others {
            let (answer, request) = expected(*seed);
            let decoder = spec.build(&answer, case.fake.vocab);
            streams.push(
                Stream::new(&case.fake, sequence(), decoder, request, Recorder::default())
                    .expect("a request that fits"),
            );
        }
        let mut driver = stream::Driver::new(case.chunk);
        let mut fake = case.fake.clone();
        while driver.step(&mut fake, &mut streams).expect("no NaN") > 0 {}
        for (stream, (_, seed)) in streams.iter().zip(&others) {
            prop_assert_eq!(stream.tokens(), &expected(*seed).0[..]);
        }
    }
}

fn long(kind: Kind, vocab: usize, prompt: Vec<Token>, tokens: usize) -> Case {
    let request = Request { prompt, max_new_tokens: tokens, ..Request::default() };
    Case { fake: Fake::new(kind, vocab, 20_000), request, chunk: 512 }
}

/// The time of the decode forwards, by what each has in rows.
fn time(case: &Case, decoder: &mut dyn Decoder, costs: &CostModel) -> f64 {
    let (mut fake, mut recorder) = (case.fake.clone(), Recorder::default());
    stream::generate(&mut fake, &mut sequence(), decoder, &case.request, &mut recorder, 512)
        .expect("an answer");
    recorder.iterations.iter().skip(1).map(|it| costs.of(it.rows)).sum()
}

#[test]
fn auto_costs_next_to_nothing_where_nothing_pays() {
    let prompt: Vec<Token> = (0..40).map(|i| i * 7919 % 5000).collect();
    for (tokens, slope) in [(128, 0.05), (128, 0.15), (1000, 0.05), (1000, 0.3), (4000, 0.1)] {
        let case = long(Kind::ContextHash(1), 5000, prompt.clone(), tokens);
        let costs = costs(slope);
        let mut auto = Auto::new(costs.clone(), 32, 0).unwrap();
        let over = time(&case, &mut auto, &costs) / (tokens - 1) as f64 - 1.0;
        assert!(over <= 0.03, "{tokens} tokens, slope {slope}: {:.2} % over AR", 100.0 * over);
    }
}

#[test]
fn auto_is_near_the_best_fixed_width() {
    let mut guesses = Vec::new();
    for (order, vocab) in [(1, 300), (2, 6), (3, 3)] {
        guesses.push((Kind::Markov { order, seed: 2 }, vocab));
    }
    guesses.push((Kind::Copy(9), 400));
    guesses.push((Kind::Constant(5), 50));
    for (kind, vocab) in guesses {
        let prompt: Vec<Token> = (0..30).map(|i| i * 31 % vocab as Token).collect();
        let case = long(kind, vocab, prompt, 600);
        for slope in [0.03, 0.1, 0.4] {
            let costs = costs(slope);
            let widths = [1, 2, 4, 6, 8, 12, 16, 24, 32];
            let best = widths
                .into_iter()
                .map(|n| time(&case, &mut Jacobi::new(n, Draft::Context, 0).unwrap(), &costs));
            let best = best.fold(f64::INFINITY, f64::min);
            // A task is many requests: the first teaches.
            let mut auto = Auto::new(costs.clone(), 32, 0).unwrap();
            time(&case, &mut auto, &costs);
            let auto = time(&case, &mut auto, &costs);
            assert!(auto <= best * 1.06, "{kind:?}, slope {slope}: {auto} against {best}");
        }
    }
}

#[test]
fn off_means_off() {
    let case = long(Kind::Copy(3), 40, vec![1, 2, 3, 4], 200);
    let expected = ar(&case).unwrap();
    let mut off: Vec<Box<dyn Decoder>> = vec![
        Box::new(Jacobi::new(1, Draft::NGram, 0).unwrap()),
        Box::new(JacobiPool::new(1, 0, 4, 0).unwrap()),
        Box::new(Auto::new(costs(0.0), 1, 0).unwrap()),
        Box::new(Oracle::new(expected.tokens.clone(), 1, 1.0, 0, 40).unwrap()),
    ];
    for decoder in &mut off {
        assert_eq!(answer_with(&case, decoder).0.unwrap(), expected, "one row a forward");
    }
    // No token comes twice, so nothing is found.
    let case = long(Kind::Cycle(3000), 3000, vec![0], 500);
    let mut lookup = PromptLookup::new(3, 10).unwrap();
    assert_eq!(answer_with(&case, &mut lookup).0.unwrap(), ar(&case).unwrap());
}

#[test]
fn an_oracle_is_right_as_often_as_it_should_be() {
    let case = long(Kind::ContextHash(4), 1000, vec![1], 4001);
    let answer = ar(&case).unwrap().tokens;
    let mean = |n, p| {
        let mut oracle = Oracle::new(answer.clone(), n, p, 9, 1000).unwrap();
        answer_with(&case, &mut oracle).0.unwrap().stats.mean_acceptance_length().unwrap()
    };
    assert_eq!(mean(8, 1.0), 8.0);
    assert_eq!(mean(8, 0.0), 1.0);
    let expected: f64 = (0..8).map(|i| 0.8f64.powi(i)).sum();
    assert!((mean(8, 0.8) - expected).abs() < 0.15, "{} against {expected}", mean(8, 0.8));
}

/// What a text has said before is found, and a pool's branch settles what the window missed.
#[test]
fn repeated_text_settles_in_few_forwards() {
    let case = long(Kind::Copy(12), 500, (0..12).collect(), 241);
    let forwards =
        |decoder: &mut dyn Decoder| answer_with(&case, decoder).0.unwrap().stats.decode_forwards;
    assert!(forwards(&mut PromptLookup::new(3, 10).unwrap()) <= 30);
    let plain = forwards(&mut Jacobi::new(4, Draft::Context, 0).unwrap());
    let pool = forwards(&mut JacobiPool::new(4, 2, 5, 0).unwrap());
    assert!(pool < plain && pool <= 45, "{pool} with a pool, {plain} without");
}
