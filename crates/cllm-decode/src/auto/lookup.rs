//! What prompt lookup is worth, by how many tokens matched.
//!
//! One token that stood before says little about the next; eight in a row are most likely a
//! passage that is being repeated. So each length of match has its own rates, and its own
//! pause after failures; one in an earlier answer other ones than one in the text.

use super::backoff::Backoff;
use super::live::Live;
use super::rates::{Acceptance, Plan};
use crate::prompt_lookup::Place;

/// The least match of each class, and the first idea of how often its first guess is right.
const CLASSES: [(usize, f64); 5] = [(1, 0.2), (2, 0.35), (3, 0.5), (5, 0.65), (8, 0.8)];
/// Tokens looked for, at most.
pub(super) const KEY: usize = CLASSES[CLASSES.len() - 1].0;
/// Rows of a try of what is thought not to pay, and the first class that is tried.
const TRY: (usize, usize) = (3, 2);
/// Forwards between two such tries, at most.
const PAUSE: usize = 512;

/// A match: where, and which of the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) place: Place,
    class: usize,
}

impl Match {
    /// That of so many tokens; `None` of none.
    pub(super) fn new((place, tokens): (Place, usize)) -> Option<Self> {
        let class = CLASSES.iter().rposition(|&(least, _)| tokens >= least)?;
        Some(Self { place, class })
    }
}

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
    /// By place, then by length.
    classes: [Vec<Class>; 2],
}

impl Lookups {
    pub(super) fn new() -> Self {
        let new = |(_, prior)| Class { rates: Acceptance::new(prior), pause: fresh() };
        let classes: Vec<Class> = CLASSES.into_iter().map(new).collect();
        Self { classes: [classes.clone(), classes] }
    }

    fn at(&self, found: Match) -> &Class {
        &self.classes[found.place as usize][found.class]
    }

    /// Starts another request.
    pub(super) fn doubt(&mut self, seen: f64) {
        for class in self.classes.iter_mut().flatten() {
            class.rates.doubt(seen);
            class.pause = fresh();
        }
    }

    /// What pays most, of up to `most` rows.
    pub(super) fn best(&self, found: Match, most: usize, costs: &Live) -> Plan {
        self.at(found).rates.best(most, costs)
    }

    /// The rows of a try, if it is time for one.
    pub(super) fn due(&self, found: Match) -> Option<usize> {
        let (rows, first) = TRY;
        (found.class >= first && self.at(found).pause.due()).then_some(rows)
    }

    /// A forward has passed.
    pub(super) fn pass(&mut self) {
        self.classes.iter_mut().flatten().for_each(|class| class.pause.pass());
    }

    /// A forward had `guesses` guesses from this match, of which the first `right` were right.
    pub(super) fn learn(&mut self, found: Match, guesses: usize, right: usize) {
        let class = &mut self.classes[found.place as usize][found.class];
        class.rates.learn(guesses, right);
        if right > 0 {
            class.pause = fresh();
        } else {
            class.pause.failed();
        }
    }
}
