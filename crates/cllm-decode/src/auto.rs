//! Choosing the number of rows, forward by forward: as many as pay, and none where nothing does.
//!
//! Rows are guesses, guesses are right at a rate that changes within an answer, and a row costs
//! time. `Auto` wraps a decoder that pushes as many rows as it is given room for, and gives
//! it the room n that maximises
//!
//! ```text
//! expected tokens    1 + s_1 + s_2 + .. + s_{n-1}
//! --------------- =  ----------------------------      s_k = c_1 c_2 .. c_k
//!      cost                     T(n)
//! ```
//!
//! T is the machine's [`CostModel`]; c_k, the probability that guess k is right if those
//! before it are, is an exponentially decayed mean of what forwards have shown, about the last
//! sixty-four that got that far; or the last eight, as soon as those differ from it by four
//! standard deviations: steady text wants a long memory, a turn a short one. A depth that no forward has reached is taken to be as the one before it, so
//! that success widens the window.
//!
//! When n = 1 is best, decoding is autoregressive and teaches nothing. So `Auto` *probes*: a
//! few forwards of several rows, after a pause that doubles with each probe that did not pay.
//! In between, where the last three tokens stood together before, prompt lookup is tried
//! as a cheaper probe, with statistics and pauses of its own.
//!
//! **What it may cost** is not left to estimates. Account is kept of time spent over the
//! autoregressive way, `sum T(rows) - settled T(1)`, and a forward of several rows runs only
//! if, should it settle a single token, that stays below 3 % of the autoregressive time plus the
//! cost of four forwards. Gains count against it, but no more than sixteen forwards of
//! them: a good beginning does not pay for a bad end.
//!
//! Costs are those of a forward that carries this request alone. Among others a row costs less
//! than it is thought to, so choices are then on the careful side.
//!
//! What one request has shown of the rates is where the next one begins: answers are often
//! shorter than learning takes. It counts little against what that request shows itself.
//!
//! Deterministic: no clock, and the same requests give the same choices.

use crate::batch::Batch;
use crate::cost::CostModel;
use crate::decoder::{Decoder, Verdict};
use crate::lm::{LmError, Output, Token};
use crate::prompt_lookup::PromptLookup;

/// Forwards that a mean remembers, and those that show a change.
const MEMORY: (f64, f64) = (64.0, 8.0);
/// Standard deviations that are a change.
const CHANGE: f64 = 4.0;
/// First guess of c_1, before anything is known: four or five rows at 4.5 % each.
const PRIOR: f64 = 0.5;
/// Share of the autoregressive time that may be lost.
const SHARE: f64 = 0.03;
/// Forwards of one row that may be lost besides.
const ALLOWANCE: f64 = 4.0;
/// Forwards of one row that gains count for at most.
const CREDIT: f64 = 16.0;
/// Forwards of a probe: Jacobi guesses need a few iterations to become good.
const PROBE: usize = 4;
/// Rows of a probe, at most, and what one of its forwards may cost, in forwards of one row.
const PROBE_ROWS: (usize, f64) = (8, 1.35);
/// Forwards until the first probe, and at most until any.
const PAUSE: (usize, usize) = (16, 512);
/// What is known of the rates from earlier requests counts as at most so many observations.
const KEPT: f64 = 6.0;
/// Tokens that must have stood together before for prompt lookup to be tried.
const LOOKUP_MATCH: usize = 3;
/// Tokens that it looks for, at most.
const LOOKUP_KEY: usize = 8;
/// Its guesses, at most.
const LOOKUP_TOKENS: usize = 7;
/// Rows of a try.
const LOOKUP_PROBE: usize = 4;

/// A probability, as far as forwards have shown it.
#[derive(Debug, Clone, Copy)]
struct Mean {
    long: f64,
    short: f64,
    seen: f64,
}

impl Mean {
    fn new(prior: f64) -> Self {
        Self { long: prior, short: prior, seen: 0.0 }
    }

