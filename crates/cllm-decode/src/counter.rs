//! Counter-based random numbers: a hash of (seed, counter), no state.
//!
//! A draw that depends on the seed and the absolute position alone is the same however
//! the decoder got there, so runs repeat and streams do not disturb each other. The hash
//! is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), applied to each word.

/// 64 well-mixed bits for `counter` under `seed`.
pub fn hash(seed: u64, counter: u64) -> u64 {
    at(key(seed), counter)
}

/// The half of [`hash`] that depends on the seed alone, for many counters under one seed:
/// `hash(seed, counter) == at(key(seed), counter)`.
pub fn key(seed: u64) -> u64 {
    mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The other half of [`hash`].
pub fn at(key: u64, counter: u64) -> u64 {
    mix(key ^ counter)
}

/// An index below `n` (not 0), uniform up to `n / 2^64`.
pub fn index(seed: u64, counter: u64, n: usize) -> usize {
    ((u128::from(hash(seed, counter)) * n as u128) >> 64) as usize
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
