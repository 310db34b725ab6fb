//! Blocks in flight: the width of a window that decodes block by block.
//!
//! A block decoder (Kou et al. 2024) refines the unsettled tokens of one block of n until none is
//! left, so its window narrows towards the block's end. Jacobi Forcing (arXiv 2512.14681) lets the
//! next block start when a share of the one before it has settled, 85 % there, with at
//! most K blocks on their way, two there:
//!
//! ```text
//! text .. s s s s s s s g | g g g g g g g g |          n = 8, K = 2: 7 of 8 have settled,
//!                       t   window          end        so the next block is in flight
//! ```
//!
//! A token of the block in front has settled when it is text. One of a later block, whose
//! predecessors are still guesses, counts as settled while forwards say it again.

/// How many blocks, and when the next one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InFlight {
    /// The most blocks on their way, K; 0 is a window that slides, of n rows at any time.
    pub blocks: usize,
    /// The spawn ratio: per cent of a block that has settled when the next one starts.
    pub spawn: usize,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { blocks: 0, spawn: 85 }
    }
}

/// Where the blocks of one answer are.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    n: usize,
    options: InFlight,
    /// Tokens of text before the first block; `None` before the first forward.
    start: Option<usize>,
    /// Blocks that have started.
    started: usize,
}

impl Blocks {
    /// Blocks of `n` tokens.
    pub(crate) fn new(n: usize, options: InFlight) -> Self {
        Self { n, options, start: None, started: 0 }
    }

    /// Forgets the answer.
    pub(crate) fn begin(&mut self) {
        (self.start, self.started) = (None, 0);
    }

    /// Rows of the next window: the tokens from the end of the text, `len` tokens long, to that of
    /// the last block in flight. `again[i]`: whether the last forward said the guess for
    /// place `len + i` again.
    pub(crate) fn rows(&mut self, len: usize, again: &[bool]) -> usize {
        let InFlight { blocks, spawn } = self.options;
        if blocks == 0 {
            return self.n;
        }
        let start = *self.start.get_or_insert(len);
        let current = (len - start) / self.n;
        self.started = self.started.max(current + 1);
        while self.started < current + blocks {
            let last = start + (self.started - 1) * self.n;
            let settled = (last..last + self.n)
                .filter(|&place| match place.checked_sub(len) {
                    None => true,
                    Some(i) => again.get(i) == Some(&true),
                })
                .count();
            if 100 * settled < spawn * self.n {
                break;
            }
            self.started += 1;
        }
        start + self.started * self.n - len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(blocks: usize, spawn: usize) -> Blocks {
        Blocks::new(8, InFlight { blocks, spawn })
    }

    #[test]
    fn without_blocks_the_window_is_always_as_wide() {
        let mut sliding = blocks(0, 85);
        assert!((30..60).all(|len| sliding.rows(len, &[]) == 8));
    }

    #[test]
    fn a_single_block_narrows_to_its_end() {
        let mut one = blocks(1, 0);
        let rows: Vec<_> = [30, 31, 36, 37, 38, 40].map(|len| one.rows(len, &[true; 7])).into();
        assert_eq!(rows, [8, 7, 2, 1, 8, 6]);
        one.begin();
        assert_eq!(one.rows(35, &[]), 8, "the next answer's first block");
    }

    #[test]
    fn the_next_block_starts_when_enough_has_settled() {
        let mut two = blocks(2, 75);
        assert_eq!(two.rows(100, &[]), 8);
        assert_eq!(two.rows(105, &[]), 3, "five of eight");
        assert_eq!(two.rows(106, &[]), 2 + 8, "six of eight");
        assert_eq!(two.rows(107, &[true; 9]), 1 + 8, "no third one");
        assert_eq!(two.rows(108, &[]), 8, "the second is in front now");
        // Guesses of the block in front that were said again count as well.
        assert_eq!(two.rows(110, &[true; 4]), 6 + 8);
    }

    #[test]
    fn a_later_block_starts_behind_guesses_that_stay() {
        let mut three = blocks(3, 50);
        assert_eq!(three.rows(0, &[]), 8);
        assert_eq!(three.rows(4, &[false; 3]), 4 + 8);
        let mut again = [false; 11];
        again[4..8].fill(true);
        assert_eq!(three.rows(4, &again), 4 + 16);
        // At once, if the first forward's guesses all stay.
        assert_eq!(blocks(3, 50).rows(0, &[true; 16]), 24);
    }
}
