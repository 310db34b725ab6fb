//! The contracts at the seams, one table each: what a batch may say, what a cache
//! keeps, what a draft guesses, what a request may ask.

#![expect(clippy::single_range_in_vec_init, reason = "peers are ranges, often a single one")]

use std::ops::Range;

use cllm_decode::fake::{Fake, FakeCache, Kind};
use cllm_decode::lm::argmax;
use cllm_decode::{
    AdapterId, Batch, CausalLm, Decoder, Draft, DraftModel, Jacobi, JacobiPool, KvCache, LmError,
    Lookahead, LookaheadOptions, Oracle, Output, PoolOptions, PromptLookup, Request, Row, Sampling,
    Sequence, Stats, Stream, Token, Want, ar, stream,
};
use proptest::prelude::*;

/// A fake whose vocabulary is 10 and whose context is 16.
fn fake() -> Fake {
    Fake::new(Kind::ContextHash(1), 10, 16)
}

fn row(sequence: usize, token: Token, position: usize, prefix: usize) -> Row {
    Row { sequence, token, position, prefix, want: Want::Argmax, adapter: None }
}

/// A cache that holds `tokens`.
fn cache_of(fake: &mut Fake, tokens: &[Token]) -> FakeCache {
    let mut cache = fake.new_cache();
    let mut batch = Batch::new();
    batch.push_causal(0, 0, tokens.iter().copied(), |_| Want::Nothing);
    fake.forward(&batch, &mut [&mut cache], &mut Output::new()).expect("a sound batch");
    cache.keep(&(0..tokens.len()).collect::<Vec<_>>());
    cache
}

/// Two caches of 3 and 2 entries, and rows with their peers: the error expected.
#[test]
fn bad_batches() {
    type Rows = Vec<(Row, Vec<Range<usize>>)>;
    fn check(rows: Rows, expected: &str) {
        let mut batch = Batch::new();
        for (row, peers) in rows {
            batch.push(row, &peers);
        }
        let error = batch.validate(&[3, 2], 10, 16).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error} does not say {expected}");
    }
    let sound = || (row(0, 1, 3, 3), vec![]);
    check(vec![(row(2, 1, 3, 3), vec![])], "row 0 of the batch: sequence 2 of 2 caches given");
    check(
        vec![sound(), (row(1, 1, 3, 3), vec![])],
        "row 1 of the batch: prefix 3 of a cache that holds 2",
    );
    check(vec![(row(0, 10, 3, 3), vec![])], "token 10 is not in the vocabulary of 10");
    check(vec![(row(0, 1, 16, 3), vec![])], "position 16 is beyond the context of 16");
    check(vec![sound(), (row(0, 1, 4, 3), vec![0..2])], "peers 0..2 out of order or not before it");
    check(vec![sound(), (row(0, 1, 4, 3), vec![7..9])], "peers 7..9 out of order");
    check(
        vec![sound(), sound(), (row(0, 1, 5, 3), vec![1..2, 0..1])],
        "row 2 of the batch: peers 0..1 out of order",
    );
    check(
        vec![sound(), sound(), (row(0, 1, 6, 3), vec![0..2, 1..2])],
        "row 2 of the batch: peers 1..2 out of order",
    );
    check(
        vec![sound(), (row(1, 1, 3, 2), vec![0..1])],
        "row 1 of the batch: peers 0..1 belong to another sequence",
    );
    // Also if rows of its own sequence lie around the stranger.
    check(
        vec![sound(), (row(1, 1, 2, 2), vec![]), (row(0, 1, 5, 3), vec![0..2])],
        "row 2 of the batch: peers 0..2 belong to another sequence",
    );
}

