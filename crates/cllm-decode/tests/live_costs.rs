//! `auto` on a machine that is not, or no longer, the one whose costs it was told: a fake model
//! with a clock.

use cllm_decode::fake::{Fake, Kind};
use cllm_decode::{
    Auto, Batch, CausalLm, CostModel, Decoder, Draft, Driver, Jacobi, Output, Request, Sequence,
    Stream, Token, Verdict, stream,
};

/// What a forward costs, by its number and its rows.
type Costs = fn(usize, usize) -> f64;
/// The same, by its rows alone: what `auto` is told.
type Told = fn(usize) -> f64;

/// A row costs 4.5 % of a forward of one, as [`auto`] is told.
fn as_told(rows: usize) -> f64 {
    1.0 + 0.045 * (rows - 1) as f64
}

/// A throttled machine, as it was measured: 16 rows cost ten times one.
fn throttled(rows: usize) -> f64 {
    3.0 * (1.0 + 0.6 * (rows - 1) as f64)
}

/// `auto`, told so.
fn auto(told: Told) -> impl Decoder {
    let told = CostModel::new([(1, told(1)), (2, told(2))]).expect("sound");
    let jacobi = Jacobi::new(16, Draft::NGram, 3).expect("16 > 0");
    Auto::new(jacobi, 16, told).expect("16 > 0")
}

fn jacobi(n: usize) -> impl Decoder {
    Jacobi::new(n, Draft::NGram, 3).expect("n > 0")
}

/// Time of answers of `len` tokens in turn by one decoder, as the clock has it.
fn time(kind: Kind, costs: Costs, len: usize, decoder: &mut dyn Decoder) -> f64 {
    let mut fake = Fake { costs: Some(costs), ..Fake::new(kind, 40, 5_000) };
    for first in 0..4 {
        let request = Request { prompt: vec![first], max_new_tokens: len, ..Request::default() };
        let mut sequence = Sequence::new(fake.new_cache());
        stream::generate(&mut fake, &mut sequence, decoder, &request, &mut (), 512)
            .expect("a sound request");
    }
    fake.time
}

/// Between nothing and much to guess.
const TEXTS: [Kind; 4] = [
    Kind::ContextHash(5),
    Kind::Ripening { percent: 50, seed: 1 },
    Kind::Ripening { percent: 80, seed: 1 },
    Kind::Markov { order: 1, seed: 4 },
];

/// Whatever it was told, it is never much slower than one token a forward, and on the text there is
/// most to gain on about as fast as if it had been told the truth.
#[test]
fn costs_that_were_told_wrongly_are_put_right() {
    let machines: [(Told, Costs); 4] = [
        (as_told, |_, rows| as_told(rows)),
        (|rows| 3.0 * as_told(rows), |_, rows| 3.0 * as_told(rows)),
        (throttled, |_, rows| throttled(rows)),
        (|rows| 1.0 + 0.005 * (rows - 1) as f64, |_, rows| 1.0 + 0.005 * (rows - 1) as f64),
    ];
    for (truth, costs) in machines {
        for kind in TEXTS {
            let ar = time(kind, costs, 250, &mut jacobi(1));
            let right = time(kind, costs, 250, &mut auto(truth));
            // Told that rows are dear, it is slow to learn how cheap they are.
            for (told, limit) in [(as_told as Told, 1.1), (throttled, 1.3)] {
                let time = time(kind, costs, 250, &mut auto(told));
                let what = format!("{kind:?}, {} for 16 rows: {time}", truth(16) / truth(1));
                assert!(time <= 1.03 * ar, "{what}, AR {ar}");
                let clear = right < 0.25 * ar;
                assert!(!clear || time <= limit * right, "{what}, told the truth {right}");
            }
        }
    }
}

