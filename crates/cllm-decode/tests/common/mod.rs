//! What several property tests draw from.

use cllm_decode::Token;
use cllm_decode::fake::Kind;
use proptest::prelude::*;

/// Every kind of fake model over a vocabulary.
pub(crate) fn kinds(vocab: Token) -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => any::<u64>().prop_map(Kind::ContextHash),
        3 => (1..4usize, any::<u64>()).prop_map(|(order, seed)| Kind::Markov { order, seed }),
        2 => (1..=vocab).prop_map(Kind::Cycle),
        2 => (1..12usize).prop_map(Kind::Copy),
        1 => (0..vocab).prop_map(Kind::Constant),
        3 => (0..vocab, any::<u64>()).prop_map(|(token, seed)| Kind::Half { token, seed }),
    ]
}
