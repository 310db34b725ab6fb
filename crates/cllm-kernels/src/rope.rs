//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
//!
//! Element i of the first half of a head and element i of the second half form a pair
//! that is turned by the angle `position * frequency_i`. (Files that interleave the pairs
//! are re-ordered when they are loaded.) Sines and cosines come from one table, so that
//! every path turns by the same bits.

use crate::isa::multiversion;

/// Sines and cosines per position; grows as positions are asked for.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `(head_dim / 2,)` angles per position, in radians.
    frequencies: Vec<f32>,
    /// `(positions, head_dim / 2)`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// A table for these frequencies, one per pair.
    pub fn new(frequencies: Vec<f32>) -> Self {
        Self { frequencies, cos: Vec::new(), sin: Vec::new() }
    }

    /// Makes sure that positions `0..positions` are there.
    pub fn reserve(&mut self, positions: usize) {
        let pairs = self.frequencies.len();
        if pairs == 0 || positions * pairs <= self.cos.len() {
            return;
        }
        let known = self.cos.len() / pairs;
        // Doubling keeps the number of extensions small while a text grows.
        for position in known..positions.max(2 * known) {
            for &frequency in &self.frequencies {
                // The product is rounded to f32 first, as transformers does; libm's sine and
                // cosine are the same on every system.
                let angle = f64::from(position as f32 * frequency);
                self.cos.push(libm::cos(angle) as f32);
                self.sin.push(libm::sin(angle) as f32);
            }
        }
    }

    /// The cosines and sines of a position, `(head_dim / 2,)` each.
    ///
    /// # Panics
    /// If the position was never reserved.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let pairs = self.frequencies.len();
        let range = position * pairs..(position + 1) * pairs;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

multiversion! {
    /// Turns all heads of one row in place: `heads` has shape `(H, head_dim)`, `cos` and
    /// `sin` have shape `(head_dim / 2,)`.
    pub fn rotate(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        for head in heads.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for (((first, second), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let (a, b) = (*first, *second);
                *first = a.mul_add(cos, -(b * sin));
                *second = b.mul_add(cos, a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn turns_pairs_and_keeps_their_length() {
        let mut table = RopeTable::new(vec![1.0, 0.25, 0.01]);
        table.reserve(50);
        let (cos, sin) = table.at(49);
        for isa in Isa::available() {
            let before: Vec<f32> = (0..12).map(|i| i as f32 - 5.0).collect();
            let mut after = before.clone();
            rotate(isa, &mut after, cos, sin);
            for (b, a) in before.chunks(6).zip(after.chunks(6)) {
                for i in 0..3 {
                    let angle = f64::from(49.0f32 * [1.0, 0.25, 0.01][i]);
                    let (x, y) = (f64::from(b[i]), f64::from(b[i + 3]));
                    assert!((f64::from(a[i]) - (x * angle.cos() - y * angle.sin())).abs() < 1e-5);
                    assert!(
                        (f64::from(a[i + 3]) - (y * angle.cos() + x * angle.sin())).abs() < 1e-5
                    );
                }
            }
        }
    }

    #[test]
    fn growing_does_not_change_what_is_there() {
        let mut grown = RopeTable::new(vec![1.0, 0.3]);
        (1..40).for_each(|n| grown.reserve(n));
        let mut whole = RopeTable::new(vec![1.0, 0.3]);
        whole.reserve(40);
        (0..39).for_each(|p| assert_eq!(grown.at(p), whole.at(p)));
    }
}