/// The account is kept in what forwards took, not in what they were said to.
#[test]
fn short_answers_on_a_machine_with_dear_rows_cost_little() {
    for slope in [0.1, 0.2, 0.4, 0.8] {
        let costs: Costs = match slope {
            0.1 => |_, rows| 1.0 + 0.1 * (rows - 1) as f64,
            0.2 => |_, rows| 1.0 + 0.2 * (rows - 1) as f64,
            0.4 => |_, rows| 1.0 + 0.4 * (rows - 1) as f64,
            _ => |_, rows| 1.0 + 0.8 * (rows - 1) as f64,
        };
        for kind in TEXTS {
            for len in [10, 40] {
                let (mut slow, mut one) = (auto(as_told), jacobi(1));
                let (mut spent, mut plain) = (0.0, 0.0);
                for round in 1..4 {
                    spent += time(kind, costs, len, &mut slow);
                    plain += time(kind, costs, len, &mut one);
                    let what = format!("{kind:?} {slope} {len} round {round}");
                    // The first forward of several rows is what they cost to learn.
                    let limit = 1.03 * plain + 4.0 + 4.0 * slope;
                    assert!(spent <= limit, "{what}: {spent} for {plain}");
                }
            }
        }
    }
}

/// A machine that is throttled in the middle of an answer, and let go again.
#[test]
fn a_machine_that_changes_is_followed() {
    let costs: Costs =
        |forward, rows| if (100..200).contains(&forward) { throttled(rows) } else { as_told(rows) };
    for kind in TEXTS {
        let ar = time(kind, costs, 1_000, &mut jacobi(1));
        let time = time(kind, costs, 1_000, &mut auto(as_told));
        assert!(time <= 1.02 * ar, "{kind:?}: {time}, AR {ar}");
    }
}

/// Single forwards that are disturbed say nothing of the machine.
#[test]
fn a_disturbance_is_not_a_change() {
    let costs: Costs = |forward, rows| as_told(rows) * if forward % 5 == 0 { 3.0 } else { 1.0 };
    for kind in TEXTS {
        let calm = time(kind, |_, rows| as_told(rows), 250, &mut auto(as_told));
        let time = time(kind, costs, 250, &mut auto(as_told));
        // Each fifth forward takes three times as long, with any choice.
        assert!(time <= 1.45 * calm, "{kind:?}: {time}, undisturbed {calm}");
    }
}

/// Counts what it is told.
#[derive(Debug)]
struct Spy<D> {
    inner: D,
    told: usize,
}

impl<D: Decoder> Decoder for Spy<D> {
    fn begin(&mut self) {
        self.inner.begin();
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        self.inner.propose(text, room, sequence, batch);
    }

    fn took(&mut self, cost: f64) {
        assert_eq!(cost, 2.0);
        self.told += 1;
    }

    fn absorb(&mut self, first_row: usize, batch: &Batch, output: &Output) -> Verdict<'_> {
        self.inner.absorb(first_row, batch, output)
    }
}

/// What a forward takes is no news of a request that shared it, nor of reading a prompt.
#[test]
fn only_forwards_of_one_request_count() {
    let fake = Fake::new(Kind::ContextHash(5), 40, 500);
    for (costs, lens, told) in [
        (Some((|_, _| 2.0) as Costs), vec![5], vec![4]),
        (Some((|_, _| 2.0) as Costs), vec![5, 8], vec![0, 3]),
        (None, vec![5], vec![0]),
    ] {
        let mut fake = Fake { costs, ..fake.clone() };
        let mut streams: Vec<_> = lens
            .into_iter()
            .map(|max_new_tokens| {
                let request = Request { prompt: vec![1], max_new_tokens, ..Request::default() };
                let sequence = Sequence::new(fake.new_cache());
                let spy = Spy { inner: jacobi(1), told: 0 };
                Stream::new(&fake, sequence, spy, request, ()).expect("a sound request")
            })
            .collect();
        let mut driver = Driver::default();
        while driver.step(&mut fake, &mut streams).expect("it runs") > 0 {}
        let spies = streams.into_iter().map(|stream| stream.into_parts().1.told);
        assert_eq!(spies.collect::<Vec<_>>(), told);
    }
}
