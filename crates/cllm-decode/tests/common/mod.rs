//! What several property tests draw from.

#![allow(dead_code, reason = "each test file uses a part")]

use cllm_decode::fake::Kind;
use cllm_decode::{Sampling, Token};
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
        3 => (0..=100u8, any::<u64>())
            .prop_map(|(percent, seed)| Kind::Ripening { percent, seed }),
    ]
}

/// Settings of sampling over a vocabulary, with everything on or off, alone and together.
pub(crate) fn samplings(vocab: Token) -> impl Strategy<Value = Sampling> {
    let unit = || prop_oneof![3 => Just(1.0f32), 2 => 0.05..1.0f32];
    let penalty = || prop_oneof![2 => Just(0.0f32), 1 => -2.0..2.0f32];
    let filters = (
        prop_oneof![1 => Just(0.0f32), 3 => 0.05..3.0f32],
        prop_oneof![2 => Just(0usize), 1 => 1..12usize],
        unit(),
        prop_oneof![3 => Just(0.0f32), 2 => 0.0..1.0f32],
        unit(),
    );
    let penalties = (prop_oneof![2 => Just(1.0f32), 1 => 0.5..2.0f32], penalty(), penalty());
    let bias = prop_oneof![
        3 => Just(vec![]),
        1 => prop::collection::vec((0..vocab, -3.0..3.0f32), 1..4),
    ];
    let report = prop::option::weighted(0.2, 0..5usize);
    (filters, penalties, bias, report, any::<u64>(), 0..3u64).prop_map(
        |(filters, penalties, logit_bias, logprobs, seed, choice)| {
            let (temperature, top_k, top_p, min_p, typical_p) = filters;
            let (repetition_penalty, presence_penalty, frequency_penalty) = penalties;
            Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                typical_p,
                repetition_penalty,
                presence_penalty,
                frequency_penalty,
                logit_bias,
                logprobs,
                seed,
                choice,
            }
        },
    )
}
