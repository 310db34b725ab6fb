//! The theorem: every decoder gives the tokens that one token a forward gives, for any
//! model, prompt, window, draft, limit, stop and chunking, greedy or sampled.

mod common;

use std::ops::ControlFlow;

use cllm_decode::fake::{Fake, FakeCache};
use cllm_decode::spec::Built;
use cllm_decode::{
    Answer, Auto, Batch, CausalLm, CostModel, Decoder, DecoderSpec, Draft, DraftModel, Finish,
    InFlight, Jacobi, LmError, Logprobs, LookaheadOptions, Observer, Oracle, Output, PoolOptions,
    PromptLookup, RecordedIteration, Recorder, Request, Sampler, Sampling, Sequence, Token, Want,
    ar, stream,
};
use common::{kinds, samplings};
use proptest::prelude::*;

/// Breaks at the given token of the answer, and records.
#[derive(Default)]
struct Watcher {
    break_at: Option<usize>,
    tokens: Vec<Token>,
    logprobs: Vec<Logprobs>,
    recorder: Recorder,
}

impl Observer for Watcher {
    fn token(&mut self, token: Token) -> ControlFlow<()> {
        self.tokens.push(token);
        if self.break_at == Some(self.tokens.len()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn logprobs(&mut self, logprobs: &Logprobs) {
        self.logprobs.push(logprobs.clone());
    }

    fn iteration(&mut self, iteration: &cllm_decode::Iteration<'_>) {
        self.recorder.iteration(iteration);
    }
}

/// One question to one model.
#[derive(Debug, Clone)]
struct Case {
    fake: Fake,
    request: Request,
    break_at: Option<usize>,
    chunk: usize,
}

/// How a decode ended: tokens and reason, or the error.
type Outcome = Result<(Vec<Token>, Finish), LmError>;

fn outcome(result: &Result<Answer, LmError>) -> Outcome {
    result.clone().map(|answer| (answer.tokens, answer.finish))
}

impl Case {
    /// The outcome by definition: no rows, no caches, no driver.
    fn expected(&self) -> Outcome {
        let (prompt, context) = (&self.request.prompt, self.fake.context);
        if prompt.is_empty() {
            return Err(LmError::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(LmError::PromptTooLong { prompt: prompt.len(), context });
        }
        let mut text = prompt.clone();
        let mut finish = (self.request.max_new_tokens == 0).then_some(Finish::MaxNewTokens);
        while finish.is_none() {
            if self.fake.nan_at == Some(text.len() - 1) {
                return Err(LmError::NotFinite { position: text.len() - 1 });
            }
            let token = self.choose(&text);
            text.push(token);
            let len = text.len() - prompt.len();
            if self.request.stop_tokens.contains(&token) {
                finish = Some(Finish::StopToken);
            } else if self.break_at == Some(len) {
                finish = Some(Finish::Observer);
            } else if len == self.request.max_new_tokens {
                finish = Some(Finish::MaxNewTokens);
            } else if text.len() == context {
                finish = Some(Finish::Context);
            }
        }
        Ok((text.split_off(prompt.len()), finish.expect("just set")))
    }

    /// The token after `text`.
    fn choose(&self, text: &[Token]) -> Token {
        let sampling = &self.request.sampling;
        if sampling.is_off() {
            return self.fake.next(text);
        }
        let mut sampler = Sampler::new(sampling.clone(), self.request.prompt.len());
        sampler.draw(&self.fake.logits(text), text, std::iter::empty())
    }

    fn watcher(&self) -> Watcher {
        Watcher { break_at: self.break_at, ..Watcher::default() }
    }
}

prop_compose! {
    fn cases()(
        vocab in prop_oneof![1..4u32, 4..40u32],
    )(
        kind in kinds(vocab),
        context in prop_oneof![1 => 1..50usize, 4 => 50..120usize],
        nan_at in prop::option::weighted(0.1, 0..90usize),
        prompt in prop::collection::vec(0..vocab, 0..50),
        max_new_tokens in prop_oneof![0..8usize, 8..100usize, Just(usize::MAX)],
        stop_tokens in prop_oneof![
            4 => Just(vec![]),
            2 => prop::collection::vec(0..vocab, 1..3),
        ],
        break_at in prop::option::weighted(0.2, 1..40usize),
        chunk in prop_oneof![1..9usize, Just(512usize)],
        sampling in prop_oneof![Just(Sampling::default()), samplings(vocab)],
        vocab in Just(vocab as usize),
    ) -> Case {
        let fake = Fake { nan_at, ..Fake::new(kind, vocab, context) };
        let request = Request { prompt, max_new_tokens, stop_tokens, sampling };
        Case { fake, request, break_at, chunk }
    }
}

fn drafts() -> impl Strategy<Value = Draft> {
    prop::sample::select(Draft::ALL.to_vec())
}

/// A decoder and what it is made of.
#[derive(Debug, Clone)]
enum Way {
    Named(DecoderSpec),
    /// Options that the names do not allow: prompt lookup with 0 of something, jacobi-pool
    /// without keys.
    Lookup(usize, usize, usize),
    Pool(PoolOptions),
    /// Another decoder inside, and costs that fall and rise.
    Auto {
        inner: Box<Way>,
        n: usize,
        slope: f64,
        history: usize,
    },
    /// A model of any kind, vocabulary, context and flaw.
    Model {
        fake: Fake,
        tokens: usize,
        sampling: Option<Sampling>,
    },
    /// Knows the answer, or some other text.
    Oracle {
        right: bool,
        n: usize,
        p: f64,
    },
}

impl Way {
    fn build(&self, case: &Case, seed: u64) -> Box<dyn Decoder> {
        let text = |right: bool| {
            let answer = if right { case.expected().map(|e| e.0) } else { Ok(vec![]) };
            [&case.request.prompt[..], &answer.unwrap_or_default()].concat()
        };
        match self.clone() {
            Self::Named(spec) => match spec.build(seed, &CostModel::default()).expect("sound") {
                Built::Decoder(decoder) => decoder,
                Built::Ar | Built::DraftModel { .. } => unreachable!("not drawn"),
            },
            Self::Lookup(ngram, tokens, history) => {
                Box::new(PromptLookup::new(ngram, tokens).remember(history))
            }
            Self::Pool(options) => {
                Box::new(cllm_decode::JacobiPool::new(options, seed).expect("sound"))
            }
            Self::Auto { inner, n, slope, history } => {
                let costs = CostModel::new([(1, 1.0), (9, 1.0 + slope)]).expect("sound");
                let auto = Auto::new(inner.build(case, seed), n, costs).expect("sound");
                Box::new(auto.remember(history))
            }
            Self::Model { fake, tokens, sampling } => {
                let sampling = match sampling {
                    Some(other) => Sampling { logit_bias: vec![], ..other },
                    None => case.request.sampling.clone(),
                };
                let vocab = case.fake.vocab;
                Box::new(DraftModel::new(fake, tokens, vocab, sampling).expect("sound"))
            }
            Self::Oracle { right, n, p } => {
                Box::new(Oracle::new(text(right), n, p, seed).expect("sound"))
            }
        }
    }
}

fn ways() -> impl Strategy<Value = Way> {
    let named = |spec| Way::Named(spec);
    let jacobi = (1..=40usize, drafts())
        .prop_map(move |(n, draft)| named(DecoderSpec::Jacobi { n, draft }))
        .boxed();
    let in_flight =
        (0..4usize, 0..=100usize).prop_map(|(blocks, spawn)| InFlight { blocks, spawn });
    let pool = (1..=20usize, 0..5usize, 0..8usize, 0..5usize, drafts(), in_flight)
        .prop_map(|(n, candidates, tokens, ngram, draft, in_flight)| {
            Way::Pool(PoolOptions { n, candidates, tokens, ngram, draft, in_flight })
        })
        .boxed();
    let lookahead = (1..9usize, 2..7usize, 0..9usize)
        .prop_map(move |(w, n, g)| named(DecoderSpec::Lookahead(LookaheadOptions { w, n, g })))
        .boxed();
    let history = || prop_oneof![Just(0usize), 1..400usize, Just(usize::MAX)];
    let lookup = (0..5usize, 0..12usize, history())
        .prop_map(|(ngram, tokens, history)| Way::Lookup(ngram, tokens, history));
    let inner = prop_oneof![jacobi.clone(), pool.clone(), lookahead.clone(), lookup.clone()];
    let auto =
        (inner, 1..20usize, 0.0..1.0f64, history()).prop_map(|(inner, n, slope, history)| {
            Way::Auto { inner: Box::new(inner), n, slope, history }
        });
    let model = (1..40u32)
        .prop_flat_map(|vocab| {
            let nan_at = prop::option::weighted(0.2, 0..90usize);
            let sampling = prop::option::weighted(0.3, samplings(vocab));
            (kinds(vocab), Just(vocab), 1..120usize, nan_at, 0..10usize, sampling)
        })
        .prop_map(|(kind, vocab, context, nan_at, tokens, sampling)| {
            let fake = Fake { nan_at, ..Fake::new(kind, vocab as usize, context) };
            Way::Model { fake, tokens, sampling }
        });
    let oracle = (any::<bool>(), 1..20usize, 0.0..1.2f64).prop_map(|(right, n, p)| Way::Oracle {
        right,
        n,
        p,
    });
    prop_oneof![jacobi, pool, lookahead, lookup, auto, model, oracle]
}

/// Replays a trace from its drafts and outputs alone.
fn replay(iterations: &[RecordedIteration]) -> Result<Vec<Token>, TestCaseError> {
    let mut tokens = Vec::new();
    for it in iterations {
        prop_assert_eq!(it.start, tokens.len());
        let right = it.draft.iter().zip(&it.output).take_while(|(g, a)| g == a).count();
        prop_assert!(it.settled <= it.output.len().min(right + 1));
        tokens.extend_from_slice(&it.output[..it.settled]);
    }
    Ok(tokens)
}

/// What holds of every answer: tokens, reports, trace, sequence and counts agree.
fn check_report(
    case: &Case,
    result: &Result<Answer, LmError>,
    watcher: &Watcher,
    sequence: &Sequence<FakeCache>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(&replay(&watcher.recorder.iterations)?, &watcher.tokens);
    prop_assert!(sequence.cache.tokens().eq(sequence.tokens.iter().copied()));
    let Ok(answer) = result else { return Ok(()) };
    prop_assert_eq!(&answer.tokens, &watcher.tokens);
    let stats = &answer.stats;
    if answer.tokens.is_empty() {
        prop_assert_eq!(stats, &cllm_decode::Stats::default());
        return Ok(());
    }
    let text = [&case.request.prompt[..], &answer.tokens].concat();
    prop_assert_eq!(&sequence.tokens[..], &text[..text.len() - 1]);
    prop_assert_eq!(stats.decode_tokens, answer.tokens.len() - 1);
    if case.fake.nan_at.is_none() {
        let forwards = stats.prefill_forwards + stats.decode_forwards;
        prop_assert_eq!(watcher.recorder.iterations.len(), forwards);
        let rows: usize = watcher.recorder.iterations.iter().map(|it| it.rows).sum();
        prop_assert_eq!(rows, stats.prefill_rows + stats.decode_rows);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// The oracle itself, against the definition.
    #[test]
    fn ar_is_the_definition(case in cases()) {
        let mut fake = case.fake.clone();
        let mut sequence = Sequence::new(fake.new_cache());
        let mut watcher = case.watcher();
        let result =
            ar::generate(&mut fake, &mut sequence, &case.request, &mut watcher, case.chunk);
        prop_assert_eq!(outcome(&result), case.expected());
        check_report(&case, &result, &watcher, &sequence)?;
        if let Ok(answer) = &result {
            prop_assert!(answer.stats.mean_acceptance_length().is_none_or(|mean| mean == 1.0));
            prop_assert_eq!(answer.stats.decode_rows, answer.stats.decode_forwards);
            let forwards = answer.stats.prefill_forwards + answer.stats.decode_forwards;
            prop_assert_eq!(fake.forwards, forwards);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn jacobi_is_ar(
        case in cases(),
        n in 1..=40usize,
        draft in drafts(),
        seed in any::<u64>(),
    ) {
        let mut fake = case.fake.clone();
        let mut sequence = Sequence::new(fake.new_cache());
        let ar =
            ar::generate(&mut fake, &mut sequence, &case.request, &mut case.watcher(), case.chunk);

        let mut fake = case.fake.clone();
        let mut sequence = Sequence::new(fake.new_cache());
        let mut watcher = case.watcher();
        let mut decoder = Jacobi::new(n, draft, seed).expect("n > 0");
        let jacobi = stream::generate(
            &mut fake, &mut sequence, &mut decoder, &case.request, &mut watcher, case.chunk,
        );

        prop_assert_eq!(outcome(&jacobi), outcome(&ar));
        check_report(&case, &jacobi, &watcher, &sequence)?;
        let (Ok(jacobi), Ok(ar)) = (jacobi, ar) else { return Ok(()) };
        if case.fake.nan_at.is_none() {
            prop_assert!(jacobi.stats.decode_forwards <= ar.stats.decode_forwards);
            prop_assert_eq!(jacobi.stats.prefill_forwards, ar.stats.prefill_forwards);
            prop_assert_eq!(jacobi.stats.prefill_rows, ar.stats.prefill_rows);
            // The window is full but for the answer's end, and no row is useless.
            let limit = case.request.max_new_tokens.min(case.fake.context - case.request.prompt.len());
            for it in watcher.recorder.iterations.iter().filter(|it| it.start > 0) {
                prop_assert_eq!(it.rows, n.min(limit - it.start));
            }
        }
        // A guess at a broken position costs a forward more, but no more than that.
        prop_assert!(jacobi.stats.decode_forwards <= 2 * ar.stats.decode_forwards);
        if n == 1 {
            prop_assert_eq!(jacobi.stats, ar.stats);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(15_000))]

    #[test]
    fn every_decoder_is_ar(case in cases(), way in ways(), seed in any::<u64>()) {
        let mut fake = case.fake.clone();
        let mut sequence = Sequence::new(fake.new_cache());
        let mut ar_watcher = case.watcher();
        let ar =
            ar::generate(&mut fake, &mut sequence, &case.request, &mut ar_watcher, case.chunk);

        let mut fake = case.fake.clone();
        let mut sequence = Sequence::new(fake.new_cache());
        let mut decoder = way.build(&case, seed);
        // Twice, as a decoder must forget what it learned.
        for _ in 0..2 {
            let mut watcher = case.watcher();
            let result = stream::generate(
                &mut fake, &mut sequence, &mut *decoder, &case.request, &mut watcher, case.chunk,
            );
            prop_assert_eq!(outcome(&result), outcome(&ar));
            prop_assert_eq!(&watcher.logprobs, &ar_watcher.logprobs);
            check_report(&case, &result, &watcher, &sequence)?;
            let (Ok(result), Ok(ar)) = (result, &ar) else { return Ok(()) };
            let retries = if case.fake.nan_at.is_none() { 1 } else { 2 };
            prop_assert!(result.stats.decode_forwards <= retries * ar.stats.decode_forwards);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    /// Several requests to one model, in one batch, some in prefill and some decoding.
    #[test]
    fn companions_change_nothing(
        case in cases(),
        others in prop::collection::vec(
            (prop::collection::vec(any::<u32>(), 1..30), 0..50usize, samplings(1), ways()), 0..4),
        way in ways(),
        seed in any::<u64>(),
    ) {
        let mut fake = Fake { nan_at: None, ..case.fake.clone() };
        let vocab = fake.vocab as u32;
        let mut all = vec![(case.request.clone(), way)];
        for (prompt, max_new_tokens, sampling, way) in others {
            let prompt = prompt.into_iter().map(|token| token % vocab).collect();
            let stop_tokens = case.request.stop_tokens.clone();
all.push((Request { prompt, max_new_tokens, stop_tokens, sampling }, way));
        }
        all.retain(|(request, ..)| {
            !request.prompt.is_empty() && request.prompt.len() < fake.context
        });
        let decoder = |request: &Request, way: &Way| {
            let fake = Fake { nan_at: None, ..case.fake.clone() };
            way.build(&Case { fake, request: request.clone(), ..case.clone() }, seed)
        };

        let mut streams = Vec::new();
        for (request, way) in &all {
            let sequence = Sequence::new(fake.new_cache());
            let decoder = decoder(request, way);
            let observer = Recorder::default();
            streams.push(
                stream::Stream::new(&fake, sequence, decoder, request.clone(), observer)
                    .expect("a request that fits"),
            );
        }
        let mut driver = stream::Driver::new(case.chunk);
        let mut read = 0;
        loop {
            let unfinished = driver.step(&mut fake, &mut streams).expect("no NaN");
            let now = streams.iter().map(|stream| stream.stats().prefill_rows).sum::<usize>();
            prop_assert!(now - read <= case.chunk, "prompt rows beyond the chunk");
            read = now;
            if unfinished == 0 {
                break;
            }
        }

        for (stream, (request, way)) in streams.into_iter().zip(all) {
            let (sequence, _, recorder, answer) = stream.into_parts();
            let answer = answer.expect("all have ended");
            let mut alone_sequence = Sequence::new(fake.new_cache());
            let mut alone_recorder = Recorder::default();
            let alone = stream::generate(
                &mut fake, &mut alone_sequence, &mut *decoder(&request, &way), &request,
                &mut alone_recorder, case.chunk,
            ).expect("no NaN");
            prop_assert_eq!(&answer.tokens, &alone.tokens);
            prop_assert_eq!(answer.finish, alone.finish);
            prop_assert_eq!(answer.stats.decode_forwards, alone.stats.decode_forwards);
            prop_assert_eq!(answer.stats.decode_rows, alone.stats.decode_rows);
            prop_assert_eq!(sequence.tokens, alone_sequence.tokens);
            let decode = |recorder: &Recorder| -> Vec<RecordedIteration> {
                recorder.iterations.iter().filter(|it| it.start > 0).cloned().collect()
            };
            prop_assert_eq!(decode(&recorder), decode(&alone_recorder));
        }
    }

    /// A conversation: the next prompt shares a random part of what the sequence holds.
    #[test]
    fn reuse_is_fresh(
        case in cases(),
        shared in 0..70usize,
        more in prop::collection::vec(any::<u32>(), 0..20),
        way in ways(),
        seed in any::<u64>(),
    ) {
        let mut fake = Fake { nan_at: None, ..case.fake.clone() };
        let mut sequence = Sequence::new(fake.new_cache());
        let mut decoder = way.build(&case, seed);
        let first = stream::generate(
            &mut fake, &mut sequence, &mut *decoder, &case.request, &mut case.watcher(), case.chunk,
        );
        let text: Vec<Token> = first.map(|a| a.tokens).unwrap_or_default();
        let mut prompt = [&case.request.prompt[..], &text].concat();
        prompt.truncate(shared);
        prompt.extend(more.iter().map(|token| token % fake.vocab as u32));
        let request = Request { prompt, ..case.request.clone() };

        let mut fresh_sequence = Sequence::new(fake.new_cache());
        let fresh = stream::generate(
            &mut fake, &mut fresh_sequence, &mut *decoder, &request, &mut (), case.chunk,
        );
        let held = sequence.clone();
        let reused = stream::generate(
            &mut fake, &mut sequence, &mut *decoder, &request, &mut (), case.chunk,
        );
        prop_assert_eq!(outcome(&reused), outcome(&fresh));
        let (Ok(reused), Ok(fresh)) = (reused, fresh) else { return Ok(()) };
        if request.max_new_tokens == 0 {
            prop_assert_eq!(&sequence.tokens, &held.tokens);
            return Ok(());
        }
        prop_assert_eq!(&sequence.tokens, &fresh_sequence.tokens);
        // One that learns begins the second time with what it learnt the first time.
        if !matches!(way, Way::Auto { .. } | Way::Lookup(_, _, 1..)) {
            prop_assert_eq!(reused.stats.decode_forwards, fresh.stats.decode_forwards);
        }
        let common = held.tokens.iter().zip(&request.prompt).take_while(|(a, b)| a == b).count();
        let read = request.prompt.len() - common.min(request.prompt.len() - 1);
        prop_assert_eq!(reused.stats.prefill_rows, read);
    }
}

/// Counts the rows that asked for all logits.
struct Spy {
    fake: Fake,
    logits: usize,
}

impl CausalLm for Spy {
    type Cache = FakeCache;

    fn vocab_size(&self) -> usize {
        self.fake.vocab_size()
    }

    fn context_length(&self) -> usize {
        self.fake.context_length()
    }

    fn new_cache(&self) -> FakeCache {
        self.fake.new_cache()
    }

    fn forward(
        &mut self,
        batch: &Batch,
        caches: &mut [&mut FakeCache],
        output: &mut Output,
    ) -> Result<(), LmError> {
        self.logits += batch.rows().iter().filter(|row| row.want == Want::Logits).count();
        self.fake.forward(batch, caches, output)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A decoder with nothing to guess is autoregressive decoding, row for row; and without
    /// sampling nobody asks for logits, whatever the decoder.
    #[test]
    fn off_means_off(case in cases(), way in ways(), draft in drafts(), seed in any::<u64>()) {
        let mut spy = Spy { fake: case.fake.clone(), logits: 0 };
        let mut run = |decoder: Option<&mut dyn Decoder>| {
            spy.logits = 0;
            let (mut sequence, mut watcher) = (Sequence::new(spy.new_cache()), case.watcher());
            let (request, chunk) = (&case.request, case.chunk);
            let result = match decoder {
                None => ar::generate(&mut spy, &mut sequence, request, &mut watcher, chunk),
                Some(decoder) => stream::generate(
                    &mut spy, &mut sequence, decoder, request, &mut watcher, chunk,
                ),
            };
            (result, watcher.recorder, spy.logits)
        };
        let (ar, trace, _) = run(None);
        let one = PoolOptions { n: 1, candidates: 0, draft, ..PoolOptions::default() };
        let model = Fake::new(cllm_decode::fake::Kind::Copy(1), case.fake.vocab, 100);
        for way in [
            Way::Named(DecoderSpec::Jacobi { n: 1, draft }),
            Way::Pool(one),
            Way::Lookup(0, 8, 100),
            Way::Lookup(3, 0, 100),
            Way::Auto { inner: Box::new(way.clone()), n: 1, slope: 0.1, history: 100 },
            Way::Model { fake: model, tokens: 0, sampling: None },
            Way::Oracle { right: true, n: 1, p: 1.0 },
        ] {
            if matches!(&way, Way::Auto { inner, .. } if !is_elastic(inner)) {
                continue;
            }
            let (off, off_trace, _) = run(Some(&mut *way.build(&case, seed)));
            if case.fake.nan_at.is_none() {
                prop_assert_eq!(&off, &ar, "{:?}", way);
                prop_assert_eq!(&off_trace, &trace, "{:?}", way);
            }
            prop_assert!(off_trace.iterations.iter().all(|it| it.start == 0 || it.rows == 1));
        }
        let (.., logits) = run(Some(&mut *way.build(&case, seed)));
        prop_assert!(logits == 0 || !case.request.sampling.is_off());
    }
}

/// Whether its rows are at most the room it is given.
fn is_elastic(way: &Way) -> bool {
    matches!(way, Way::Named(DecoderSpec::Jacobi { .. }) | Way::Lookup(..) | Way::Pool(..))
}
