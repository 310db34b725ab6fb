//! Seeded numbers by counter: the same wherever, whenever and in whatever order they are
//! drawn.

/// SplitMix64 (Steele, Lea and Flood 2014): the stream of `key`.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The stream that belongs to the words of `key` in this order.
    pub(super) fn new(key: &[u64]) -> Self {
        let mut state = Self(0x6A09_E667_F3BC_C908);
        for &word in key {
            state = Self(state.next() ^ word);
        }
        state
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, 24 bits.
    pub(super) fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }
}
