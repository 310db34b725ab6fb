//! A decoder that chooses its own rows: as many as pay, and none where none do.
//!
//! A forward of n rows settles S(n) tokens in the mean and takes T(n); what counts is
//! S(n) / T(n). T is measured for machine and model ([`CostModel`]). S depends on model,
//! text and, through the age of guesses, on n itself, so it is learnt as the answer grows:
//!
//! * **Hits.** `h_i`, how often the i-th guess is right where those before it were. A forward
//!   of n rows also tells what fewer rows would have settled, and gives a first idea of what
//!   more would: `S(n) = 1 + h_1 + h_1 h_2 + ..`. It flatters other n than the one in use, as
//!   a narrower window has guesses that were refined less often.
//! * **Arms.** For every n that has been in use, what its forwards did settle. The more of
//!   them, the more this counts against the first idea. Now and then the next wider n gets a
//!   turn.
//!
//! Guesses come from the Jacobi window, or, for a forward, from earlier text that ends as
//! this text does (prompt lookup), if that promises more: its hits are kept apart, by the
//! length of the match.
//!
//! Where nothing promises more than one row gives, forwards have one row, and cost what
//! autoregressive ones cost. Then, after a while that doubles with each failure, a few
//! forwards with a narrow window look whether the text has changed.
//!
//! What was learnt is kept, at half its weight, from one request to the next. All of it is
//! arithmetic on counts: the same requests give the same forwards.

use crate::batch::Batch;
use crate::chain::Chain;
use crate::cost::CostModel;
use crate::decoder::{Decoder, Verdict};
use crate::draft::Draft;
use crate::lm::{LmError, Output, Token};
use crate::lookup::Lookup;

/// Rows to choose from.
const ARMS: [usize; 11] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32];
/// An arm stays for so many forwards: a window takes a few to fill with refined guesses.
const STAY: usize = 4;
/// Evidence of this many forwards weighs as much as the first idea.
const TRUST: f64 = 6.0;
/// After so many choices the next wider arm gets a turn, as hits say little of wider
/// windows; after twice as many the next time, up to [`LONGEST_TRIAL`].
const TRIAL: usize = 6;
const LONGEST_TRIAL: usize = 96;
/// Weight that is left of an observation after each further one.
const DECAY: f64 = 0.97;
/// Before anything is known: the rate of the first guess, and how many observations that
/// is worth.
const FIRST_HIT: f64 = 0.4;
const FIRST_WEIGHT: f64 = 2.0;
/// Rows and number of the forwards that look again.
const PROBE_ROWS: usize = 4;
const PROBES: usize = 4;
/// One-row forwards before the first look, and the most before a later one.
const WAIT: usize = 64;
const LONGEST_WAIT: usize = 1024;
/// Longest n-gram looked up; longer matches are taken together.
const NGRAM: usize = 4;
/// Guesses of lookups grow again towards [`FIRST_HIT`] by so much for each forward without.
const FORGET: f64 = 0.998;

/// How often guesses are right, by their place.
#[derive(Debug, Clone, Default)]
struct Hits {
    /// Per place: weight of guesses right, and of all whose predecessors were right.
    counts: Vec<(f64, f64)>,
}

impl Hits {
    /// Of `guesses` guesses the first `right` were right.
    fn observe(&mut self, guesses: usize, right: usize) {
        let reached = guesses.min(right + 1);
        if self.counts.len() < reached {
            self.counts.resize(reached, (0.0, 0.0));
        }
        for (i, (hits, all)) in self.counts.iter_mut().take(reached).enumerate() {
            *hits = *hits * DECAY + f64::from(u8::from(i < right));
            *all = *all * DECAY + 1.0;
        }
    }

    fn fade(&mut self, by: f64) {
        for (hits, all) in &mut self.counts {
            (*hits, *all) = (*hits * by, *all * by);
        }
    }

