//! The two phenomena that a consistency model shows more of (Kou et al. 2024, section 4).
//!
//! *Fast-forwarded* tokens settle in one forward together with the guaranteed one: a
//! forward that settles m has m - 1 of them. *Stationary* tokens came out right although a
//! token before them was still wrong, and stayed right until they settled. Both are
//! counted in decode forwards; a token can be both.

use cllm_decode::{Phase, RecordedIteration, Token};

/// (fast-forwarded, stationary) tokens of an answer.
pub(crate) fn count<'a>(
    forwards: impl Iterator<Item = &'a RecordedIteration>,
    answer: &[Token],
) -> (usize, usize) {
    let mut fast = 0;
    // Whether a token has been right since a forward that had something wrong before it.
    let mut stationary = vec![false; answer.len()];
    for forward in forwards.filter(|forward| forward.phase == Phase::Decode) {
        fast += forward.settled.saturating_sub(1);
        let known = forward.start + forward.settled;
        let mut wrong_before = false;
        for position in known..answer.len() {
            let right = forward.output.get(position - forward.start) == Some(&answer[position]);
            // Out of the window counts as wrong.
            stationary[position] = right && (stationary[position] || wrong_before);
            wrong_before |= !right;
        }
    }
    (fast, stationary.iter().filter(|&&stationary| stationary).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(start: usize, output: &[Token], settled: usize) -> RecordedIteration {
        let (draft, output) = (Vec::new(), output.to_vec());
        RecordedIteration { phase: Phase::Decode, start, draft, output, settled, rows: 4 }
    }

    #[test]
    fn tokens_are_stationary_from_the_state_on_in_which_they_stay_right() {
        let answer = [10, 11, 12, 13, 14, 15];
        let forwards = [
            // 11 settles; 12 is wrong, 13 is right behind it, 14 too.
            forward(1, &[11, 0, 13, 14], 1),
            // 12 settles; 13 goes wrong again, 14 stays.
            forward(2, &[12, 0, 14, 0], 1),
            // The rest: 13, 14 and 15 settle together.
            forward(3, &[13, 14, 15, 7], 3),
        ];
        assert_eq!(count(forwards.iter(), &answer), (2, 1));
    }

    #[test]
    fn a_token_with_nothing_wrong_before_it_is_not_stationary() {
        let forwards = [forward(1, &[11, 12, 13], 1), forward(2, &[12, 13], 2)];
        assert_eq!(count(forwards.iter(), &[10, 11, 12, 13]), (1, 0));
        assert_eq!(count([].into_iter(), &[]), (0, 0));
    }
}
