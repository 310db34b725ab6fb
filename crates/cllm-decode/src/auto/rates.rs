//! How often guesses are right, by their place, and the number of rows that follows from it.

use super::live::Live;

/// Forwards that a mean remembers, and those that show a change.
const MEMORY: (f64, f64) = (64.0, 8.0);
/// Standard deviations that are a change.
const CHANGE: f64 = 4.0;

/// A probability, as far as forwards have shown it: an exponentially decayed mean of about the
/// last sixty-four, or of the last eight as soon as those differ from it by four standard
/// deviations. Steady text wants a long memory, a turn a short one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mean {
    long: f64,
    short: f64,
    seen: f64,
}

impl Mean {
    pub(super) fn new(prior: f64) -> Self {
        Self { long: prior, short: prior, seen: 0.0 }
    }

    /// The probability.
    pub(super) fn value(&self) -> f64 {
        self.long
    }

    /// As if it rested on at most `seen` observations.
    pub(super) fn doubt(&mut self, seen: f64) {
        self.short = self.long;
        self.seen = self.seen.min(seen);
    }

    /// What the next observation weighs: the first a third against what was assumed.
    pub(super) fn weight(&self) -> f64 {
        1.0 / (self.seen + 3.0).min(MEMORY.0)
    }

    pub(super) fn learn(&mut self, yes: bool) {
        let value = f64::from(u8::from(yes));
        let (long, short) = (self.weight(), 1.0 / (self.seen + 3.0).min(MEMORY.1));
        self.long += long * (value - self.long);
        self.short += short * (value - self.short);
        self.seen += 1.0;
        // Variance of a decayed mean: that of one observation over (2 memory - 1). Near 0 and
        // 1 it is not believed.
        let p = self.long.clamp(0.05, 0.95);
        let deviation = (p * (1.0 - p) / (2.0 * MEMORY.1 - 1.0)).sqrt();
        if (self.short - self.long).abs() > CHANGE * deviation {
            (self.long, self.seen) = (self.short, self.seen.min(MEMORY.1));
        }
    }
}

/// A number of rows, and the tokens it is expected to settle in a unit of cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    pub(super) rows: usize,
    pub(super) rate: f64,
}

impl Plan {
    /// The number of rows up to `most` that gives the most tokens for the cost; 1 if more do not
    /// pay. `settled` is asked for the tokens of 2, 3, .. rows in turn.
    pub(super) fn best(most: usize, costs: &Live, mut settled: impl FnMut(usize) -> f64) -> Self {
        let mut best = Self { rows: 1, rate: 1.0 / costs.cost(1) };
        for rows in 2..=most {
            let rate = settled(rows) / costs.cost(rows);
            // A gain of less than half a percent is within the error of any estimate.
            if rate > best.rate * 1.005 {
                best = Self { rows, rate };
            }
        }
        best
    }
}

/// How often the guesses of one source are right, by their place.
#[derive(Debug, Clone)]
pub(super) struct Acceptance {
    /// First idea of c_1.
    prior: f64,
    /// `c_1, c_2, ..`: that of guess k is the probability that it is right if those before it are.
    conditional: Vec<Mean>,
}

impl Acceptance {
    pub(super) fn new(prior: f64) -> Self {
        Self { prior, conditional: Vec::new() }
    }

    /// A forward had `guesses` guesses, of which the first `right` were right.
    pub(super) fn learn(&mut self, guesses: usize, right: usize) {
        for k in 0..guesses.min(right + 1) {
            if k == self.conditional.len() {
                self.conditional.push(Mean::new(self.at(k)));
            }
            self.conditional[k].learn(k < right);
        }
    }

    /// `c_{k + 1}`. A place that no forward has reached is as the one before it, so that success
    /// widens the window.
    fn at(&self, k: usize) -> f64 {
        self.conditional.get(k).or(self.conditional.last()).map_or(self.prior, |mean| mean.long)
    }

    /// Lets what comes next count more than what is known: as if it rested on at most `seen`
    /// observations.
    pub(super) fn doubt(&mut self, seen: f64) {
        self.conditional.iter_mut().for_each(|mean| mean.doubt(seen));
    }

    /// The number of rows up to `most` that pays most.
    pub(super) fn best(&self, most: usize, costs: &Live) -> Plan {
        let (mut tokens, mut survives) = (1.0, 1.0);
        Plan::best(most, costs, |rows| {
            survives *= self.at(rows - 2);
            tokens += survives;
            tokens
        })
    }
}
