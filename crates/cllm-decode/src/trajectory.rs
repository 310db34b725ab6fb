//! The trajectory of a block: its states from first guess to fixed point.
//!
//! Kou et al. 2024 (arXiv 2403.00835): a block of n unknowns starts as a guess `y^(0)` and
//! is updated at once, `y^(j+1)_i = argmax p(. | y^(j)_<i, x)`, until it is the fixed point
//! `y* = y^(k)`, which under greedy decoding is what one token a forward gives. The
//! states `y^(0) .. y^(k)`, all different but for a guess that repeats, are what a
//! consistency model learns from: it shall say y* at every one of them.
//!
//! What holds of every trajectory, and is used everywhere here: the positions of `y^(j)`
//! before the first wrong one are final, and the first wrong one is right in `y^(j+1)`.
//! So the *convergence iteration* k is at most n.
//!
//! Stored are y* and of every earlier state only what follows its settled tokens, about
//! half of the n tokens on a model that settles one a forward.
//!
//! A block ends where its answer ends, at n tokens or earlier: with the stop token or at
//! the limit. What a model would say after a stop token is in no state. That changes
//! none of the others, as a position depends on those before it only.

use crate::counter;
use crate::lm::Token;

/// The states of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trajectory {
    /// Index in the answer of the block's first token.
    start: usize,
    /// y*, shape `(n,)`.
    fixed: Vec<Token>,
    /// The states before y*, each from its first wrong token on, joined.
    tails: Vec<Token>,
    /// The first wrong position of each of them, ascending.
    first_wrong: Vec<usize>,
}

impl Trajectory {
    /// A trajectory that so far has no state but the fixed point `fixed`, the tokens of an
    /// answer from its index `start` on.
    pub fn new(start: usize, fixed: Vec<Token>) -> Self {
        Self { start, fixed, tails: Vec::new(), first_wrong: Vec::new() }
    }

    /// Adds the next state before y*; shape `(n,)`. Returns its first wrong position, or
    /// `None` if it is y*: the trajectory is then complete.
    ///
    /// # Panics
    /// If the state has another length than y*.
    pub fn push(&mut self, state: &[Token]) -> Option<usize> {
        assert_eq!(state.len(), self.fixed.len(), "a state is as long as its block");
        let wrong = state.iter().zip(&self.fixed).position(|(a, b)| a != b)?;
        self.tails.extend_from_slice(&state[wrong..]);
        self.first_wrong.push(wrong);
        Some(wrong)
    }

    /// Index in the answer of the block's first token.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The fixed point y*, shape `(n,)`.
    pub fn fixed_point(&self) -> &[Token] {
        &self.fixed
    }

    /// k, the iteration at which the block is y* for the first time; 0 if the guess was.
    pub fn convergence_iteration(&self) -> usize {
        self.first_wrong.len()
    }

    /// The first wrong position of every state before y*, strictly ascending.
    pub fn first_wrong(&self) -> &[usize] {
        &self.first_wrong
    }

    /// All states `y^(0) .. y^(k)`, each of shape `(n,)`; the last is y*.
    pub fn states(&self) -> impl Iterator<Item = Vec<Token>> + '_ {
        let mut at = 0;
        let earlier = self.first_wrong.iter().map(move |&wrong| {
            let tail = &self.tails[at..at + self.fixed.len() - wrong];
            at += tail.len();
            [&self.fixed[..wrong], tail].concat()
        });
        earlier.chain(std::iter::once(self.fixed.clone()))
    }

    /// The states before y*, each with about half of its wrong positions set right: every
    /// wrong position but the first is overwritten with y* by the toss of a coin that
    /// `seed` and its place in the trajectory decide. A model so sees states with holes,
    /// which a few iterations would not give it. (Kou et al. 2024, data augmentation.)
    ///
    /// The trajectory itself stays as it is, and as no state reaches beyond the end of its
    /// answer, neither does an augmented one.
    pub fn augmented(&self, seed: u64) -> impl Iterator<Item = Vec<Token>> + '_ {
        let n = self.fixed.len();
        self.states().zip(&self.first_wrong).enumerate().map(move |(j, (mut state, &wrong))| {
            for (i, token) in state.iter_mut().enumerate().skip(wrong + 1) {
                let place = (self.start as u64) << 32 | (j * n + i) as u64;
                if counter::hash(seed, place) >> 63 == 1 {
                    *token = self.fixed[i];
                }
            }
            state
        })
    }

    /// What the trajectory says about decoding.
    pub fn measures(&self) -> Measures {
        let n = self.fixed.len();
        let k = self.convergence_iteration();
        // A forward from y^(j) proves its right beginning and the token after that.
        let unproven = self.first_wrong.last().is_none_or(|&wrong| wrong + 1 < n);
        let reached = self.first_wrong.iter().skip(1).copied().chain(std::iter::once(n));
        let jumps = self.first_wrong.iter().zip(reached).map(|(from, to)| to - from - 1);
        Measures {
            blocks: 1,
            tokens: n,
            iterations: k,
            forwards: k + usize::from(unproven && n > 0),
            fast_forwarded: jumps.sum(),
            stationary: self.stationary(),
        }
    }

    /// Counts the tokens that are right from some state on to the end although a position
    /// before them is still wrong in that state.
    fn stationary(&self) -> usize {
        let states: Vec<_> = self.states().collect();
        let stays = |i: usize| {
            let right = states.iter().rev().take_while(|state| state[i] == self.fixed[i]).count();
            let since = states.len() - right;
            self.first_wrong.get(since).is_some_and(|&wrong| wrong < i)
        };
        (0..self.fixed.len()).filter(|&i| stays(i)).count()
    }
}