    fn learn(&mut self, yes: bool) {
        let value = f64::from(u8::from(yes));
        // The first observation weighs a third against what was assumed.
        let weight = |memory: f64| 1.0 / (self.seen + 3.0).min(memory);
        let (long, short) = (weight(MEMORY.0), weight(MEMORY.1));
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

/// How often guesses are right, by their place.
#[derive(Debug, Clone, Default)]
struct Acceptance {
    /// c_1, c_2, ..
    conditional: Vec<Mean>,
}

impl Acceptance {
    /// A forward had `guesses` guesses, of which the first `right` were right.
    fn learn(&mut self, guesses: usize, right: usize) {
        for k in 0..guesses.min(right + 1) {
            if k == self.conditional.len() {
                self.conditional.push(Mean::new(self.at(k)));
            }
            self.conditional[k].learn(k < right);
        }
    }

    fn at(&self, k: usize) -> f64 {
        self.conditional.get(k).or(self.conditional.last()).map_or(PRIOR, |mean| mean.long)
    }

    /// Lets what comes next count more than what is known: as if it rested on at most `seen`
    /// observations.
    fn doubt(&mut self, seen: f64) {
        for mean in &mut self.conditional {
            mean.short = mean.long;
            mean.seen = mean.seen.min(seen);
        }
    }

    /// The number of rows up to `most` that gives the most tokens for the cost; 1 if more do not
    /// pay.
    fn best(&self, most: usize, costs: &CostModel) -> usize {
        let (mut best, mut rate) = (1, 1.0 / costs.cost(1));
        let (mut tokens, mut survives) = (1.0, 1.0);
        for rows in 2..=most {
            survives *= self.at(rows - 2);
            tokens += survives;
            let now = tokens / costs.cost(rows);
            // A gain of less than half a percent is within the error of any estimate.
            if now > rate * 1.005 {
                (best, rate) = (rows, now);
            }
        }
        best
    }
}

/// When to try again what did not pay.
#[derive(Debug, Clone)]
struct Backoff {
    /// Forwards left to wait.
    wait: usize,
    /// How long the last wait was.
    pause: usize,
}

impl Backoff {
    fn new(wait: usize, pause: usize) -> Self {
        Self { wait, pause }
    }

    /// Whether it is time.
    fn due(&self) -> bool {
        self.wait == 0
    }

    /// A forward has passed.
    fn pass(&mut self) {
        self.wait = self.wait.saturating_sub(1);
    }

    /// It did not pay: wait twice as long as before.
    fn failed(&mut self) {
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.wait = self.pause;
    }
}

/// Who proposed the rows of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Inner,
    Lookup,
}

/// What has been seen, and what follows from it.
#[derive(Debug, Clone)]
struct Governor {
    n: usize,
    costs: CostModel,
    inner_rate: Acceptance,
    lookup_rate: Acceptance,
    inner_pause: Backoff,
    lookup_pause: Backoff,
    /// Forwards left of the probe under way, with the time it saved and its cost so far.
    probe: usize,
    probe_gain: (f64, f64),
    /// Time over the autoregressive way, less gains up to the credit.
    regret: f64,
    /// Time that the autoregressive way would have taken.
    plain: f64,
    source: Source,
    /// Rows of the forward under way.
    rows: usize,
    /// Whether the inner decoder's last forward had guesses: it then holds more of them, which
    /// another decoder's forward would put in the wrong place.
    guessing: bool,
}

impl Governor {
    fn new(n: usize, costs: CostModel) -> Self {
        Self {
            n,
            costs,
            inner_rate: Acceptance::default(),
            lookup_rate: Acceptance::default(),
            inner_pause: Backoff::new(PAUSE.0, PAUSE.0),
            lookup_pause: Backoff::new(0, 1),
            probe: 0,
            probe_gain: (0.0, 0.0),
            regret: 0.0,
            plain: 0.0,
            source: Source::Inner,
            rows: 0,
            guessing: false,
        }
    }

    /// Starts another request: rates are a first idea of its own, all else is as new.
    fn begin(&mut self) {
        let mut inner_rate = std::mem::take(&mut self.inner_rate);
        let mut lookup_rate = std::mem::take(&mut self.lookup_rate);
        inner_rate.doubt(KEPT);
        lookup_rate.doubt(KEPT);
        *self = Self { inner_rate, lookup_rate, ..Self::new(self.n, self.costs.clone()) };
    }

    /// The most rows, of `wanted`, that the account allows.
    fn afforded(&self, wanted: usize) -> usize {
        let one = self.costs.cost(1);
        let limit = SHARE * (self.plain + one) + ALLOWANCE * one;
        let fits = |&rows: &usize| self.regret + self.costs.cost(rows) - one <= limit;
        (2..=wanted).rev().find(fits).unwrap_or(1)
    }

    /// Rows of a forward of a probe.
    fn probe_rows(&self, most: usize) -> usize {
        let (rows, cost) = PROBE_ROWS;
        let limit = cost * self.costs.cost(1);
        let cheap = |&rows: &usize| rows <= 2 || self.costs.cost(rows) <= limit;
        (1..=rows.min(most)).rev().find(cheap).unwrap_or(1)
    }

