//! Every way to decode: a new decoder is a line in [`ways`].

use cllm_decode::fake::Fake;
use cllm_decode::spec::Built;
use cllm_decode::{
    Auto, CostModel, Decoder, DecoderSpec, Draft, DraftModel, InFlight, LookaheadOptions, Oracle,
    PoolOptions, PromptLookup, Sampling,
};
use proptest::prelude::*;

use crate::case::Case;
use crate::common::{kinds, samplings};

pub(crate) fn drafts() -> impl Strategy<Value = Draft> {
    prop::sample::select(Draft::ALL.to_vec())
}

/// A decoder and what it is made of.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    Named(DecoderSpec),
    /// Options that the names do not allow: prompt lookup with 0 of something, jacobi-pool
    /// without keys.
    Lookup(usize, usize, usize),
    Pool(PoolOptions),
    /// Another decoder inside, and costs that fall and rise.
    Auto {
        inner: Box<Way>,
        n: usize,
        slope: f64,
        history: usize,
    },
    /// A model of any kind, vocabulary, context and flaw.
    Model {
        fake: Fake,
        tokens: usize,
        sampling: Option<Sampling>,
    },
    /// Knows the answer, or some other text.
    Oracle {
        right: bool,
        n: usize,
        p: f64,
    },
}

impl Way {
    pub(crate) fn build(&self, case: &Case, seed: u64) -> Box<dyn Decoder> {
        let text = |right: bool| {
            let answer = if right { case.expected().map(|e| e.0) } else { Ok(vec![]) };
            [&case.request.prompt[..], &answer.unwrap_or_default()].concat()
        };
        match self.clone() {
            Self::Named(spec) => match spec.build(seed, &CostModel::default()).expect("sound") {
                Built::Decoder(decoder) => decoder,
                Built::Ar | Built::DraftModel { .. } => unreachable!("not drawn"),
            },
            Self::Lookup(ngram, tokens, history) => {
                Box::new(PromptLookup::new(ngram, tokens).remember(history))
            }
            Self::Pool(options) => {
                Box::new(cllm_decode::JacobiPool::new(options, seed).expect("sound"))
            }
            Self::Auto { inner, n, slope, history } => {
                let costs = CostModel::new([(1, 1.0), (9, 1.0 + slope)]).expect("sound");
                let auto = Auto::new(inner.build(case, seed), n, costs).expect("sound");
                Box::new(auto.remember(history))
            }
            Self::Model { fake, tokens, sampling } => {
                let sampling = match sampling {
                    Some(other) => Sampling { logit_bias: vec![], ..other },
                    None => case.request.sampling.clone(),
                };
                let vocab = case.fake.vocab;
                Box::new(DraftModel::new(fake, tokens, vocab, sampling).expect("sound"))
            }
            Self::Oracle { right, n, p } => {
                Box::new(Oracle::new(text(right), n, p, seed).expect("sound"))
            }
        }
    }
}

pub(crate) fn ways() -> impl Strategy<Value = Way> {
    let named = |spec| Way::Named(spec);
    let jacobi = (1..=40usize, drafts())
        .prop_map(move |(n, draft)| named(DecoderSpec::Jacobi { n, draft }))
        .boxed();
    let in_flight =
        (0..4usize, 0..=100usize).prop_map(|(blocks, spawn)| InFlight { blocks, spawn });
    let pool = (1..=20usize, 0..5usize, 0..8usize, 0..5usize, drafts(), in_flight)
        .prop_map(|(n, candidates, tokens, ngram, draft, in_flight)| {
            Way::Pool(PoolOptions { n, candidates, tokens, ngram, draft, in_flight })
        })
        .boxed();
    let lookahead = (1..9usize, 2..7usize, 0..9usize)
        .prop_map(move |(w, n, g)| named(DecoderSpec::Lookahead(LookaheadOptions { w, n, g })))
        .boxed();
    let history = || prop_oneof![Just(0usize), 1..400usize, Just(usize::MAX)];
    let lookup = (0..5usize, 0..12usize, history())
        .prop_map(|(ngram, tokens, history)| Way::Lookup(ngram, tokens, history));
    let inner = prop_oneof![jacobi.clone(), pool.clone(), lookahead.clone(), lookup.clone()];
    let auto =
        (inner, 1..20usize, 0.0..1.0f64, history()).prop_map(|(inner, n, slope, history)| {
            Way::Auto { inner: Box::new(inner), n, slope, history }
        });
    let model = (1..40u32)
        .prop_flat_map(|vocab| {
            let nan_at = prop::option::weighted(0.2, 0..90usize);
            let sampling = prop::option::weighted(0.3, samplings(vocab));
            (kinds(vocab), Just(vocab), 1..120usize, nan_at, 0..10usize, sampling)
        })
        .prop_map(|(kind, vocab, context, nan_at, tokens, sampling)| {
            let fake = Fake { nan_at, ..Fake::new(kind, vocab as usize, context) };
            Way::Model { fake, tokens, sampling }
        });
    let oracle = (any::<bool>(), 1..20usize, 0.0..1.2f64).prop_map(|(right, n, p)| Way::Oracle {
        right,
        n,
        p,
    });
    prop_oneof![jacobi, pool, lookahead, lookup, auto, model, oracle]
}

/// Whether its rows are at most the room it is given.
pub(crate) fn is_elastic(way: &Way) -> bool {
    matches!(way, Way::Named(DecoderSpec::Jacobi { .. }) | Way::Lookup(..) | Way::Pool(..))
}