/// Sequences may interleave, and rows may skip rows.
#[test]
fn good_batches() {
    let mut batch = Batch::new();
    batch.push(row(0, 1, 3, 3), &[]);
    batch.push(row(1, 2, 2, 2), &[]);
    batch.push(row(0, 3, 4, 3), &[0..1]);
    batch.push(row(1, 4, 3, 2), &[1..2]);
    batch.push(row(0, 5, 5, 3), &[0..1, 2..3]);
    batch.push(row(0, 6, 2, 1), &[3..3, 4..4, 0..1]);
    assert_eq!(batch.validate(&[3, 2], 10, 16), Ok(()));
    assert_eq!(batch.peers(4), [0..1, 2..3]);
    assert_eq!((0..6).map(|i| batch.span_len(i)).collect::<Vec<_>>(), [4, 3, 5, 4, 6, 3]);

    let mut lm = fake();
    let (mut a, mut b) = (cache_of(&mut lm, &[7, 8, 9]), cache_of(&mut lm, &[4, 5]));
    let mut output = Output::new();
    lm.forward(&batch, &mut [&mut a, &mut b], &mut output).expect("a sound batch");
    assert_eq!(output.argmax(4), lm.next(&[7, 8, 9, 1, 3, 5]));
    assert_eq!(output.argmax(3), lm.next(&[4, 5, 2, 4]));
    // The cache keeps what was right, wherever it stood among its sequence's rows.
    a.keep(&[0, 1, 2]);
    b.keep(&[0]);
    assert!(a.tokens().eq([7, 8, 9, 1, 3, 5]));
    assert!(b.tokens().eq([4, 5, 2]));
}

#[test]
fn fakes_refuse_wrong_spans() {
    let mut lm = fake();
    let mut cache = cache_of(&mut lm, &[7, 8, 9]);
    let mut batch = Batch::new();
    batch.push(row(0, 1, 4, 3), &[]);
    let what = "position 4 sees 3 tokens".to_owned();
    let mut forward = |batch: &Batch| lm.forward(batch, &mut [&mut cache], &mut Output::new());
    assert_eq!(forward(&batch), Err(LmError::BadBatch { row: 0, what }));
    batch.clear();
    let adapter = Some(AdapterId(3));
    batch.push(Row { adapter, ..row(0, 1, 3, 3) }, &[]);
    assert_eq!(forward(&batch), Err(LmError::UnknownAdapter(AdapterId(3))));
}

/// Keeps `rows` of a forward that followed [7, 8, 9] with 1, a sibling 2, and 3 after the 2.
fn keep_of_tree(rows: &[usize]) -> Vec<Token> {
    let mut lm = fake();
    let mut cache = cache_of(&mut lm, &[7, 8, 9]);
    let mut batch = Batch::new();
    batch.push(row(0, 1, 3, 3), &[]);
    batch.push(row(0, 2, 3, 3), &[]);
    batch.push(row(0, 3, 4, 3), &[1..2]);
    lm.forward(&batch, &mut [&mut cache], &mut Output::new()).expect("a sound batch");
    cache.keep(rows);
    cache.tokens().skip(3).collect()
}

#[test]
fn keep_takes_a_branch() {
    assert_eq!(keep_of_tree(&[]), []);
    assert_eq!(keep_of_tree(&[0]), [1]);
    assert_eq!(keep_of_tree(&[1, 2]), [2, 3]);
}

#[test]
#[should_panic(expected = "row 2 saw another text")]
fn keep_refuses_a_row_that_saw_another_branch() {
    keep_of_tree(&[0, 2]);
}

#[test]
#[should_panic(expected = "row 1 saw another text")]
fn keep_refuses_siblings() {
    keep_of_tree(&[0, 1]);
}

#[test]
#[should_panic(expected = "not ascending")]
fn keep_refuses_disorder() {
    keep_of_tree(&[2, 1]);
}

#[test]
#[should_panic(expected = "row 3 of 3 pending")]
fn keep_refuses_rows_that_were_not() {
    keep_of_tree(&[3]);
}

#[test]
fn argmax_of_logits() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    for (logits, expected) in [
        (&[][..], None),
        (&[-3.0], Some(0)),
        (&[1.0, 2.0, 2.0], Some(1)),
        (&[-INF, -5.0, -INF], Some(1)),
        (&[-INF, -INF], None),
        (&[1.0, INF], None),
        (&[NAN, 1.0], None),
        (&[1.0, NAN], None),
    ] {
        assert_eq!(argmax(logits), expected, "{logits:?}");
    }
}

