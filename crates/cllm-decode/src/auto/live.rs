//! What forwards cost now, which is not what they cost when T(n) was measured: the context has
//! grown, sampling works on each row, the machine is throttled or shared, or no longer.
//!
//! T(n) as it was told is corrected by two factors, from the clock of the forwards that run:
//!
//! ```text
//! now(n) = one T(1) + more (T(n) - T(1))
//! ```
//!
//! A forward of one row speaks of `one`, and if a forward of several ran shortly before, of it
//! alone; so the other way round. Otherwise both are moved alike, as most of what slows a
//! machine slows everything. When that has moved them far, a forward of one row is asked for as
//! *reference*: only it can tell a slow machine, on which rows pay as before, from dear rows.
//!
//! What disturbs a forward only ever adds to its time, and mostly disturbs one. So a forward that
//! took much longer than it should is believed if the next one of its kind did too.

use super::backoff::Backoff;
use crate::cost::CostModel;

/// How far a forward is followed when it took about what it should, as an exponent.
const GAIN: f64 = 0.25;
/// Times what was expected: a jump, which is followed at once.
const JUMP: f64 = 1.25;
/// Forwards for which the other kind is known.
const FRESH: usize = 16;
/// Times that forwards of several rows move what one row is believed to cost before it
/// is measured, and the most of them until it is in any case.
const DRIFT: (f64, usize) = (1.15, 512);
/// Forwards between two references, at least and at most.
const PAUSE: (usize, usize) = (8, 512);
/// Of the cost of one row: what further rows cost together before their time says much
/// of it.
const CLEAR: f64 = 0.1;
/// The least that rows are believed to cost, of what was told.
const LEAST: f64 = 0.05;

/// The two kinds of forward.
#[derive(Debug, Clone, Copy)]
enum Kind {
    One,
    Several,
}

/// T(n), corrected.
#[derive(Debug, Clone)]
pub(super) struct Live {
    told: CostModel,
    one: f64,
    more: f64,
    /// By kind: what the last forward took, if it was a jump that is not believed yet,
    /// in units of what one forward of its rows cost then.
    suspect: [Option<f64>; 2],
    /// By kind: forwards since the last one that was believed.
    since: [usize; 2],
    /// How far `one` has been moved by forwards of several rows.
    drift: f64,
    pause: Backoff,
}

fn patient() -> Backoff {
    Backoff::new(0, PAUSE.0, PAUSE.1)
}

impl Live {
    pub(super) fn new(told: CostModel) -> Self {
        let since = [FRESH; 2];
        Self { told, one: 1.0, more: 1.0, suspect: [None; 2], since, drift: 1.0, pause: patient() }
    }

    /// The cost of a forward of `rows` rows, at least 1.
    pub(super) fn cost(&self, rows: usize) -> f64 {
        let one = self.told.cost(1);
        self.one * one + self.more * (self.told.cost(rows) - one)
    }

    /// Whether the next forward should be one of a single row, to learn what that costs.
    pub(super) fn wants_reference(&self) -> bool {
        let one = Kind::One as usize;
        let far = self.drift.max(self.drift.recip()) > DRIFT.0 || self.suspect[one].is_some();
        far && self.pause.due() || self.since[one] >= DRIFT.1
    }

    /// A forward of `rows` rows took `took`, in the unit of the costs.
    pub(super) fn learn(&mut self, rows: usize, took: f64) {
        if !(took.is_finite() && took > 0.0) {
            return;
        }
        self.pause.pass();
        self.since.iter_mut().for_each(|since| *since += 1);
        let kind = if rows == 1 { Kind::One } else { Kind::Several };
        let Some(times) = self.believed(kind, took / self.cost(rows)) else { return };
        self.since[kind as usize] = 0;
        match kind {
            Kind::One => self.one_row(times),
            Kind::Several => self.several(rows, times),
        }
    }

    /// How far to follow a forward that took `ratio` times what it should have.
    fn believed(&mut self, kind: Kind, ratio: f64) -> Option<f64> {
        let before = self.suspect[kind as usize].take();
        if ratio <= JUMP {
            return Some(if ratio < JUMP.recip() { ratio } else { ratio.powf(GAIN) });
        }
        if before.is_none() {
            self.suspect[kind as usize] = Some(ratio);
        }
        before.map(|before| ratio.min(before))
    }

    fn one_row(&mut self, times: f64) {
        self.one *= times;
        if self.since[Kind::Several as usize] > FRESH {
            self.more *= times;
        }
        // A reference that says what was believed was not needed.
        if times.max(times.recip()) > JUMP {
            self.pause = patient();
        } else if self.drift != 1.0 {
            self.pause.failed();
        }
        self.drift = 1.0;
    }

    fn several(&mut self, rows: usize, times: f64) {
        if self.since[Kind::One as usize] > FRESH {
            self.one *= times;
            self.more *= times;
            self.drift *= times;
            return;
        }
        // What is missing, as a step along the gradient: where further rows cost little, noise
        // must not be taken for it.
        let one = self.told.cost(1);
        let span = self.told.cost(rows) - one;
        let missing = (times - 1.0) * self.cost(rows);
        let step = missing * span / (span * span + (CLEAR * one).powi(2));
        self.more = (self.more + step).max(LEAST);
    }
}