    /// S(n) for n = 1, 2, ..: a place that is little known is like the one before it.
    fn settled(&self) -> impl Iterator<Item = f64> + '_ {
        let (mut hit, mut path, mut sum) = (FIRST_HIT, 1.0, 1.0);
        let first = std::iter::once(1.0);
        first.chain((0..).map(move |i| {
            let (hits, all) = self.counts.get(i).copied().unwrap_or((0.0, 0.0));
            hit = (hits + FIRST_WEIGHT * hit) / (all + FIRST_WEIGHT);
            path *= hit;
            sum += path;
            sum
        }))
    }
}

/// What forwards of one width did settle.
#[derive(Debug, Clone, Copy, Default)]
struct Arm {
    settled: f64,
    forwards: f64,
}

/// Where the guesses of a forward come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Nothing,
    /// The window; whether it had been filled before.
    Window {
        filled: bool,
    },
    /// A match of so many tokens.
    Lookup(usize),
}

/// The state of one decode, and what earlier ones have taught.
#[derive(Debug, Clone)]
pub struct Auto {
    costs: CostModel,
    max_rows: usize,
    seed: u64,
    chain: Chain,
    lookup: Lookup,
    window: Hits,
    /// By the length of the match, from 1.
    matches: [Hits; NGRAM],
    arms: [Arm; ARMS.len()],
    /// The arm in use, and for how many forwards more; none is one row.
    arm: Option<usize>,
    stay: usize,
    /// Choices until a wider arm gets a turn, and how many there were before the last one.
    until_trial: usize,
    trial: usize,
    source: Source,
    /// Tokens the last forward settled; 0 once the next window has been made.
    advanced: usize,
    /// One-row forwards since the last look, and how many there shall be.
    quiet: usize,
    wait: usize,
}

impl Auto {
    /// Up to `max_rows` rows a forward, 1 being autoregressive decoding. `seed` is for first
    /// guesses drawn from the text.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for no rows.
    pub fn new(costs: CostModel, max_rows: usize, seed: u64) -> Result<Self, LmError> {
        if max_rows == 0 {
            return Err(LmError::EmptyBlock);
        }
        Ok(Self {
            costs,
            max_rows,
            seed,
            chain: Chain::default(),
            lookup: Lookup::new(NGRAM),
            window: Hits::default(),
            matches: Default::default(),
            arms: Default::default(),
            arm: None,
            stay: 0,
            until_trial: TRIAL,
            trial: TRIAL,
            source: Source::Nothing,
            advanced: 0,
            quiet: 0,
            wait: WAIT,
        })
    }

    /// The rows the window has now.
    pub fn rows(&self) -> usize {
        self.arm.map_or(1, |arm| ARMS[arm].min(self.max_rows))
    }

    /// Settled tokens per time of each arm.
    fn worth(&self) -> impl Iterator<Item = f64> + '_ {
        let mut idea = self.window.settled().enumerate();
        ARMS.iter().zip(&self.arms).map(move |(&rows, arm)| {
            let idea = idea.find(|(i, _)| i + 1 == rows).map_or(1.0, |(_, settled)| settled);
            let settled = (arm.settled + TRUST * idea) / (arm.forwards + TRUST);
            settled / self.costs.of(rows)
        })
    }

    /// Settled tokens per time of one row.
    fn plain(&self) -> f64 {
        1.0 / self.costs.of(1)
    }

    /// Takes the arm that promises most, or none.
    fn choose(&mut self) {
        let usable = ARMS.iter().take_while(|&&rows| rows <= self.max_rows).count();
        let best = self.worth().take(usable).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let pays = best.filter(|&(_, worth)| worth > self.plain());
        let probe = ARMS.iter().position(|&rows| rows == PROBE_ROWS);
        let probe = probe.filter(|&arm| arm < usable);
        self.stay = STAY;
        self.arm = match pays {
            Some((arm, _)) => {
                (self.quiet, self.wait) = (0, WAIT);
                self.until_trial -= 1;
                let due = self.until_trial == 0;
                if due {
                    self.trial = (2 * self.trial).min(LONGEST_TRIAL);
                    self.until_trial = self.trial;
                }
                Some(arm + usize::from(due && arm + 1 < usable))
            }
            None if self.quiet >= self.wait && probe.is_some() => {
                self.quiet = 0;
                self.wait = (2 * self.wait).min(LONGEST_WAIT);
                self.stay = PROBES;
                probe
            }
            None => None,
        };
    }

    /// Guesses after earlier text, if they promise more than `worth`: where they start, how
    /// many, and the length of the match.
    fn looked_up(
        &mut self,
        text: &[Token],
        room: usize,
        worth: f64,
    ) -> Option<(usize, usize, usize)> {
        let found = self.lookup.find(text)?;
        let most = self.max_rows.min(room) - 1;
        let settled = self.matches[found.len - 1].settled().enumerate().skip(1).take(most);
        let worths =
            settled.map(|(guesses, settled)| (guesses, settled / self.costs.of(guesses + 1)));
        let (guesses, best) = worths.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (best > worth).then_some((found.at, guesses, found.len))
    }
}

