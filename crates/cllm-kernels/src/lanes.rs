//! Sixteen floats at a time: the canonical order of every long sum.
//!
//! Floating-point addition is not associative, so a sum has as many results as it has
//! orders. Ours has one: element i belongs to lane i mod 16, each lane adds its elements
//! in ascending order with fused multiply-adds, and the lanes are joined by the fixed
//! tree of [`Lanes::sum`]. Sixteen is the width of an AVX-512 register; narrower
//! machines use two or four registers and get the same bits.

/// Sixteen partial sums.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; 16]);

/// Number of lanes.
pub const LANES: usize = 16;

impl Lanes {
    /// All zero.
    pub const ZERO: Self = Self([0.0; LANES]);

    /// `self + a * b`, lane by lane, rounded once.
    #[inline(always)]
    #[must_use]
    pub fn mul_add(mut self, a: &[f32; LANES], b: &[f32; LANES]) -> Self {
        for i in 0..LANES {
            self.0[i] = a[i].mul_add(b[i], self.0[i]);
        }
        self
    }

    /// The sum of the lanes: 16 to 8 to 4 to 2 to 1, upper half onto lower half.
    #[inline(always)]
    pub fn sum(self) -> f32 {
        let mut v = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                v[i] += v[i + half];
            }
        }
        v[0]
    }
}

/// The same floats without their grouping.
#[expect(unsafe_code, reason = "the standard library flattens arrays, not structs of one")]
pub(crate) fn flat(lanes: &[Lanes]) -> &[f32] {
    // SAFETY: a `Lanes` is 64 bytes, exactly its sixteen floats.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

/// The same floats without their grouping.
#[expect(unsafe_code, reason = "the standard library flattens arrays, not structs of one")]
pub(crate) fn flat_mut(lanes: &mut [Lanes]) -> &mut [f32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * LANES) }
}

/// The dot product of two vectors of equal length, in the canonical order.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let (a16, a_rest) = a.as_chunks::<LANES>();
    let (b16, b_rest) = b.as_chunks::<LANES>();
    let mut acc = Lanes::ZERO;
    for (x, y) in a16.iter().zip(b16) {
        acc = acc.mul_add(x, y);
    }
    for (lane, (x, y)) in acc.0.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = x.mul_add(*y, *lane);
    }
    acc.sum()
}

/// The sum of a vector, in the canonical order.
#[inline(always)]
pub fn sum(a: &[f32]) -> f32 {
    let (a16, rest) = a.as_chunks::<LANES>();
    let mut acc = Lanes::ZERO;
    for x in a16 {
        for (lane, v) in acc.0.iter_mut().zip(x) {
            *lane += v;
        }
    }
    for (lane, v) in acc.0.iter_mut().zip(rest) {
        *lane += v;
    }
    acc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_follows_the_written_order() {
        for n in [0, 1, 15, 16, 17, 64, 100] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 1.3).cos()).collect();
            let mut lanes = [0.0f32; 16];
            for i in 0..n {
                lanes[i % 16] = a[i].mul_add(b[i], lanes[i % 16]);
            }
            let mut width = 8;
            while width > 0 {
                for i in 0..width {
                    lanes[i] += lanes[i + width];
                }
                width /= 2;
            }
            assert_eq!(dot(&a, &b).to_bits(), lanes[0].to_bits(), "n = {n}");
        }
    }
}
