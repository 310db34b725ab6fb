//! Sampling: the sampler against its definition, written without a shortcut, and the
//! distribution it draws from.

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cllm_decode::fake::{Fake, Kind};
use cllm_decode::sampling::MAX_LOGPROBS;
use cllm_decode::{
    CausalLm, LmError, Logprobs, Observer, Request, Sampler, Sampling, Sequence, Token, ar, counter,
};
use common::{kinds, samplings};
use proptest::prelude::*;

/// Probabilities of the tokens that may be drawn, in the order of the vocabulary; 0 for the
/// others. Temperature above 0.
fn distribution(s: &Sampling, logits: &[f32], prompt: &[Token], answer: &[Token]) -> Vec<f64> {
    let logits = penalised(s, logits, prompt, answer);
    let t = f64::from(s.temperature);
    let softmax = |alive: &dyn Fn(usize) -> bool| -> Vec<f64> {
        let l = |v: usize| f64::from(logits[v]) / t;
        let live = || (0..logits.len()).filter(|&v| alive(v));
        let largest = live().map(l).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = live().map(|v| (l(v) - largest).exp()).sum();
        (0..logits.len())
            .map(|v| if alive(v) { (l(v) - largest).exp() / total } else { 0.0 })
            .collect()
    };
    // Keeps the first of `order` until `enough` is reached.
    let cut = |p: &[f64], mut order: Vec<usize>, enough: f64| -> Vec<f64> {
        let mut sum = 0.0;
        let mut kept = 0;
        for &v in &order {
            kept += 1;
            sum += p[v];
            if sum >= enough {
                break;
            }
        }
        order.truncate(kept);
        softmax(&|v| order.contains(&v))
    };
    let by = |p: &[f64], key: &dyn Fn(usize) -> f64| -> Vec<usize> {
        let mut order: Vec<usize> = (0..p.len()).filter(|&v| p[v] > 0.0).collect();
        order.sort_by(|&a, &b| key(a).total_cmp(&key(b)).then(a.cmp(&b)));
        order
    };
    let mut p = softmax(&|_| true);
    if s.top_k > 0 {
        let mut order = by(&p, &|v| -f64::from(logits[v]));
        order.truncate(s.top_k);
        p = softmax(&|v| order.contains(&v));
    }
    if s.top_p < 1.0 {
        p = cut(&p, by(&p, &|v| -f64::from(logits[v])), f64::from(s.top_p));
    }
    let largest = p.iter().copied().fold(0.0, f64::max);
    let alive = p.clone();
    p = softmax(&|v| alive[v] > 0.0 && alive[v] >= f64::from(s.min_p) * largest * (1.0 - 1e-12));
    if s.typical_p < 1.0 {
        let h: f64 = p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
        p = cut(&p, by(&p, &|v| (-p[v].ln() - h).abs()), f64::from(s.typical_p));
    }
    p
}

fn penalised(s: &Sampling, logits: &[f32], prompt: &[Token], answer: &[Token]) -> Vec<f32> {
    let mut logits = logits.to_vec();
    for &(token, bias) in &s.logit_bias {
        logits[token as usize] += bias;
    }
    for (v, logit) in logits.iter_mut().enumerate() {
        let v = v as Token;
        let times = answer.iter().filter(|&&t| t == v).count();
        if times > 0 || prompt.contains(&v) {
            *logit = if *logit > 0.0 {
                *logit / s.repetition_penalty
            } else {
                *logit * s.repetition_penalty
            };
        }
        if times > 0 {
            *logit -= s.presence_penalty + s.frequency_penalty * times as f32;
        }
    }
    logits
}

/// `vocab` different logits between -3 and 5.
fn logits(vocab: usize, seed: u64) -> Vec<f32> {
    let unit = |v: usize| counter::hash(seed, v as u64) as f32 / u64::MAX as f32;
    (0..vocab).map(|v| unit(v) * 8.0 - 3.0).collect()
}

