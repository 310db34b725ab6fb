//! What prompt lookup is worth, by how many tokens matched.
//!
//! One token that stood before says little about the next; eight in a row are most likely a
//! passage that is being repeated. So each length of match has its own rates, and its own
//! pause after failures.

use super::backoff::Backoff;
use super::live::Live;
use super::rates::{Acceptance, Plan};

/// The least match of each class, and the first idea of how often its first guess is right.
const CLASSES: [(usize, f64); 5] = [(1, 0.2), (2, 0.35), (3, 0.5), (5, 0.65), (8, 0.8)];
/// Tokens looked for, at most.
pub(super) const KEY: usize = CLASSES[CLASSES.len() - 1].0;
/// Rows of a try of what is thought not to pay, and the first class that is tried.
const TRY: (usize, usize) = (3, 2);
/// Forwards between two such tries, at most.
const PAUSE: usize = 512;

#[derive(Debug, Clone)]
struct Class {
    rates: Acceptance,
    pause: Backoff,
}

fn fresh() -> Backoff {
    Backoff::new(0, 1, PAUSE)
}

/// The rates of prompt lookup.
#[derive(Debug, Clone)]
pub(super) struct Lookups {
    classes: Vec<Class>,
}

impl Lookups {
    pub(super) fn new() -> Self {
        let new = |(_, prior)| Class { rates: Acceptance::new(prior), pause: fresh() };
        Self { classes: CLASSES.into_iter().map(new).collect() }
    }

    /// Starts another request.
    pub(super) fn doubt(&mut self, seen: f64) {
        for class in &mut self.classes {
            class.rates.doubt(seen);
            class.pause = fresh();
        }
    }

    /// The class of a match of so many tokens; `None` without a match.
    pub(super) fn class(matched: usize) -> Option<usize> {
        CLASSES.iter().rposition(|&(least, _)| matched >= least)
    }

    /// What pays most, of up to `most` rows.
    pub(super) fn best(&self, class: usize, most: usize, costs: &Live) -> Plan {
        self.classes[class].rates.best(most, costs)
    }

    /// The rows of a try, if it is time for one.
    pub(super) fn due(&self, class: usize) -> Option<usize> {
        let (rows, first) = TRY;
        (class >= first && self.classes[class].pause.due()).then_some(rows)
    }

    /// A forward has passed.
    pub(super) fn pass(&mut self) {
        self.classes.iter_mut().for_each(|class| class.pause.pass());
    }

    /// A forward had `guesses` guesses of this class, of which the first `right` were right.
    pub(super) fn learn(&mut self, class: usize, guesses: usize, right: usize) {
        let class = &mut self.classes[class];
        class.rates.learn(guesses, right);
        if right > 0 {
            class.pause = fresh();
        } else {
            class.pause.failed();
        }
    }
}