    /// Who proposes the next forward, and with how much room. `matched` looks for the last
    /// tokens in the text.
    fn choose(&self, room: usize, matched: impl FnOnce() -> usize) -> (Source, usize) {
        let most = self.n.min(room);
        let probing = self.probe > 0 || self.inner_pause.due();
        let wanted = match self.inner_rate.best(most, &self.costs) {
            1 if probing => self.probe_rows(most),
            best => best,
        };
        let rows = self.afforded(wanted);
        if rows > 1 || most == 1 || self.guessing {
            return (Source::Inner, rows);
        }
        let wanted = match self.lookup_rate.best(most.min(LOOKUP_TOKENS + 1), &self.costs) {
            1 if self.lookup_pause.due() => LOOKUP_PROBE.min(most),
            best => best,
        };
        let rows = self.afforded(wanted);
        if rows > 1 && matched() >= LOOKUP_MATCH {
            return (Source::Lookup, rows);
        }
        (Source::Inner, 1)
    }

    /// Learns from the forward under way: it settled `settled` tokens.
    fn learn(&mut self, settled: usize) {
        let (one, cost) = (self.costs.cost(1), self.costs.cost(self.rows));
        let plain = settled as f64 * one;
        self.plain += plain;
        self.regret = (self.regret + cost - plain).max(-CREDIT * one);
        let (guesses, right) = (self.rows - 1, settled - 1);
        match self.source {
            Source::Lookup => {
                self.inner_pause.pass();
                self.lookup_rate.learn(guesses, right);
                if right > 0 {
                    self.lookup_pause = Backoff::new(0, 1);
                } else {
                    self.lookup_pause.failed();
                }
            }
            Source::Inner => {
                self.lookup_pause.pass();
                self.guessing = guesses > 0;
                if guesses == 0 {
                    self.inner_pause.pass();
                    return;
                }
                if self.probe == 0 && self.inner_pause.due() {
                    self.probe = PROBE;
                    self.probe_gain = (0.0, 0.0);
                    self.inner_rate.doubt(0.0);
                }
                self.inner_rate.learn(guesses, right);
                if self.probe > 0 {
                    self.probed(plain, cost);
                }
            }
        }
    }

    /// A forward of a probe has passed.
    fn probed(&mut self, plain: f64, cost: f64) {
        self.probe -= 1;
        self.probe_gain.0 += plain;
        self.probe_gain.1 += cost;
        if self.probe == 0 {
            if self.probe_gain.0 > self.probe_gain.1 {
                self.inner_pause = Backoff::new(PAUSE.0, PAUSE.0);
            } else {
                self.inner_pause.failed();
            }
        }
    }
}

/// A decoder that gives `D` as much room as pays. `D` is one that pushes at most as many rows
/// as it has room, in one chain, like [`Jacobi`](crate::Jacobi); with branches, rows are
/// taken for guesses that were wrong, and too few are given.
#[derive(Debug, Clone)]
pub struct Auto<D> {
    inner: D,
    lookup: PromptLookup,
    governor: Governor,
}

impl<D: Decoder> Auto<D> {
    /// Wraps `inner`, giving it at most `n` rows. With `n` 1 decoding is autoregressive.
    ///
    /// # Errors
    /// [`LmError::EmptyBlock`] for n = 0.
    pub fn new(inner: D, n: usize, costs: CostModel) -> Result<Self, LmError> {
        if n == 0 {
            return Err(LmError::EmptyBlock);
        }
        let lookup = PromptLookup::new(LOOKUP_KEY, LOOKUP_TOKENS.min(n - 1));
        Ok(Self { inner, lookup, governor: Governor::new(n, costs) })
    }
}

impl<D: Decoder> Decoder for Auto<D> {
    fn begin(&mut self) {
        self.inner.begin();
        self.lookup.begin();
        self.governor.begin();
    }

    fn propose(&mut self, text: &[Token], room: usize, sequence: usize, batch: &mut Batch) {
        let first = batch.len();
        let (source, rows) = self.governor.choose(room, || self.lookup.matched(text));
        match source {
            Source::Inner => self.inner.propose(text, rows, sequence, batch),
            Source::Lookup => self.lookup.propose(text, rows, sequence, batch),
        }
        self.governor.source = source;
        self.governor.rows = batch.len() - first;
    }

    fn absorb(&mut self, first_row: usize, batch: &Batch, output: &Output) -> Verdict<'_> {
        let verdict = match self.governor.source {
            Source::Inner => self.inner.absorb(first_row, batch, output),
            Source::Lookup => self.lookup.absorb(first_row, batch, output),
        };
        self.governor.learn(verdict.settled.len());
        verdict
    }
}