#[test]
fn draft_guesses() {
    let guess = |draft: Draft, text: &[Token], guesses: &[Token]| draft.guess(7, text, guesses);
    assert_eq!(guess(Draft::LastToken, &[1, 2, 3], &[8, 9]), 3);
    for (text, guesses, expected) in [
        // The longest match wins over a later, shorter one.
        (&[5, 6, 7, 1, 9, 6, 7, 2, 5, 6, 7][..], &[][..], 1),
        // The latest among equals.
        (&[6, 7, 1, 6, 7, 2, 6, 7], &[], 2),
        // Guesses count as text, to end a match and to be copied from.
        (&[1, 2, 3, 4, 1], &[2], 3),
        (&[1, 2], &[3, 3], 3),
        // Beyond eight tokens, later wins over longer.
        (
            &[
                9, 1, 1, 1, 1, 1, 1, 1, 1, 4, 0, 1, 1, 1, 1, 1, 1, 1, 1, 5, 9, 1, 1, 1, 1, 1, 1, 1,
                1,
            ],
            &[],
            5,
        ),
    ] {
        assert_eq!(guess(Draft::NGram, text, guesses), expected, "{text:?} {guesses:?}");
    }
    // No match: as from the context.
    assert_eq!(guess(Draft::NGram, &[1, 2, 3], &[]), guess(Draft::Context, &[1, 2, 3], &[]));
    // From the context: every token of it, and by position only.
    let text: Vec<Token> = (0..8).collect();
    let mut drawn: Vec<Token> =
        (0..200).map(|i| Draft::Context.guess(7, &text, &vec![0; i])).collect();
    assert_eq!(drawn[5], Draft::Context.guess(7, &text, &[1, 2, 3, 4, 5]));
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn, text);
    // The position is the absolute one: the draw is the same fraction of the text however
    // much of what lies before is settled.
    let text: Vec<Token> = (0..100).collect();
    for more in 0..50 {
        let settled = Draft::Context.guess(7, &text, &vec![0; more]);
        assert_eq!(settled / 2, Draft::Context.guess(7, &text[..50], &vec![0; 50 + more]));
    }
}

#[test]
fn draft_names() {
    for draft in Draft::ALL {
        assert_eq!(draft.to_string().parse(), Ok(draft));
    }
    let error = "Context".parse::<Draft>().expect_err("names are lower case");
    assert_eq!(error.to_string(), "unknown draft `Context`: expected context, last-token or ngram");
}

#[test]
fn bad_requests() {
    let check = |prompt: Vec<Token>, expected: LmError| {
        let mut lm = fake();
        let mut sequence = Sequence::new(cache_of(&mut lm, &[]));
        let request = Request { prompt, max_new_tokens: 0, ..Request::default() };
        let ar = ar::generate(&mut lm, &mut sequence, &request, &mut (), 512);
        assert_eq!(ar, Err(expected.clone()));
        let decoder = Jacobi::new(4, Draft::Context, 0).expect("4 > 0");
        let stream = Stream::new(&lm, sequence, decoder, request, ());
        assert_eq!(stream.err(), Some(expected));
    };
    check(vec![], LmError::EmptyPrompt);
    check(vec![0; 16], LmError::PromptTooLong { prompt: 16, context: 16 });
    check(vec![0, 10, 2], LmError::UnknownToken { token: 10, vocab: 10 });
    assert_eq!(Jacobi::new(0, Draft::Context, 0).err(), Some(LmError::EmptyBlock));
}

