//! What `auto` costs in simulated time, against one token a forward and against the best
//! fixed number of rows.

use cllm_decode::fake::{Fake, Kind};
use cllm_decode::{
    Auto, CausalLm, CostModel, Decoder, Draft, Jacobi, Oracle, PromptLookup, Recorder, Request,
    Sequence, Token, counter, stream,
};

/// Simulated time of the decode forwards.
fn time(
    fake: &mut Fake,
    request: &Request,
    decoder: &mut dyn Decoder,
    costs: &CostModel,
) -> (f64, Vec<Token>) {
    let mut sequence = Sequence::new(fake.new_cache());
    let mut recorder = Recorder::default();
    let answer = stream::generate(fake, &mut sequence, decoder, request, &mut recorder, 512)
        .expect("a sound request");
    let decode = recorder.iterations.iter().filter(|it| it.start > 0);
    (decode.map(|it| costs.cost(it.rows)).sum(), answer.tokens)
}

fn request(len: usize) -> Request {
    let prompt = (0..20).map(|i| counter::index(7, i, 1_000) as Token).collect();
    Request { prompt, max_new_tokens: len, ..Request::default() }
}

fn costs(slope: f64) -> CostModel {
    CostModel::new([(1, 1.0), (2, 1.0 + slope)]).expect("sound")
}

fn auto(n: usize, draft: Draft, costs: &CostModel) -> impl Decoder {
    Auto::new(Jacobi::new(n, draft, 3).expect("n > 0"), n, costs.clone()).expect("n > 0")
}

/// Nothing can be guessed: at most 3 % and four forwards over one token a forward, at any
/// time; and in a long text much less than the four.
#[test]
fn hostile_text_costs_little() {
    for (slope, draft) in
        [(0.01, Draft::Context), (0.045, Draft::NGram), (0.2, Draft::NGram), (1.0, Draft::Context)]
    {
        let costs = costs(slope);
        for kind in [Kind::ContextHash(5), Kind::Cycle(1_000)] {
            for len in [2, 10, 40, 150, 600, 1_500] {
                let mut fake = Fake::new(kind, 1_000, 5_000);
                let plain = (len - 1) as f64;
                let (time, _) =
                    time(&mut fake, &request(len), &mut auto(16, draft, &costs), &costs);
                let what = format!("{kind:?} {draft} {slope} {len}: {time} for {plain}");
                assert!(time <= 1.03 * plain + 4.0 + 1e-6, "{what}");
                assert!(len < 600 || time <= 1.03 * plain, "{what}");
            }
        }
    }
}

/// Whatever the text is like, also one that rewards rows and then punishes them.
#[test]
fn the_account_holds_when_the_text_turns() {
    let costs = costs(0.045);
    for period in [5, 20, 100, 400] {
        let mut fake = Fake::new(Kind::ContextHash(5), 1_000, 5_000);
        let request = request(1_200);
        let plain = &mut Jacobi::new(1, Draft::Context, 0).expect("1 > 0");
        let (ar, answer) = time(&mut fake, &request, plain, &costs);
        // The oracle's text is wrong in every second period.
        let mut text = [&request.prompt[..], &answer].concat();
        for (i, token) in text.iter_mut().enumerate() {
            if i / period % 2 == 1 {
                *token = (*token + 1) % 1_000;
            }
        }
        let oracle = Oracle::new(text, 16, 1.0, 0).expect("16 > 0");
        let mut auto = Auto::new(oracle, 16, costs.clone()).expect("16 > 0");
        let (time, tokens) = time(&mut fake, &request, &mut auto, &costs);
        assert_eq!(tokens, answer);
        assert!(time < 1.03 * ar + 4.0, "{period}: {time} for {ar}");
        assert!(period < 100 || time < 0.9 * ar, "it also gains, {period}: {time} for {ar}");
    }
}

/// Guesses that are right with a fixed probability: within 5 % of the best fixed number of
/// rows, which differs from case to case.
#[test]
fn predictable_text_is_near_the_best_fixed_number() {
    // Where a row costs a fifth of a forward, learning what pays is dear in a thousand tokens.
    for (slope, limit) in [(0.02, 1.05), (0.045, 1.05), (0.2, 1.08)] {
        let costs = costs(slope);
        for p in [0.0, 0.3, 0.6, 0.8, 0.9, 0.97, 1.0] {
            let mut fake = Fake::new(Kind::ContextHash(5), 1_000, 5_000);
            let request = request(1_000);
            let plain = &mut Jacobi::new(1, Draft::Context, 0).expect("1 > 0");
            let (_, answer) = time(&mut fake, &request, plain, &costs);
            let text = [&request.prompt[..], &answer].concat();
            let oracle = |n| Oracle::new(text.clone(), n, p, 1).expect("n > 0");
            let some = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32];
            let fixed = some.map(|n| time(&mut fake, &request, &mut oracle(n), &costs).0);
            let best = fixed.into_iter().fold(f64::INFINITY, f64::min);
            let mut auto = Auto::new(oracle(32), 32, costs.clone()).expect("32 > 0");
            let (time, _) = time(&mut fake, &request, &mut auto, &costs);
            assert!(time <= limit * best, "slope {slope}, p {p}: {time}, best {best}");
        }
    }
}