impl Decoder for Auto {
    fn begin(&mut self) {
        self.chain.draft.clear();
        self.lookup.clear();
        self.window.fade(0.5);
        self.matches.iter_mut().for_each(|hits| hits.fade(0.5));
        for arm in &mut self.arms {
            (arm.settled, arm.forwards) = (arm.settled * 0.5, arm.forwards * 0.5);
        }
        (self.arm, self.stay, self.source, self.advanced) = (None, 0, Source::Nothing, 0);
        (self.quiet, self.wait) = (0, WAIT);
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        let filled = self.advanced > 0 && self.source != Source::Nothing;
        if self.advanced > 0 {
            let Chain { draft, output, .. } = &mut self.chain;
            draft.clear();
            draft.extend_from_slice(&output[self.advanced..]);
            self.advanced = 0;
            if self.stay == 0 {
                self.choose();
            }
        } else if self.stay == 0 {
            self.choose();
        }
        let worth = match self.arm {
            Some(arm) => self.worth().nth(arm).unwrap_or(0.0),
            None => 0.0,
        };
        let guesses = self.rows().min(room) - 1;
        let plain = self.plain();
        if let Some((at, guesses, len)) = self.looked_up(text, room, worth.max(plain)) {
            self.source = Source::Lookup(len);
            let draft = &mut self.chain.draft;
            draft.clear();
            // Where the earlier text ends the guesses themselves go on: a text that repeats
            // with a period does so again.
            draft.extend((at..at + guesses).map(|i| text[at + (i - at) % (text.len() - at)]));
        } else {
            let draft = &mut self.chain.draft;
            draft.truncate(guesses);
            while draft.len() < guesses {
                let guess = Draft::Context.guess(self.seed, text, draft);
                draft.push(guess);
            }
            self.source = if guesses > 0 { Source::Window { filled } } else { Source::Nothing };
        }
        self.chain.push(text, sequence, batch);
    }

    fn absorb(&mut self, first_row: usize, _batch: &Batch, output: &Output) -> Verdict<'_> {
        let settled = self.chain.read(first_row, output);
        self.advanced = settled;
        let guesses = self.chain.draft.len();
        self.stay = self.stay.saturating_sub(1);
        match self.source {
            Source::Nothing => {
                self.stay = 0;
                self.quiet += 1;
            }
            // First guesses of a window say nothing about it.
            Source::Window { filled } => {
                if filled {
                    self.window.observe(guesses, settled - 1);
                }
                let arm = self.arm.filter(|&arm| filled && ARMS[arm] == guesses + 1);
                if let Some(arm) = arm.map(|arm| &mut self.arms[arm]) {
                    arm.settled = arm.settled * DECAY + settled as f64;
                    arm.forwards = arm.forwards * DECAY + 1.0;
                }
            }
            Source::Lookup(len) => self.matches[len - 1].observe(guesses, settled - 1),
        }
        for (len, hits) in self.matches.iter_mut().enumerate() {
            if self.source != Source::Lookup(len + 1) {
                hits.fade(FORGET);
            }
        }
        self.chain.verdict(settled)
    }
}
