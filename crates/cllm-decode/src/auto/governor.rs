//! Who guesses next, and how much: the account and the choice.

use super::ages::Ages;
use super::backoff::Backoff;
use super::live::Live;
use super::lookup::{Lookups, Match};
use crate::cost::CostModel;
use crate::prompt_lookup::Place;

/// First guess of c_1, before anything is known: four or five rows at 4.5 % each.
const PRIOR: f64 = 0.5;
/// Share of the autoregressive time that may be lost.
const SHARE: f64 = 0.03;
/// Forwards of one row that may be lost besides, once: a request that loses them leaves the debt to
/// the next.
const ALLOWANCE: f64 = 4.0;
/// Forwards of one row that gains count for at most.
const CREDIT: f64 = 16.0;
/// Times what a forward should have taken: what goes to its account at most.
const DISTURBED: f64 = 1.5;
/// Forwards of a probe: Jacobi guesses need a few iterations to become good.
const PROBE: usize = 4;
/// Rows of a probe, at most, and what one of its forwards may cost, in forwards of one row.
const PROBE_ROWS: (usize, f64) = (8, 1.35);
/// Forwards until the first probe, and at most until any.
const PAUSE: (usize, usize) = (16, 512);
/// What is known of the rates from earlier requests counts as at most so many observations.
const KEPT: f64 = 6.0;

/// Who proposed the rows of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The decoder that is wrapped.
    Inner,
    /// Prompt lookup, with this match.
    Lookup(Match),
}

/// What has been seen, and what follows from it.
#[derive(Debug, Clone)]
pub(super) struct Governor {
    n: usize,
    costs: Live,
    inner: Ages,
    lookups: Lookups,
    pause: Backoff,
    /// Forwards left of the probe under way.
    probe: usize,
    /// Time over the autoregressive way, less gains up to the credit, in forwards of one row.
    regret: f64,
    /// Forwards that the autoregressive way would have taken.
    plain: f64,
    /// What the forward under way took, if there is a clock.
    measured: Option<f64>,
}

fn patient() -> Backoff {
    Backoff::new(PAUSE.0, PAUSE.0, PAUSE.1)
}

impl Governor {
    pub(super) fn new(n: usize, costs: CostModel) -> Self {
        Self {
            n,
            costs: Live::new(costs),
            inner: Ages::new(PRIOR),
            lookups: Lookups::new(),
            pause: patient(),
            probe: 0,
            regret: 0.0,
            plain: 0.0,
            measured: None,
        }
    }

    /// Starts another request: rates and the pause are a first idea of its own. Of the account it
    /// takes over what was lent and not paid back; all else is as new.
    pub(super) fn begin(&mut self) {
        self.inner.begin(KEPT);
        self.lookups.doubt(KEPT);
        self.pause.at_most(PAUSE.0 * 4);
        self.probe = 0;
        let debt = self.regret - SHARE * self.plain;
        (self.regret, self.plain) = (debt.clamp(0.0, ALLOWANCE), 0.0);
    }

    /// The most rows, of `wanted`, that the account allows.
    fn afforded(&self, wanted: usize) -> usize {
        let one = self.costs.cost(1);
        let limit = SHARE * (self.plain + 1.0) + ALLOWANCE;
        let fits = |&rows: &usize| self.regret + self.costs.cost(rows) / one - 1.0 <= limit;
        (2..=wanted).rev().find(fits).unwrap_or(1)
    }

    /// Rows of a forward of a probe.
    fn probe_rows(&self, most: usize) -> usize {
        let (rows, cost) = PROBE_ROWS;
        let limit = cost * self.costs.cost(1);
        let cheap = |&rows: &usize| rows <= 2 || self.costs.cost(rows) <= limit;
        (1..=rows.min(most)).rev().find(cheap).unwrap_or(1)
    }

    /// Who proposes the next forward, and with how much room. So many of the last tokens stood
    /// together before as `matched` says.
    pub(super) fn choose(&self, room: usize, matched: [(Place, usize); 2]) -> (Source, usize) {
        if self.costs.wants_reference() {
            return (Source::Inner, 1);
        }
        let most = self.n.min(room);
        let inner = self.inner.best(most, &self.costs);
        let matches = matched.map(Match::new);
        let matches = || matches.into_iter().flatten();
        // A probe is wide and not interrupted.
        let probing = self.probe > 0 || (self.pause.due() && inner.rows < self.probe_rows(most));
        let plans = matches().map(|found| (found, self.lookups.best(found, most, &self.costs)));
        let best = plans.reduce(|a, b| if b.1.rate > a.1.rate { b } else { a });
        if let Some((found, lookup)) = best
            && !probing
        {
            let rows = self.afforded(lookup.rows);
            if rows > 1 && lookup.rate > inner.rate {
                return (Source::Lookup(found), rows);
            }
        }
        let wanted = if probing { inner.rows.max(self.probe_rows(most)) } else { inner.rows };
        let rows = self.afforded(wanted);
        if rows > 1 {
            return (Source::Inner, rows);
        }
        // Nothing pays. A match that has not been tried for long is tried.
        let due = matches().find_map(|found| Some((found, self.lookups.due(found)?)));
        if let Some((found, wanted)) = due {
            let rows = self.afforded(wanted.min(most));
            if rows > 1 {
                return (Source::Lookup(found), rows);
            }
        }
        (Source::Inner, 1)
    }

    /// A forward of `rows` rows took `took`, in the unit of the costs.
    pub(super) fn took(&mut self, rows: usize, took: f64) {
        self.costs.learn(rows, took);
        self.measured = Some(took);
    }

    /// Learns from a forward of `rows` rows by `source` that settled `settled` tokens.
    pub(super) fn learn(&mut self, source: Source, rows: usize, settled: usize) {
        let believed = self.costs.cost(rows);
        // What it was, not what it should have been; but a disturbance is nobody's debt. One row is
        // what is compared with.
        let cost = match self.measured.take() {
            Some(took) if rows > 1 => took.min(DISTURBED * believed),
            _ => believed,
        };
        let spent = cost / self.costs.cost(1);
        self.plain += settled as f64;
        self.regret = (self.regret + spent - settled as f64).max(-CREDIT);
        self.lookups.pass();
        let (guesses, right) = (rows - 1, settled - 1);
        match source {
            Source::Lookup(found) => {
                // A little that lookup gives says nothing of what a wide window would.
                if rows < self.probe_rows(self.n) {
                    self.pause.pass();
                }
                self.lookups.learn(found, guesses, right);
                self.inner.replaced(guesses - right);
            }
            Source::Inner => {
                let narrow = rows < self.probe_rows(self.n);
                if narrow && self.probe == 0 {
                    self.pause.pass();
                }
                if self.probe == 0 && !narrow && self.pause.due() {
                    self.probe = PROBE;
                    self.inner.doubt(0.0);
                }
                self.inner.learn(guesses, right);
                if self.probe > 0 {
                    self.probed();
                }
            }
        }
    }

    /// A forward of a probe has passed. It paid if so many rows are what pays most from now on.
    fn probed(&mut self) {
        self.probe -= 1;
        if self.probe == 0 {
            if self.inner.best(self.n, &self.costs).rows >= self.probe_rows(self.n) {
                self.pause = patient();
            } else {
                self.pause.failed();
            }
        }
    }
}
