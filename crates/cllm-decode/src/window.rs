//! The states that the sliding window goes through on its way along an answer.
//!
//! A block's trajectory is what the paper trains on, but not what [`Jacobi`] shows a model:
//! its window starts wherever the settled text ends, and holds guesses of every age, the
//! oldest nearly right, the newest drawn from the context. A model that is trained on the
//! states its own decoder visits learns from the mistakes it will meet (the argument of
//! DAgger: Ross, Gordon, Bagnell 2011, arXiv 1011.0686), and collecting them costs no more
//! than decoding the answer once: about n / acceptance rows a token, where the blocks of
//! [`collect`](crate::collect) cost about half of n times that many iterations.
//!
//! A state becomes a [`Trajectory`] of that one state: a block that starts after the
//! settled text, the guesses, and y* from the finished answer. The window's last row, that
//! of its last guess, predicts one token more; so the block is one longer than the guesses,
//! and as that token is read by no row its place holds the right one. A window with no
//! wrong guess teaches nothing and is left out, as is what a guess says of tokens
//! beyond the end of the answer.

use crate::jacobi::Jacobi;
use crate::lm::Token;
use crate::trajectory::{Measures, Trajectory};

/// A decode that remembers its windows.
#[derive(Debug)]
pub(crate) struct Windows {
    /// Decodes.
    pub(crate) decoder: Jacobi,
    /// Of each forward: how many tokens the answer had, and the guesses after them.
    pub(crate) seen: Vec<(usize, Vec<Token>)>,
}

impl Windows {
    pub(crate) fn new(decoder: Jacobi) -> Self {
        Self { decoder, seen: Vec::new() }
    }

    /// The windows with a wrong guess, as trajectories of one state, and what the decode
    /// was like.
    pub(crate) fn trajectories(&self, answer: &[Token]) -> (Vec<Trajectory>, Measures) {
        let trajectories: Vec<_> = self
            .seen
            .iter()
            .filter_map(|(start, guesses)| state(*start, guesses, answer))
            .collect();
        let forwards = self.seen.len();
        let first = self.seen.first().map_or(answer.len(), |(start, _)| *start);
        let measures = Measures {
            blocks: trajectories.len(),
            tokens: answer.len(),
            iterations: trajectories.len(),
            forwards,
            fast_forwarded: answer.len() - first - forwards,
            stationary: self.stationary(answer),
        };
        (trajectories, measures)
    }

    /// Counts the tokens that are right from some window on, until they settle, although a
    /// guess before them is still wrong in that window.
    fn stationary(&self, answer: &[Token]) -> usize {
        // For each place: whether, in the window its right guesses began with, an earlier
        // guess was wrong; `None` where the last guess was wrong.
        let mut behind: Vec<Option<bool>> = vec![None; answer.len()];
        for (start, guesses) in &self.seen {
            let places = answer.iter().zip(&mut behind).skip(*start);
            let mut wrong = false;
            for (guess, (token, behind)) in guesses.iter().zip(places) {
                let right = guess == token;
                *behind = if right { behind.or(Some(wrong)) } else { None };
                wrong |= !right;
            }
        }
        behind.into_iter().filter(|behind| *behind == Some(true)).count()
    }
}

/// The trajectory of a window; `None` if all of its guesses are right.
fn state(start: usize, guesses: &[Token], answer: &[Token]) -> Option<Trajectory> {
    let fixed = &answer[start..answer.len().min(start + guesses.len() + 1)];
    let (last, before) = fixed.split_last()?;
    let mut state = guesses[..before.len()].to_vec();
    state.push(*last);
    let mut trajectory = Trajectory::new(start, fixed.to_vec());
    trajectory.push(&state).map(|_| trajectory)
}
