//! The theorem: every decoder gives the tokens that one token a forward gives, for any
//! model, prompt, window, draft, limit, stop and chunking, greedy or sampled.

mod case;
#[path = "../common/mod.rs"]
mod common;
mod ways;

use case::{Case, Watcher, cases, outcome};
use cllm_decode::fake::{Fake, FakeCache};
use cllm_decode::{
    Answer, Batch, CausalLm, Decoder, DecoderSpec, Jacobi, LmError, Output, PoolOptions,
    RecordedIteration, Recorder, Request, Sequence, Token, Want, ar, stream,
};
use common::samplings;
use proptest::prelude::*;
use ways::{Way, drafts, is_elastic, ways};

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