#[test]
fn sequences_align() {
    for (held, prompt, expected) in [
        (&[][..], &[1, 2][..], 0),
        (&[1, 2, 3], &[1, 2, 3, 4], 3),
        (&[1, 2, 3], &[1, 2, 3], 2),
        (&[1, 2, 3], &[1, 2], 1),
        (&[1, 2, 3], &[1, 5, 3], 1),
        (&[1, 2, 3], &[2, 2, 3], 0),
        (&[1, 2, 3], &[], 0),
    ] {
        let cache = cache_of(&mut fake(), held);
        let mut sequence = Sequence { cache, tokens: held.to_vec() };
        assert_eq!(sequence.align(prompt), expected, "{held:?} {prompt:?}");
        assert_eq!(sequence.tokens, held[..expected]);
        assert!(sequence.cache.tokens().eq(held[..expected].iter().copied()));
    }
}

/// Answers 1 + 24 tokens after [3, 8, 5, 4].
fn statistics(kind: Kind, decoder: &mut dyn Decoder, sampling: &Sampling) -> Stats {
    let mut lm = Fake::new(kind, 10, 100);
    let mut sequence = Sequence::new(lm.new_cache());
    let (prompt, sampling) = (vec![3, 8, 5, 4], sampling.clone());
    let request = Request { prompt, max_new_tokens: 25, sampling, ..Request::default() };
    let answer = stream::generate(&mut lm, &mut sequence, decoder, &request, &mut (), 512)
        .expect("a sound request");
    let mean = 24.0 / answer.stats.decode_forwards as f64;
    assert_eq!(answer.stats.mean_acceptance_length(), Some(mean));
    answer.stats
}

/// Windows of 8 rows; the forwards expected.
#[test]
fn known_forwards() {
    let check = |kind, draft, forwards: usize| {
        let mut decoder = Jacobi::new(8, draft, 0).expect("8 > 0");
        let stats = statistics(kind, &mut decoder, &Sampling::default());
        assert_eq!(stats.decode_forwards, forwards, "{kind:?} {draft}");
    };
    // Every guess right: the window's 8 tokens each time.
    check(Kind::Constant(6), Draft::LastToken, 3);
    check(Kind::Copy(1), Draft::LastToken, 3);
    check(Kind::Copy(4), Draft::NGram, 3);
    // States chase each other: every iteration settles one token, as AR does, no fewer.
    check(Kind::Cycle(10), Draft::LastToken, 24);
    assert_eq!(Stats::default().mean_acceptance_length(), None);
}

/// Forwards and rows of the other decoders.
#[test]
fn known_forwards_of_branches() {
    let check = |kind, decoder: &mut dyn Decoder, sampling: &Sampling, expected| {
        let stats = statistics(kind, decoder, sampling);
        assert_eq!((stats.decode_forwards, stats.decode_rows), expected, "{kind:?}");
    };
    let greedy = Sampling::default();
    let hot = Sampling { temperature: 1.5, presence_penalty: 0.5, seed: 3, ..greedy.clone() };
    let hash = Kind::ContextHash(2);
    // The same model drafts four tokens: all right, five a forward, greedy and sampled.
    for sampling in [&greedy, &hot] {
        let draft = Fake::new(hash, 10, 100);
        let mut decoder = DraftModel::new(draft, 4, 10, sampling.clone()).expect("sound");
        check(hash, &mut decoder, sampling, (5, 24));
    }
    // A draft model at the end of its context: one token a forward from there on.
    let draft = Fake::new(hash, 10, 10);
    let mut decoder = DraftModel::new(draft, 4, 10, greedy.clone()).expect("sound");
    check(hash, &mut decoder, &greedy, (19, 24));
    // No window, one candidate: what it settles comes from the branch alone.
    let options =
        PoolOptions { n: 1, candidates: 1, tokens: 3, ngram: 2, ..PoolOptions::default() };
    let mut decoder = JacobiPool::new(options, 0).expect("1 > 0");
    check(Kind::Copy(4), &mut decoder, &greedy, (6, 24));
    // Prompt lookup goes on with itself beyond the end of the text.
    check(Kind::Copy(4), &mut PromptLookup::new(3, 7), &greedy, (3, 24));
    // No match, no row.
    let cycle = Kind::Cycle(1_000);
    let mut lm = Fake::new(cycle, 1_000, 100);
    let request = Request { prompt: vec![5], max_new_tokens: 30, ..Request::default() };
    let mut sequence = Sequence::new(lm.new_cache());
    let mut decoder = PromptLookup::new(3, 7);
    let answer = stream::generate(&mut lm, &mut sequence, &mut decoder, &request, &mut (), 512)
        .expect("a sound request");
    assert_eq!(answer.stats.decode_rows, 29);
}