/// Draws with `count` seeds and counts the tokens.
fn draws(s: &Sampling, logits: &[f32], prompt: &[Token], answer: &[Token], count: u64) -> Vec<u64> {
    let mut counts = vec![0; logits.len()];
    for seed in 0..count {
        let mut sampler = Sampler::new(Sampling { seed, ..s.clone() }, prompt.len());
        let token = sampler.draw(logits, prompt, answer.iter().copied());
        counts[token as usize] += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Tokens are drawn with the probabilities of the definition: chi-square over 4,000
    /// seeds, at a level that random data exceed once in 10^8 times or less.
    #[test]
    fn draws_follow_the_definition(
        s in samplings(12),
        seed in any::<u64>(),
        prompt in prop::collection::vec(0..12u32, 1..6),
        answer in prop::collection::vec(0..12u32, 0..6),
    ) {
        const N: u64 = 4_000;
        let logits = logits(12, seed);
        let counts = draws(&s, &logits, &prompt, &answer, N);
        if s.temperature == 0.0 {
            let best = cllm_decode::lm::argmax(&penalised(&s, &logits, &prompt, &answer));
            prop_assert_eq!(counts[best.expect("finite") as usize], N);
            return Ok(());
        }
        let p = distribution(&s, &logits, &prompt, &answer);
        // Cells that expect fewer than five draws are taken together.
        let (mut chi, mut cells, mut rare) = (0.0, 0.0, (0.0, 0.0));
        for (&p, &count) in p.iter().zip(&counts) {
            prop_assert!(p > 0.0 || count == 0, "a token that the filters exclude");
            let expected = p * N as f64;
            if expected < 5.0 {
                rare = (rare.0 + expected, rare.1 + count as f64);
            } else {
                chi += (count as f64 - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        // Beyond mean + 10 standard deviations of chi-square, whose tail is exponential.
        prop_assert!(chi < cells + 10.0 * (2.0f64 * cells).sqrt() + 10.0, "chi-square {chi}");
        prop_assert!(rare.1 < rare.0 + 10.0 * rare.0.sqrt() + 15.0, "{rare:?}");
    }

    /// A token's draw depends on its row alone, not on what was drawn before.
    #[test]
    fn draws_have_no_memory(
        s in samplings(12),
        text in prop::collection::vec(0..12u32, 4..20),
        prompt_len in 1..4usize,
        calls in prop::collection::vec((0..16usize, prop::collection::vec(0..12u32, 0..5)), 1..8),
    ) {
        let mut used = Sampler::new(s.clone(), prompt_len);
        for (len, more) in calls {
            let text = &text[..len.clamp(1, text.len())];
            let logits = logits(12, len as u64);
            let fresh = Sampler::new(s.clone(), prompt_len)
                .draw(&logits, text, more.iter().copied());
            prop_assert_eq!(used.draw(&logits, text, more.iter().copied()), fresh);
            let joined = [text, &more].concat();
            let whole = Sampler::new(s.clone(), prompt_len)
                .draw(&logits, &joined, std::iter::empty());
            prop_assert_eq!(whole, fresh);
        }
    }

    /// Filters on a large vocabulary, where the shortcuts matter: no excluded token is drawn.
    #[test]
    fn large_vocabularies(s in samplings(500), seed in any::<u64>()) {
        let s = Sampling { temperature: s.temperature.max(0.05), ..s };
        let logits = logits(500, seed);
        let p = distribution(&s, &logits, &[1, 2], &[3]);
        for (v, count) in draws(&s, &logits, &[1, 2], &[3], 50).into_iter().enumerate() {
            prop_assert!(count == 0 || p[v] > 0.0, "token {v}");
        }
    }
}

#[test]
fn choices_and_seeds_and_positions_differ() {
    let logits = vec![0.0; 1_000];
    let draw = |seed, choice, position: usize| {
        let s = Sampling { temperature: 1.0, seed, choice, ..Sampling::default() };
        Sampler::new(s, 1).draw(&logits, &vec![0; position], std::iter::empty())
    };
    let one = draw(1, 0, 5);
    assert_eq!(one, draw(1, 0, 5));
    let others = [draw(2, 0, 5), draw(1, 1, 5), draw(1, 0, 6), draw(0, 1, 5), draw(5, 0, 1)];
    assert!(others.iter().all(|&other| other != one), "{one} {others:?}");
}

#[test]
fn settings_out_of_range() {
    let check = |sampling: Sampling, expected: &str| {
        let error = sampling.validate(10).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        let mut lm = Fake::new(Kind::Constant(1), 10, 100);
        let mut sequence = Sequence::new(lm.new_cache());
        let request = Request { prompt: vec![1], sampling, ..Request::default() };
        assert_eq!(ar::generate(&mut lm, &mut sequence, &request, &mut (), 9), Err(error));
    };
    let off = Sampling::default;
    assert_eq!(off().validate(10), Ok(()));
    check(Sampling { temperature: -0.1, ..off() }, "temperature -0.1: expected 0 or more");
    check(Sampling { temperature: f32::NAN, ..off() }, "temperature NaN: expected 0 or more");
    check(Sampling { temperature: f32::INFINITY, ..off() }, "temperature inf: expected 0 or more");
    check(Sampling { top_p: 0.0, ..off() }, "top_p 0: expected more than 0 and at most 1");
    check(Sampling { top_p: 1.5, ..off() }, "top_p 1.5: expected more than 0 and at most 1");
    check(Sampling { min_p: -1.0, ..off() }, "min_p -1: expected 0 to 1");
    check(Sampling { typical_p: 2.0, ..off() }, "typical_p 2: expected more than 0 and at most 1");
    let zero = Sampling { repetition_penalty: 0.0, ..off() };
    check(zero, "repetition_penalty 0: expected more than 0");
    check(Sampling { presence_penalty: 3.0, ..off() }, "presence_penalty 3: expected -2 to 2");
    check(Sampling { frequency_penalty: -3.0, ..off() }, "frequency_penalty -3: expected -2 to 2");
    check(
        Sampling { logit_bias: vec![(1, 101.0)], ..off() },
        "logit_bias 101: expected -100 to 100",
    );
    check(
        Sampling { logit_bias: vec![(10, 1.0)], ..off() },
        "token 10 is not in the vocabulary of 10 tokens",
    );
    check(Sampling { logprobs: Some(MAX_LOGPROBS + 1), ..off() }, "logprobs 21: expected 0 to 20");
}

/// Collects what is told, in order.
#[derive(Default)]
struct Told {
    tokens: Vec<Token>,
    logprobs: Vec<Logprobs>,
}

impl Observer for Told {
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        self.tokens.push(token);
        ControlFlow::Continue(())
    }

    fn logprobs(&mut self, logprobs: &Logprobs) {
        assert_eq!(self.tokens.len(), self.logprobs.len(), "logprobs come before their token");
        self.logprobs.push(logprobs.clone());
    }
}

proptest! {
    #[test]
    fn logprobs_are_the_models(
        kind in kinds(30),
        s in samplings(30),
        top in 0..=MAX_LOGPROBS,
        len in 1..20usize,
    ) {
        let sampling = Sampling { logprobs: Some(top), ..s };
        let mut lm = Fake::new(kind, 30, 100);
        let request =
            Request { prompt: vec![3, 1], max_new_tokens: len, sampling, ..Request::default() };
        let mut told = Told::default();
        let mut sequence = Sequence::new(lm.new_cache());
        ar::generate(&mut lm, &mut sequence, &request, &mut told, 9).expect("a sound request");
        prop_assert_eq!(told.logprobs.len(), len);
        for (i, told_of) in told.logprobs.iter().enumerate() {
            prop_assert_eq!(told_of.token, told.tokens[i]);
            let text = [&[3, 1], &told.tokens[..i]].concat();
            let logits = lm.logits(&text);
            let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            let exact: BTreeMap<Token, f64> =
                (0..30).map(|v| (v, f64::from(logits[v as usize]) - total.ln())).collect();
            let near = |v: Token, p: f32| (f64::from(p) - exact[&v]).abs() < 1e-5;
            prop_assert!(near(told_of.token, told_of.logprob));
            prop_assert_eq!(told_of.top.len(), top);
            prop_assert!(told_of.top.iter().all(|&(v, p)| near(v, p)));
            prop_assert!(told_of.top.is_sorted_by(|a, b| a.1 >= b.1));
            let best: Vec<Token> = told_of.top.iter().map(|top| top.0).collect();
            let least = told_of.top.last().map_or(f32::INFINITY, |last| last.1);
            prop_assert!((0..30).all(|v| best.contains(&v) || exact[&v] <= f64::from(least) + 1e-5));
        }
    }
}

#[test]
fn a_sampled_teacher_is_refused() {
    use cllm_decode::collect::{Collector, Job, Settings, States};
    let lm = Fake::new(Kind::Constant(1), 10, 100);
    let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    let request = Request { prompt: vec![1], max_new_tokens: 3, sampling, ..Request::default() };
    let settings = Settings {
        block: 4,
        states: States::Blocks,
        draft: cllm_decode::Draft::Context,
        seed: 0,
        rows: 8,
        prompts: 1,
    };
    let mut collector = Collector::new(settings).expect("sound settings");
    let pushed = collector.push(&lm, Job { id: 0, request, given: None });
    assert!(matches!(pushed, Err(LmError::BadSampling { .. })), "{pushed:?}");
}
