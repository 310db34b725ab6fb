//! Sampling as a deterministic map.
//!
//! A token drawn with Gumbel noise is an argmax (Gumbel 1954; Maddison et al. 2014): with
//! independent standard Gumbel variables g_t,
//!
//! ```text
//! argmax_t (z_t + g_t)   is distributed as   softmax(z)
//! ```
//!
//! The noise here is no state of a generator but a hash of (seed, choice, position, token),
//! and z depends on the row alone: its logits, and for penalties the tokens it sees. So which
//! token follows a text is fixed once the seed is, exactly as in greedy decoding, and
//! everything that holds there holds here: Jacobi iteration has the same unique fixed point,
//! and every decoder gives the tokens that autoregressive sampling gives. Where logits hardly
//! differ the drawn token does not either, so guesses go on being right.
//!
//! The order of what happens to a row is that of transformers: logit bias, penalties,
//! temperature, top-k, top-p, min-p, typical-p, each on what the one before left,
//! renormalised; then the draw. Temperature 0 takes the argmax after bias and penalties.
//!
//! What it costs a row of V logits: nothing if greedy; one pass over V for the draw, which
//! takes a logarithm only for tokens that could still win; one more with V exponentials if
//! top-p or min-p come without top-k. The vocabulary is sorted by typical-p alone.

mod filter;
mod gumbel;
mod logprobs;
mod sampler;
mod seen;

pub use logprobs::TokenLogprobs;
pub(crate) use sampler::Sampler;

use crate::lm::{LmError, Token};

/// How the next token is chosen from a row's logits. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the most likely token.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 is all.
    pub top_k: usize,
    /// Only the fewest most likely tokens that have this much probability together; 1 is all
    /// (Holtzman et al. 2020).
    pub top_p: f32,
    /// Only tokens with at least this share of the most likely one's probability; 0 is all.
    pub min_p: f32,
    /// Only the tokens nearest the expected information that have this much probability
    /// together; 1 is all (Meister et al. 2022).
    pub typical_p: f32,
    /// Logits of tokens of prompt and answer are divided by this where positive and
    /// multiplied where negative; 1 is none (Keskar et al. 2019).
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that the answer has; 0 is none.
    pub presence_penalty: f32,
    /// Taken from a token's logit each time the answer has it; 0 is none.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(Token, f32)>,
    /// Whether to report log-probabilities, and of how many of the most likely tokens beside
    /// the chosen one.
    pub logprobs: Option<usize>,
    /// Of the noise.
    pub seed: u64,
    /// Which of several answers to one prompt this is: another choice, other noise.
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

impl Sampling {
    /// Whether the token is always the one with the highest logit.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && !self.penalises() && self.logit_bias.is_empty()
    }

    /// Whether a token's logit depends on the tokens before it.
    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// Checks the ranges, those of OpenAI's API and vLLM.
    ///
    /// # Errors
    /// [`LmError::BadSampling`] names the setting, what was expected and what was found.
    pub fn check(&self, vocab: usize) -> Result<(), LmError> {
        let bad = |what: String| Err(LmError::BadSampling(what));
        let finite = |x: f32| x.is_finite();
        let share = |x: f32| x > 0.0 && x <= 1.0;
        let penalty = |x: f32| (-2.0..=2.0).contains(&x);
        let rules = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, share(self.top_p), "more than 0, at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            ("typical_p", self.typical_p, share(self.typical_p), "more than 0, at most 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "> 0"),
            ("presence_penalty", self.presence_penalty, penalty(self.presence_penalty), "-2 to 2"),
            (
                "frequency_penalty",
                self.frequency_penalty,
                penalty(self.frequency_penalty),
                "-2 to 2",
            ),
        ];
        for (name, value, kept, expected) in rules {
            if !kept || !finite(value) {
                return bad(format!("{name} {value}: expected {expected}"));
            }
        }
        for &(token, bias) in &self.logit_bias {
            if token as usize >= vocab {
                return Err(LmError::UnknownToken { token, vocab });
            }
            if !(-100.0..=100.0).contains(&bias) {
                return bad(format!("logit_bias {bias} of token {token}: expected -100 to 100"));
            }
        }
        match self.logprobs {
            Some(n) if n > vocab => {
                bad(format!("logprobs {n}: expected at most the vocabulary of {vocab}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let check = |change: fn(&mut Sampling), part: &str| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            let error = sampling.check(10).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(|s| s.temperature = -0.1, "temperature -0.1: expected 0 or more");
        check(|s| s.temperature = f32::NAN, "temperature NaN");
        check(|s| s.temperature = f32::INFINITY, "temperature inf");
        check(|s| s.top_p = 0.0, "top_p 0: expected more than 0");
        check(|s| s.min_p = 1.5, "min_p 1.5");
        check(|s| s.typical_p = 2.0, "typical_p 2");
        check(|s| s.repetition_penalty = 0.0, "repetition_penalty 0");
        check(|s| s.presence_penalty = 3.0, "presence_penalty 3: expected -2 to 2");
        check(|s| s.frequency_penalty = -3.0, "frequency_penalty -3");
        check(|s| s.logit_bias = vec![(10, 0.0)], "token 10 is not in the vocabulary");
        check(|s| s.logit_bias = vec![(1, 101.0)], "logit_bias 101 of token 1");
        check(|s| s.logprobs = Some(11), "logprobs 11");
        assert_eq!(Sampling::default().check(10), Ok(()));
    }

    #[test]
    fn greedy_is_what_changes_no_argmax() {
        let greedy = |sampling: Sampling| sampling.is_greedy();
        assert!(greedy(Sampling { top_k: 3, top_p: 0.5, seed: 9, ..Sampling::default() }));
        assert!(!greedy(Sampling { temperature: 0.1, ..Sampling::default() }));
        assert!(!greedy(Sampling { repetition_penalty: 1.1, ..Sampling::default() }));
        assert!(!greedy(Sampling { logit_bias: vec![(1, 1.0)], ..Sampling::default() }));
    }
}