/// Counts over trajectories; add them up, never average averages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measures {
    /// Trajectories.
    pub blocks: usize,
    /// Tokens of their fixed points.
    pub tokens: usize,
    /// Sum of their convergence iterations.
    pub iterations: usize,
    /// Forwards that a block-by-block decoder would take, with the one that proves a state
    /// that is right by luck.
    pub forwards: usize,
    /// Tokens that an iteration settled beyond the first (Kou et al.: fast-forwarding).
    pub fast_forwarded: usize,
    /// Tokens right for good while an earlier one was wrong (Kou et al.: stationary).
    pub stationary: usize,
}

impl Measures {
    /// Adds the counts of others.
    pub fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.tokens += other.tokens;
        self.iterations += other.iterations;
        self.forwards += other.forwards;
        self.fast_forwarded += other.fast_forwarded;
        self.stationary += other.stationary;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block `fixed` with the given states before it.
    fn trajectory(fixed: &[Token], states: &[&[Token]]) -> Trajectory {
        let mut trajectory = Trajectory::new(0, fixed.to_vec());
        for state in states {
            assert!(trajectory.push(state).is_some());
        }
        trajectory
    }

    #[test]
    fn measures_are_those_of_the_paper() {
        // 8 settles in the first iteration; 3 is right in y^(1), behind a wrong 9: it is
        // stationary, and the second iteration settles it with the 2 before it.
        let t = trajectory(&[7, 8, 2, 3], &[&[0, 0, 0, 0], &[7, 8, 9, 3]]);
        assert_eq!(t.states().collect::<Vec<_>>(), [[0; 4], [7, 8, 9, 3], [7, 8, 2, 3]]);
        assert_eq!(t.first_wrong(), [0, 2]);
        let expected = Measures {
            blocks: 1,
            tokens: 4,
            iterations: 2,
            // The second forward proves 7 8 2, so the 3 needs a third.
            forwards: 3,
            fast_forwarded: 2,
            stationary: 1,
        };
        assert_eq!(t.measures(), expected);
        // One token an iteration: nothing to confirm, nothing gained.
        let t = trajectory(&[1, 2], &[&[0, 0], &[1, 0]]);
        let expected =
            Measures { blocks: 1, tokens: 2, iterations: 2, forwards: 2, ..Measures::default() };
        assert_eq!(t.measures(), expected);
        // A guess that is right takes one forward to know it.
        let t = trajectory(&[1, 2], &[]);
        assert_eq!((t.convergence_iteration(), t.measures().forwards), (0, 1));
    }

    #[test]
    fn augmentation_never_sets_the_first_wrong_position_right() {
        let wrong = vec![0; 64];
        let t = trajectory(&[1; 64], &[&wrong]);
        let states: Vec<_> = t.augmented(3).collect();
        assert_eq!(states.len(), 1, "y* has nothing to set right");
        assert_eq!(states[0][0], 0);
        let right = states[0].iter().filter(|&&token| token == 1).count();
        assert!((20..44).contains(&right), "about half: {right}");
        assert_eq!(states, t.augmented(3).collect::<Vec<_>>());
        assert_ne!(states, t.augmented(4).collect::<Vec<_>>());
        assert_eq!(t.states().next().unwrap(), wrong, "the trajectory is untouched");
    }
}
