//! How often Jacobi's guesses are right, by their age, and the number of rows that follows.
//!
//! The age of a guess is the number of forwards that have said something of its position; a new
//! one from the draft has age 0. Guesses ripen: each iteration reads a prefix that is right a
//! little further. So a wide window is worth more than its last guesses show, which are always
//! new: they are what will stand in front, several iterations old, when their turn comes.
//!
//! With m tokens settled a forward, the guess in place k of n rows was first said when it stood
//! in place n, (n - k) / m forwards ago. With `c(a)` the probability that a guess of age a is
//! right if those before it are,
//!
//! ```text
//! m  =  1 + s_1 + .. + s_{n-1},     s_k = s_{k-1} c((n - k) / m),     s_0 = 1
//! ```
//!
//! whose right side falls as m rises, since fast windows have young guesses: one solution. It
//! says what a width will settle that has not been tried.

use super::live::Live;
use super::rates::{Mean, Plan};

/// Halvings of the interval in which m is sought: to a hundredth of a token at 16 rows.
const HALVINGS: usize = 10;
/// Guesses that the slope remembers. How guesses ripen is the model's nature, how many are right
/// the text's: the level has the shorter memory of a [`Mean`].
const MEMORY: f64 = 512.0;
/// How firmly no slope is believed in at first, in squared units of ripeness: as much as some
/// fifteen guesses of different ages say.
const FIRMNESS: f64 = 1.0;

/// How far a guess of this age has got from new, 0, to as good as it gets, 1.
fn ripeness(age: f64) -> f64 {
    1.0 - (-age).exp2()
}

/// Sums over guesses, of ripeness x and of y, whether they were right, for a least-squares line.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        let fades = 1.0 - 1.0 / MEMORY;
        self.n = fades * self.n + 1.0;
        self.x = fades * self.x + x;
        self.y = fades * self.y + y;
        self.xx = fades * self.xx + x * x;
        self.xy = fades * self.xy + x * y;
    }

    fn slope(&self) -> f64 {
        let n = self.n.max(1.0);
        (self.xy - self.x * self.y / n) / (self.xx - self.x * self.x / n + FIRMNESS)
    }
}

/// The probability that a guess is right if those before it are, as a line over its ripeness.
#[derive(Debug, Clone)]
pub(super) struct Ages {
    /// Of guesses of ripeness `middle`.
    level: Mean,
    middle: f64,
    /// Of the line's slope.
    sums: Sums,
    /// Ages of the guesses that the next forward has, from its first; the others are new.
    window: Vec<u32>,
}

impl Ages {
    pub(super) fn new(prior: f64) -> Self {
        let (level, window) = (Mean::new(prior), Vec::new());
        Self { level, middle: 0.5, sums: Sums::default(), window }
    }

    /// Another request: its window is empty, and what is known counts as at most `seen`
    /// observations.
    pub(super) fn begin(&mut self, seen: f64) {
        self.window.clear();
        self.doubt(seen);
    }

    /// Lets what comes next count more than what is known.
    pub(super) fn doubt(&mut self, seen: f64) {
        self.level.doubt(seen);
    }

    /// A forward had `guesses` guesses, of which the first `right` were right.
    pub(super) fn learn(&mut self, guesses: usize, right: usize) {
        self.window.resize(guesses, 0);
        for k in 0..guesses.min(right + 1) {
            let x = ripeness(f64::from(self.window[k]));
            self.sums.add(x, f64::from(u8::from(k < right)));
            self.middle += self.level.weight() * (x - self.middle);
            self.level.learn(k < right);
        }
        self.window.iter_mut().for_each(|age| *age += 1);
        self.window.push(1);
        self.window.drain(..=right);
    }

    /// A forward of another decoder said `outputs` of what comes next.
    pub(super) fn replaced(&mut self, outputs: usize) {
        self.window.clear();
        self.window.resize(outputs, 1);
    }

    /// Tokens that a forward of `rows` rows settles, if the forwards before it were like it.
    fn settled(&self, rows: usize) -> f64 {
        let (level, slope) = (self.level.value(), self.sums.slope());
        let said = |m: f64| {
            let (mut tokens, mut survives) = (1.0, 1.0);
            // What is missing to full ripeness, which doubles with every m places.
            let mut missing = 1.0 - ripeness((rows - 1) as f64 / m);
            let step = m.recip().exp2();
            for _ in 1..rows {
                survives *= (level + slope * (1.0 - missing - self.middle)).clamp(0.0, 1.0);
                tokens += survives;
                missing *= step;
            }
            tokens
        };
        let (mut low, mut high) = (1.0, rows as f64);
        for _ in 0..HALVINGS {
            let m = (low + high) / 2.0;
            if said(m) > m { low = m } else { high = m }
        }
        (low + high) / 2.0
    }

    /// The number of rows up to `most` that pays most.
    pub(super) fn best(&self, most: usize, costs: &Live) -> Plan {
        Plan::best(most, costs, |rows| self.settled(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides_and_its_guesses_age() {
        let mut ages = Ages::new(0.5);
        ages.learn(3, 1);
        // Of places 1 to 4, two have settled; the last row spoke of a place beyond the window.
        assert_eq!(ages.window, [1, 1]);
        ages.learn(3, 0);
        assert_eq!(ages.window, [2, 1, 1]);
        ages.learn(3, 3);
        assert!(ages.window.is_empty());
        ages.replaced(2);
        assert_eq!(ages.window, [1, 1]);
    }

    #[test]
    fn old_guesses_that_are_better_are_worth_a_wide_window() {
        let (mut ages, mut flat) = (Ages::new(0.5), Ages::new(0.5));
        // Forwards of three guesses: an old one that is right, then a new one that is wrong,
        // and as many observations of which half are right whatever their age.
        for i in 0..200 {
            ages.window = vec![5, 0];
            ages.learn(2, 1);
            flat.window = vec![5 * (i % 2), 0];
            flat.learn(1, (i as usize / 2) % 2);
        }
        for (rows, most) in [(2, 1.6), (4, 2.1), (16, 2.2)] {
            let settled = flat.settled(rows);
            assert!(settled > 1.3 && settled < most, "{rows} rows: {settled}");
        }
        assert!(ages.settled(16) > 3.0, "{}", ages.settled(16));
        assert!(ages.settled(2) < flat.settled(2) + 0.1, "{}", ages.settled(2));
    }

    #[test]
    fn what_is_always_right_fills_the_window_and_what_never_is_settles_one() {
        let mut ages = Ages::new(0.5);
        (0..500).for_each(|_| ages.learn(3, 3));
        assert!((ages.settled(8) - 8.0).abs() < 0.1, "{}", ages.settled(8));
        (0..500).for_each(|_| ages.learn(3, 0));
        assert!(ages.settled(8) < 1.05, "{}", ages.settled(8));
    }
}
