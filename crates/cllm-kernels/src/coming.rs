//! Weights that will be read next, asked for while something else is computed.
//!
//! Matrices wait for memory, and while attention is computed memory has nothing to do. So its
//! inner loops ask for the beginning of what their thread will read in the matrices that follow: a
//! line now and then, since the processor keeps track of a few at a time. Whatever is asked for,
//! results are the same.

use std::ptr::null;

use crate::linear::{Linear, SwiGlu};

/// The most that a thread asks for: some of its second-level cache.
const MOST: usize = 384 << 10;
/// A cache line.
const LINE: usize = 64;

/// The matrices that come next.
#[derive(Debug, Clone, Copy)]
pub struct Coming<'a> {
    weights: [&'a [u8]; 2],
}

impl<'a> Coming<'a> {
    /// Nothing is known to come.
    pub const NONE: Self = Self { weights: [&[]; 2] };

    /// A linear layer, and SwiGLU after it.
    pub fn new(first: &'a Linear, then: &'a SwiGlu) -> Self {
        Self { weights: [first.weights(), then.weights()] }
    }
}

/// How far a thread has got in asking.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// What it is about: the address of the first matrix.
    of: *const u8,
    /// What is left of the thread's shares.
    left: [(*const u8, usize); 2],
}

impl Default for Cursor {
    fn default() -> Self {
        Self { of: null(), left: [(null(), 0); 2] }
    }
}

/// Lines to be asked for one after the other: `start`, `start + step`, ..
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) start: *const u8,
    pub(crate) step: usize,
}

impl Cursor {
    /// Begins with the shares of `thread`, one of so many, unless it has begun.
    pub(crate) fn enter(&mut self, coming: Coming<'_>, (thread, threads): (usize, usize)) {
        let of = coming.weights[0].as_ptr();
        if self.of == of {
            return;
        }
        let mut room = MOST;
        self.of = of;
        self.left = coming.weights.map(|weights| {
            // As `Pool::run_near` divides them, or nearly.
            let edge = |thread: usize| weights.len() * thread / threads;
            let share = &weights[edge(thread)..edge(thread + 1)];
            let len = share.len().min(room);
            room -= len;
            (share.as_ptr(), len)
        });
    }

    /// The next `lines` lines, or fewer at the end; then the same line again and again, which
    /// costs nothing.
    pub(crate) fn take(&mut self, lines: usize) -> Ask {
        let [first, then] = &mut self.left;
        let (at, left) = if first.1 > 0 { first } else { then };
        let start = *at;
        let wanted = lines * LINE;
        if *left < wanted {
            *left = 0;
            return Ask { start, step: 0 };
        }
        (*at, *left) = (start.wrapping_add(wanted), *left - wanted);
        Ask { start, step: LINE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_ask_for_their_shares_once_and_for_no_more_than_fits() {
        let (first, then) = (vec![0; 1000 * LINE], vec![0; 2 * MOST]);
        let coming = Coming { weights: [&first, &then] };
        let mut cursor = Cursor::default();
        for thread in 0..2 {
            let mut asked = Vec::new();
            cursor.of = null();
            for _ in 0..2000 {
                cursor.enter(coming, (thread, 2));
                let ask = cursor.take(10);
                if ask.step > 0 {
                    asked.extend((0..10).map(|i| ask.start as usize + i * ask.step));
                }
            }
            let in_first =
                asked.iter().filter(|&&a| first.as_ptr_range().contains(&(a as *const u8)));
            assert_eq!(in_first.count(), 500);
            assert!(asked.len() * LINE <= MOST && (asked.len() + 10) * LINE > MOST);
            let first_of_second = then.as_ptr() as usize + thread * MOST;
            assert_eq!(asked[500], first_of_second);
        }
        cursor.enter(Coming::NONE, (0, 1));
        assert_eq!(cursor.take(3).step, 0);
    }
}
