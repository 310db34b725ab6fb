//! The learning rate over the steps of a run.
//!
//! The formulas are those of transformers (`get_scheduler`), so that a run set up for it
//! learns the same here. With s the number of steps done, W those of the warm-up and N all:
//!
//! | name | s < W | after |
//! |---|---|---|
//! | constant | 1 | 1 |
//! | constant_with_warmup | s / W | 1 |
//! | linear | s / W | (N - s) / (N - W) |
//! | cosine | s / W | (1 + cos(pi (s - W) / (N - W))) / 2 |

use serde::{Deserialize, Serialize};

/// The shape of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Always the same; no warm-up.
    Constant,
    /// Up, then the same.
    ConstantWithWarmup,
    /// Up, then down to 0 in a line.
    Linear,
    /// Up, then down to 0 along half a cosine.
    Cosine,
}

impl Schedule {
    /// What the learning rate is multiplied by in the step after `done` of `total` steps,
    /// the first `warmup` of them the warm-up.
    #[must_use]
    pub fn factor(self, done: u64, warmup: u64, total: u64) -> f64 {
        if self == Self::Constant {
            return 1.0;
        }
        if done < warmup {
            return done as f64 / warmup as f64;
        }
        let after = total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant | Self::ConstantWithWarmup => 1.0,
            Self::Linear => total.saturating_sub(done) as f64 / after,
            Self::Cosine => {
                let progress = (done - warmup) as f64 / after;
                (0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))).max(0.0)
            }
        }
    }
}

/// Steps of the warm-up: `steps` if given (not 0), else the share `ratio` of all, rounded up.
#[must_use]
pub fn warmup_steps(steps: u64, ratio: f64, total: u64) -> u64 {
    if steps > 0 { steps } else { (total as f64 * ratio).ceil() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tabulated with transformers' lambdas: 10 steps, 2 of them the warm-up.
    #[test]
    fn factors_are_those_of_transformers() {
        let check = |schedule: Schedule, expected: [f64; 11]| {
            for (done, expected) in expected.into_iter().enumerate() {
                let found = schedule.factor(done as u64, 2, 10);
                assert!((found - expected).abs() < 1e-12, "{schedule:?} {done}: {found}");
            }
        };
        check(Schedule::Constant, [1.0; 11]);
        let flat = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        check(Schedule::ConstantWithWarmup, flat);
        let line = [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0];
        check(Schedule::Linear, line);
        let cosine = [
            0.0,
            0.5,
            1.0,
            0.961_939_766_255_643_3,
            0.853_553_390_593_273_7,
            0.691_341_716_182_544_9,
            0.5,
            0.308_658_283_817_455_1,
            0.146_446_609_406_726_24,
            0.038_060_233_744_356_686,
            0.0,
        ];
        check(Schedule::Cosine, cosine);
    }

    #[test]
    fn warm_up_is_counted_in_steps_or_as_a_share() {
        assert_eq!(warmup_steps(0, 0.03, 1000), 30);
        assert_eq!(warmup_steps(0, 0.03, 1001), 31);
        assert_eq!(warmup_steps(7, 0.03, 1000), 7);
        assert_eq!(warmup_steps(0, 0.0, 1000), 0);
        // A run shorter than its warm-up, and one that goes on beyond its end.
        assert_eq!(Schedule::Cosine.factor(3, 5, 4), 0.6);
        assert_eq!(Schedule::Linear.factor(12, 2, 10), 0.0);
    }
}