/// Lookahead makes its n-grams itself: a text that never repeats a prompt token but follows a
/// rule of the last token settles several tokens a forward.
#[test]
fn lookahead_finds_what_the_text_does_not_have() {
    let mut lm = Fake::new(Kind::Cycle(50), 50, 200);
    let request =
        Request { prompt: vec![0, 10, 20, 30, 40], max_new_tokens: 40, ..Request::default() };
    let mut run = |decoder: &mut dyn Decoder| {
        let mut sequence = Sequence::new(lm.new_cache());
        stream::generate(&mut lm, &mut sequence, decoder, &request, &mut (), 512)
            .expect("a sound request")
            .stats
    };
    let mut lookahead = Lookahead::new(LookaheadOptions::default(), 1).expect("sound");
    let stats = run(&mut lookahead);
    let w_and_g_and_n = (7 + 7) * 4;
    assert!(stats.decode_rows <= stats.decode_forwards * w_and_g_and_n);
    let jacobi = run(&mut Jacobi::new(28, Draft::Context, 1).expect("28 > 0"));
    assert!(stats.decode_forwards < 26, "{stats:?}");
    assert!(stats.decode_forwards < jacobi.decode_forwards, "{stats:?} {jacobi:?}");
}

/// Oracles are right as often as asked.
#[test]
fn oracles_err_on_purpose() {
    let mut lm = Fake::new(Kind::ContextHash(2), 100, 3_000);
    let request = Request { prompt: vec![5], max_new_tokens: 1_500, ..Request::default() };
    let mut sequence = Sequence::new(lm.new_cache());
    let ar = ar::generate(&mut lm, &mut sequence, &request, &mut (), 512).expect("sound");
    let text = [&request.prompt[..], &ar.tokens].concat();
    for (p, expected) in [(0.0, 1.0), (0.5, 1.9375), (0.8, 3.3616), (1.0, 5.0)] {
        let mut oracle = Oracle::new(text.clone(), 5, p, 9).expect("5 > 0");
        let mut sequence = Sequence::new(lm.new_cache());
        let answer = stream::generate(&mut lm, &mut sequence, &mut oracle, &request, &mut (), 512)
            .expect("sound");
        assert_eq!(answer.tokens, ar.tokens);
        let mean: f64 = answer.stats.mean_acceptance_length().expect("many forwards");
        assert!((mean / expected - 1.0).abs() < 0.06, "{p}: {mean}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// `truncate` is absolute and idempotent, and what is left is as if nothing else had
    /// ever been there.
    #[test]
    fn truncate_forgets(
        tokens in prop::collection::vec(0..10u32, 1..12),
        len in 0..14usize,
        next in 0..10u32,
    ) {
        let mut lm = fake();
        let mut cache = cache_of(&mut lm, &tokens);
        cache.truncate(len);
        let left = len.min(tokens.len());
        prop_assert!(cache.tokens().eq(tokens[..left].iter().copied()));
        for again in [len, len + 1, usize::MAX] {
            cache.truncate(again);
            prop_assert_eq!(cache.len(), left);
        }
        let mut batch = Batch::new();
        batch.push_causal(0, left, [next], |_| Want::Logits);
        let mut output = Output::new();
        lm.forward(&batch, &mut [&mut cache], &mut output).expect("a sound batch");
        let text = [&tokens[..left], &[next]].concat();
        prop_assert_eq!(output.argmax(0), lm.next(&text));
        prop_assert_eq!(argmax(output.logits(0)), Some(lm.next(&text)));
        // A truncation beyond the end drops what is pending all the same.
        cache.truncate(usize::MAX);
        cache.keep(&[]);
        prop_assert_eq!(cache.len(), left);
    }
}
