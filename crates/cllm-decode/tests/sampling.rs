//! Sampling with a seed is a deterministic map: every decoder draws what autoregressive
//! sampling draws. And what is drawn has the distribution it should have.

mod common;

use cllm_decode::fake::{Fake, FakeCache, Kind};
use cllm_decode::{
    Batch, CausalLm, Draft, Jacobi, Observer, Output, Recorder, Request, Sampling, Sequence,
    Stream, Token, TokenLogprobs, Want, ar, stream,
};
use common::kinds;
use proptest::prelude::*;

prop_compose! {
    fn samplings(vocab: Token)(
        temperature in prop_oneof![1 => Just(0.0f32), 4 => 0.05..3.0f32],
        top_k in prop_oneof![2 => Just(0usize), 1 => 1..6usize],
        top_p in prop_oneof![1 => Just(1.0f32), 1 => 0.1..1.0f32],
        min_p in prop_oneof![2 => Just(0.0f32), 1 => 0.01..0.9f32],
        typical_p in prop_oneof![3 => Just(1.0f32), 1 => 0.1..1.0f32],
        repetition_penalty in prop_oneof![1 => Just(1.0f32), 1 => 0.5..2.0f32],
        penalties in prop_oneof![1 => Just([0.0f32; 2]), 1 => prop::array::uniform2(-2.0..2.0f32)],
        logit_bias in prop_oneof![
            2 => Just(vec![]),
            1 => prop::collection::vec((0..vocab, -2.0..2.0f32), 1..3),
        ],
        logprobs in prop::option::of(0..2usize),
        seed in any::<u64>(),
        choice in 0..4u64,
    ) -> Sampling {
        let [presence_penalty, frequency_penalty] = penalties;
        Sampling {
            temperature, top_k, top_p, min_p, typical_p, repetition_penalty, presence_penalty,
            frequency_penalty, logit_bias, logprobs: logprobs.filter(|&n| n <= vocab as usize),
            seed, choice,
        }
    }
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
        sampling in samplings(vocab),
        context in 40..90usize,
        prompt in prop::collection::vec(0..vocab, 1..30),
        max_new_tokens in prop_oneof![1..8usize, Just(usize::MAX)],
        stop_tokens in prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(0..vocab, 1..3)],
        chunk in 1..20usize,
        vocab in Just(vocab as usize),
    ) -> Case {
        let request = Request { prompt, max_new_tokens, stop_tokens, sampling };
        Case { fake: Fake::new(kind, vocab, context), request, chunk }
    }
}

/// Log-probabilities as they come.
#[derive(Default)]
struct Told(Vec<TokenLogprobs>);

impl Observer for Told {
    fn logprobs(&mut self, logprobs: &TokenLogprobs) {
        self.0.push(logprobs.clone());
    }
}