/// Real guesses, of texts that Jacobi decoding is good at.
#[test]
fn jacobi_is_near_its_best_fixed_number() {
    let costs = costs(0.045);
    for (kind, draft) in [
        (Kind::Constant(6), Draft::LastToken),
        (Kind::Copy(17), Draft::NGram),
        (Kind::Cycle(9), Draft::NGram),
        (Kind::Markov { order: 1, seed: 4 }, Draft::NGram),
        (Kind::Markov { order: 2, seed: 4 }, Draft::Context),
    ] {
        let mut fake = Fake::new(kind, 40, 5_000);
        let mut request = request(1_000);
        request.prompt.iter_mut().for_each(|token| *token %= 40);
        let fixed = (1..=16).map(|n| {
            let mut jacobi = Jacobi::new(n, draft, 3).expect("n > 0");
            time(&mut fake, &request, &mut jacobi, &costs).0
        });
        let best = fixed.min_by(f64::total_cmp).expect("16 of them");
        let (time, _) = time(&mut fake, &request, &mut auto(16, draft, &costs), &costs);
        assert!(time <= 1.05 * best, "{kind:?} {draft}: {time}, best {best}");
    }
}

/// A text that repeats itself, with an inner decoder that is of little use: a long match is worth
/// more than its guesses, whatever the inner decoder's middling rate is.
#[test]
fn long_matches_are_preferred_to_middling_guesses() {
    let costs = costs(0.045);
    let request = request(1_000);
    let mut fake = Fake::new(Kind::Cycle(100), 1_000, 5_000);
    let mut lookup = PromptLookup::new(8, 15);
    let (best, answer) = time(&mut fake, &request, &mut lookup, &costs);
    assert!(best < 250.0, "lookup is good at this: {best}");
    let text = [&request.prompt[..], &answer].concat();
    for p in [0.0, 0.3, 0.6] {
        let oracle = Oracle::new(text.clone(), 16, p, 1).expect("16 > 0");
        let mut auto = Auto::new(oracle, 16, costs.clone()).expect("16 > 0");
        let (time, _) = time(&mut fake, &request, &mut auto, &costs);
        assert!(time <= 1.05 * best, "{p}: {time}, lookup alone {best}");
    }
}

/// Guesses that get better in the window, in many short answers: a narrow window has bad guesses,
/// and a choice that looks at those alone stays narrow.
#[test]
fn guesses_that_ripen_are_given_room() {
    let costs = costs(0.045);
    for percent in [60, 70, 80] {
        let total = |decoder: &mut dyn Decoder| -> f64 {
            let text = |seed| Fake::new(Kind::Ripening { percent, seed }, 1_000, 100);
            (0..200).map(|i| time(&mut text(i), &request(30), decoder, &costs).0).sum()
        };
        let fixed = [1, 2, 3, 4, 6, 8, 10, 12, 16]
            .map(|n| total(&mut Jacobi::new(n, Draft::Context, 3).expect("n > 0")));
        let best = fixed.into_iter().fold(f64::INFINITY, f64::min);
        let time = total(&mut auto(16, Draft::Context, &costs));
        assert!(time <= 1.15 * best, "{percent} percent: {time}, best of {fixed:?}");
    }
}

/// After a hostile beginning a text that repeats itself is found again.
#[test]
fn probes_notice_that_the_text_has_changed() {
    let costs = costs(0.045);
    let mut fake = Fake::new(Kind::ContextHash(5), 1_000, 5_000);
    let request = request(2_000);
    let plain = &mut Jacobi::new(1, Draft::Context, 0).expect("1 > 0");
    let (_, answer) = time(&mut fake, &request, plain, &costs);
    // An oracle that knows nothing of the first thousand tokens, and then everything.
    let mut text = [&request.prompt[..], &answer].concat();
    text[..1_000].fill(999);
    let oracle = Oracle::new(text, 16, 1.0, 1).expect("16 > 0");
    let mut auto = Auto::new(oracle, 16, costs.clone()).expect("16 > 0");
    let (time, tokens) = time(&mut fake, &request, &mut auto, &costs);
    assert_eq!(tokens, answer);
    // 1,020 slowly, a pause of 512 at worst, and the rest at sixteen a forward of 1.7.
    assert!(time < 1.03 * 1_020.0 + 512.0 + 250.0, "{time}");
}

