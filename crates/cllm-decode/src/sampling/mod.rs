//! Sampling: which token a row's logits become, when it is not simply the largest.
//!
//! A draw from softmax(l / T) is `argmax_v (l_v / T + g_v)` with independent Gumbel noise
//! g (Gumbel 1954). Here the noise is no stream of random numbers but a hash of (seed,
//! choice, absolute position, token), so a sampled token is a *function* of its row: of the
//! row's logits, of the text it sees and of its position. That is all that Jacobi decoding and
//! its relatives need of greedy choice: their fixed point is what one token a forward gives
//! with the same seed, token for token, whatever the decoder and the company.
//!
//! One row, in this order:
//!
//! 1. [`logit_bias`](Sampling::logit_bias) is added;
//! 2. penalties for tokens of the row's context: repetition (Keskar et al. 2019, arXiv
//!    1909.05858; prompt and answer, as in transformers), presence and frequency (answer
//!    only, as in OpenAI's interface);
//! 3. division by the temperature;
//! 4. top-k, top-p (Holtzman et al. 2019, arXiv 1904.09751), min-p (Nguyen et al. 2024, arXiv
//!    2407.01082), typical-p (Meister et al. 2022, arXiv 2202.00666), each on what the one
//!    before left, renormalised, as transformers orders them;
//! 5. the largest of what is left plus noise.
//!
//! With temperature 0 there is no noise and no filter: the largest logit after step 2, lowest
//! id among equals.
//!
//! | file | is |
//! |---|---|
//! | `mod.rs` | the settings and their ranges |
//! | `sampler.rs` | the five steps for one row |
//! | `penalty.rs` | what the row's context has said how often |
//! | `filter.rs` | top-k, top-p, min-p, typical-p |
//! | `gumbel.rs` | the noise, for the few tokens that can win |
//! | `logprobs.rs` | log-probabilities to report |
//!
//! Cost, for a row of 49,152 tokens on one core of a server: 0.1 ms to 0.2 ms with temperature,
//! penalties, top-k and min-p, most of it passes of maxima; 0.2 ms to 0.3 ms with top-p or
//! typical-p but no top-k, for the exponentials of the whole
//! vocabulary. A row of guesses costs as much as one that counts. Without sampling no
//! logits are asked for and nothing here runs.
//!
//! Left out: beam search, which is no map of one row; grammars, which would be one more step
//! before 3 that bans tokens.

mod filter;
mod gumbel;
mod logprobs;
mod penalty;
mod sampler;

pub use logprobs::Logprobs;
pub use sampler::Sampler;

use crate::lm::{LmError, Token};

/// The most alternatives a token's [`Logprobs`] can have, as in OpenAI's interface.
pub const MAX_LOGPROBS: usize = 20;

/// How tokens are chosen. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// T, 0 or more. 0 takes the most likely token and ignores the filters.
    pub temperature: f32,
    /// Only the k most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the smallest set of most likely tokens that has this probability, above 0 up to
    /// 1; 1 for all.
    pub top_p: f32,
    /// Only tokens with at least this share of the most likely one's probability, 0 to 1; 0
    /// for all.
    pub min_p: f32,
    /// Only the smallest set of tokens with this probability whose information is nearest
    /// the distribution's entropy, above 0 up to 1; 1 for all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer; above
    /// 0; 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens that are in the answer, -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it is in the answer, -2 to 2.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens, -100 to 100 each.
    pub logit_bias: Vec<(Token, f32)>,
    /// Tell the observer each token's log-probability and this many alternatives.
    pub logprobs: Option<usize>,
    /// Seed of the noise.
    pub seed: u64,
    /// Which of several answers to one prompt this is: other noise under the same seed.
    pub choice: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            logprobs: None,
            seed: 0,
            choice: 0,
        }
    }
}

/// Settings that are not numbers are refused, so equality of valid ones is an equivalence.
impl Eq for Sampling {}

impl Sampling {
    /// Whether the model's argmax is the answer and nobody asks for more: then no logits are
    /// computed and nothing here runs.
    pub fn is_off(&self) -> bool {
        self.is_greedy() && self.logprobs.is_none()
    }

    /// Whether each token is the model's own argmax.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && !self.changes_logits()
    }

    /// Whether steps 1 and 2 do anything.
    fn changes_logits(&self) -> bool {
        !self.logit_bias.is_empty() || self.has_penalties()
    }

    fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// Checks the ranges, those of OpenAI's interface and of vLLM, for a vocabulary of
    /// `vocab` tokens.
    ///
    /// # Errors
    /// [`LmError::BadSampling`] or [`LmError::UnknownToken`].
    pub fn validate(&self, vocab: usize) -> Result<(), LmError> {
        let check = |name, value: f32, right: bool, expected| {
            // A comparison with NaN is false; infinity is refused by name.
            if right && value.is_finite() {
                return Ok(());
            }
            Err(LmError::BadSampling { name, value: value.to_string(), expected })
        };
        let positive = |x: f32| x > 0.0 && x <= 1.0;
        let two = -2.0..=2.0;
        let t = self.temperature;
        check("temperature", t, t >= 0.0, "0 or more")?;
        check("top_p", self.top_p, positive(self.top_p), "more than 0 and at most 1")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")?;
        check("typical_p", self.typical_p, positive(self.typical_p), "more than 0 and at most 1")?;
        let repetition = self.repetition_penalty;
        check("repetition_penalty", repetition, repetition > 0.0, "more than 0")?;
        for (name, value) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            check(name, value, two.contains(&value), "-2 to 2")?;
        }
        for &(token, bias) in &self.logit_bias {
            check("logit_bias", bias, (-100.0..=100.0).contains(&bias), "-100 to 100")?;
            if token as usize >= vocab {
                return Err(LmError::UnknownToken { token, vocab });
            }
        }
        match self.logprobs {
            Some(top) if top > MAX_LOGPROBS => Err(LmError::BadSampling {
                name: "logprobs",
                value: top.to_string(),
                expected: "0 to 20",
            }),
            _ => Ok(()),
        }
    }

    /// Checks that each token is the model's own argmax, for work that is defined on greedy
    /// decoding only.
    ///
    /// # Errors
    /// [`LmError::BadSampling`] if not.
    pub fn require_greedy(&self) -> Result<(), LmError> {
        if self.is_greedy() {
            return Ok(());
        }
        Err(LmError::BadSampling {
            name: "temperature",
            value: format!("{}, or penalties or bias", self.temperature),
            expected: "greedy decoding, without any",
        })
    }
}