fn sequence() -> Sequence<FakeCache> {
    Sequence::new(FakeCache::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn jacobi_draws_what_ar_draws(
        case in cases(), n in 1..20usize, draft in prop::sample::select(Draft::ALL.to_vec()),
    ) {
        let Case { mut fake, request, chunk } = case;
        let (mut a, mut b) = (Told::default(), Told::default());
        let ar = ar::generate(&mut fake, &mut sequence(), &request, &mut a, chunk).unwrap();
        let mut decoder = Jacobi::new(n, draft, 1).unwrap();
        let jacobi = stream::generate(
            &mut fake, &mut sequence(), &mut decoder, &request, &mut b, chunk,
        ).unwrap();
        prop_assert_eq!((&jacobi.tokens, jacobi.finish), (&ar.tokens, ar.finish));
        prop_assert!(jacobi.stats.decode_forwards <= ar.stats.decode_forwards);
        prop_assert_eq!(&b.0, &a.0);
        match request.sampling.logprobs {
            Some(top) => {
                let told: Vec<_> = a.0.iter().map(|t| t.token).collect();
                prop_assert_eq!(told, ar.tokens);
                prop_assert!(a.0.iter().all(|t| t.top.len() == top && t.logprob <= 0.0));
            }
            None => prop_assert!(a.0.is_empty()),
        }
    }

    #[test]
    fn companions_and_their_noise_change_nothing(case in cases(), other in any::<u64>()) {
        let Case { mut fake, request, chunk } = case;
        let alone = ar::generate(&mut fake, &mut sequence(), &request, &mut (), chunk).unwrap();
        let sampling = Sampling { temperature: 1.5, seed: other, ..Sampling::default() };
        let companion = Request { sampling, ..request.clone() };
        let mut streams: Vec<_> = [(companion, 3), (request, 7)].into_iter().map(|(request, n)| {
            let decoder = Jacobi::new(n, Draft::NGram, 0).unwrap();
            Stream::new(&fake, sequence(), decoder, request, Recorder::default()).unwrap()
        }).collect();
        let mut driver = stream::Driver::new(chunk);
        while driver.step(&mut fake, &mut streams).unwrap() > 0 {}
        prop_assert_eq!(streams[1].tokens(), &alone.tokens[..]);
    }
}

/// The logits of a fake after `prompt`.
fn logits(fake: &mut Fake, prompt: &[Token]) -> Vec<f32> {
    let (mut batch, mut output) = (Batch::new(), Output::new());
    batch.push_causal(0, 0, prompt.iter().copied(), |_| Want::Logits);
    fake.forward(&batch, &mut [&mut FakeCache::default()], &mut output).unwrap();
    output.logits(prompt.len() - 1).to_vec()
}

/// Pearson's statistic of tokens drawn over many seeds against probabilities; and the
/// degrees of freedom.
fn chi_square(
    sampling: &Sampling,
    expected: &[f64],
    fake: &mut Fake,
    prompt: &[Token],
) -> (f64, f64) {
    const DRAWS: u64 = 20_000;
    let mut counts = vec![0.0; expected.len()];
    for seed in 0..DRAWS {
        let sampling = Sampling { seed, ..sampling.clone() };
        let request =
            Request { prompt: prompt.to_vec(), max_new_tokens: 1, sampling, ..Request::default() };
        let answer = ar::generate(fake, &mut sequence(), &request, &mut (), 64).unwrap();
        counts[answer.tokens[0] as usize] += 1.0;
    }
    let mut statistic = 0.0;
    for (count, p) in counts.iter().zip(expected) {
        if *p == 0.0 {
            assert_eq!(*count, 0.0, "a token that is filtered out was drawn");
        } else {
            let expected = p * DRAWS as f64;
            assert!(expected > 5.0, "too rare for the test");
            statistic += (count - expected).powi(2) / expected;
        }
    }
    (statistic, expected.iter().filter(|p| **p > 0.0).count() as f64 - 1.0)
}

/// Softmax of the logits over the temperature, where `kept` says.
fn softmax(logits: &[f32], temperature: f32, kept: impl Fn(usize) -> bool) -> Vec<f64> {
    let weight = |(i, z): (usize, &f32)| {
        if kept(i) { f64::from(z / temperature).exp() } else { 0.0 }
    };
    let weights: Vec<f64> = logits.iter().enumerate().map(weight).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

#[test]
fn what_is_drawn_has_the_models_distribution() {
    let mut fake = Fake::new(Kind::ContextHash(5), 24, 64);
    let prompt = [3, 1, 4];
    let z = logits(&mut fake, &prompt);
    let mut order: Vec<usize> = (0..z.len()).collect();
    order.sort_by(|&a, &b| z[b].total_cmp(&z[a]));
    let best = |k: usize| order[..k].to_vec();
    let top_four = best(4);
    let checks = [
        (Sampling { temperature: 1.0, ..Sampling::default() }, softmax(&z, 1.0, |_| true)),
        (Sampling { temperature: 0.7, ..Sampling::default() }, softmax(&z, 0.7, |_| true)),
        (
            Sampling { temperature: 2.0, top_k: 4, ..Sampling::default() },
            softmax(&z, 2.0, |i| top_four.contains(&i)),
        ),
        (
            Sampling { temperature: 1.0, choice: 3, ..Sampling::default() },
            softmax(&z, 1.0, |_| true),
        ),
    ];
    for (sampling, expected) in checks {
        let (statistic, freedom) = chi_square(&sampling, &expected, &mut fake, &prompt);
        // Four deviations above the mean: one correct sampler in ten thousand fails, and the
        // seeds are fixed.
        let limit = freedom + 4.0 * (2.0 * freedom).sqrt();
        assert!(statistic < limit, "chi-square {statistic:.1}, {freedom} degrees: {sampling:?}");
    }
}

#[test]
fn choices_differ_and_repeat() {
    let mut fake = Fake::new(Kind::ContextHash(5), 50, 64);
    let mut answer = |choice: u64| {
        let sampling = Sampling { temperature: 1.0, choice, ..Sampling::default() };
        let request =
            Request { prompt: vec![1], max_new_tokens: 20, sampling, ..Request::default() };
        ar::generate(&mut fake, &mut sequence(), &request, &mut (), 64).unwrap().tokens
    };
    let answers: Vec<_> = (0..8).map(&mut answer).collect();
    assert!((1..8).all(|i| !answers[..i].contains(&answers[i])));
    assert_eq!(answers[3], answer(3));
}

/// Nothing of sampling is asked or computed where it is off.
#[test]
fn off_means_off() {
    struct Strict(Fake);
    impl CausalLm for Strict {
        type Cache = FakeCache;
        fn vocab_size(&self) -> usize {
            self.0.vocab_size()
        }
        fn context_length(&self) -> usize {
            self.0.context_length()
        }
        fn new_cache(&self) -> FakeCache {
            self.0.new_cache()
        }
        fn forward(
            &mut self,
            batch: &Batch,
            caches: &mut [&mut FakeCache],
            output: &mut Output,
        ) -> Result<(), cllm_decode::LmError> {
            assert!(batch.rows().iter().all(|row| row.want != Want::Logits));
            self.0.forward(batch, caches, output)
        }
    }
    let mut lm = Strict(Fake::new(Kind::Markov { order: 2, seed: 1 }, 20, 100));
    // Filters without a temperature are no sampling either.
    let sampling = Sampling { top_k: 5, top_p: 0.9, seed: 4, ..Sampling::default() };
    let request =
        Request { prompt: vec![1, 2], max_new_tokens: 40, sampling, ..Request::default() };
    let ar = ar::generate(&mut lm, &mut sequence(), &request, &mut (), 64).unwrap();
    let mut decoder = Jacobi::new(8, Draft::NGram, 0).unwrap();
    let jacobi =
        stream::generate(&mut lm, &mut sequence(), &mut decoder, &request, &mut (), 64).unwrap();
    assert_eq!(ar.tokens, jacobi.tokens);
}