/// Answers may be shorter than learning takes: what one has shown serves the next.
#[test]
fn short_answers_learn_from_each_other() {
    let costs = costs(0.045);
    let mut fake = Fake::new(Kind::ContextHash(5), 1_000, 5_000);
    let (_, answer) =
        time(&mut fake, &request(25), &mut Jacobi::new(1, Draft::Context, 0).expect("1"), &costs);
    let text = [&request(25).prompt[..], &answer].concat();
    let all_right = || Oracle::new(text.clone(), 16, 1.0, 0).expect("16 > 0");
    let new = || Auto::new(all_right(), 16, costs.clone()).expect("16 > 0");
    let mut once = || time(&mut fake, &request(25), &mut new(), &costs).0;
    let alone = once();
    let mut auto = new();
    let mut fake = Fake::new(Kind::ContextHash(5), 1_000, 5_000);
    let in_turn: Vec<f64> =
        (0..5).map(|_| time(&mut fake, &request(25), &mut auto, &costs).0).collect();
    assert_eq!(in_turn[0], alone);
    assert!(in_turn[4] < 0.8 * alone, "{in_turn:?}");
    // And where it no longer holds, the account does.
    let hostile = Fake::new(Kind::ContextHash(6), 1_000, 5_000);
    let (after, _) = time(&mut hostile.clone(), &request(150), &mut auto, &costs);
    assert!(after <= 1.03 * 149.0 + 4.0 + 1e-6, "{after}");
}

/// The four forwards are lent once, and not for every short answer anew.
#[test]
fn many_short_answers_cost_little_too() {
    for slope in [0.045, 0.2] {
        let costs = costs(slope);
        let mut auto = auto(16, Draft::NGram, &costs);
        let (mut spent, mut plain) = (0.0, 0.0);
        for seed in 0..60 {
            let mut fake = Fake::new(Kind::ContextHash(5 + seed), 1_000, 5_000);
            spent += time(&mut fake, &request(60), &mut auto, &costs).0;
            plain += 59.0;
            assert!(spent <= 1.03 * plain + 4.0 + 1e-6, "{slope} {seed}: {spent} for {plain}");
        }
    }
}

/// What was answered before is answered again in a fraction of the time, also by other tokens
/// before it; and without a memory it is not.
#[test]
fn earlier_answers_are_guesses() {
    let costs = costs(0.045);
    let in_turn = |history: usize| -> Vec<f64> {
        let jacobi = Jacobi::new(16, Draft::NGram, 3).expect("16 > 0");
        let mut auto = Auto::new(jacobi, 16, costs.clone()).expect("16 > 0").remember(history);
        // The next token depends on the last five alone.
        let mut fake = Fake::new(Kind::Markov { order: 5, seed: 1 }, 1_000, 5_000);
        let asked = |first: Token| {
            let mut request = request(200);
            request.prompt[0] = first;
            request
        };
        (0..5).map(|i| time(&mut fake, &asked(i), &mut auto, &costs).0).collect()
    };
    let (with, without) = (in_turn(1 << 16), in_turn(0));
    assert!(with[0] <= 1.03 * 199.0 + 4.0 && with[4] < 0.2 * 199.0, "{with:?}");
    assert!(without.iter().all(|&time| time >= 199.0), "{without:?}");
}

/// A memory full of answers that begin alike and go on otherwise.
#[test]
fn a_memory_that_misleads_costs_little() {
    let costs = costs(0.045);
    let jacobi = Jacobi::new(16, Draft::NGram, 3).expect("16 > 0");
    let mut auto = Auto::new(jacobi, 16, costs.clone()).expect("16 > 0").remember(1 << 16);
    // Few tokens, so that some three of any stood together before, and a next one that
    // depends on five.
    for seed in 0..12 {
        let mut fake = Fake::new(Kind::Markov { order: 5, seed: 1 }, 12, 5_000);
        let mut request = request(600);
        request.prompt.iter_mut().for_each(|token| *token = (*token + seed) % 12);
        let (time, _) = time(&mut fake, &request, &mut auto, &costs);
        assert!(time <= 1.03 * 599.0 + 4.0 + 1e-6, "{seed}: {time}");
    }
}
