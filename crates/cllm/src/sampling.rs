//! Flags for sampling, named as in vLLM and OpenAI's API, `--typical-p` as in transformers.

use std::str::FromStr;

use clap::Args;
use cllm_decode::{Sampling, Token};
use serde::Serialize;

/// How each token is chosen.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Divides the logits; 0 takes the most likely token. With the same --seed every decoder
    /// gives the same text.
    #[arg(long, env = "CLLM_TEMPERATURE", value_name = "T", default_value_t = 0.0)]
    temperature: f32,

    /// Draw from the K most likely tokens; 0 is all.
    #[arg(long, env = "CLLM_TOP_K", value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Draw from the fewest most likely tokens with this much probability together.
    #[arg(long, env = "CLLM_TOP_P", value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// Draw from tokens with at least this share of the most likely one's probability.
    #[arg(long, env = "CLLM_MIN_P", value_name = "P", default_value_t = 0.0)]
    min_p: f32,

    /// Draw from the tokens nearest the expected information with this much probability.
    #[arg(long, env = "CLLM_TYPICAL_P", value_name = "P", default_value_t = 1.0)]
    typical_p: f32,

    /// Divides positive logits of tokens of prompt and answer, multiplies negative ones.
    #[arg(long, env = "CLLM_REPETITION_PENALTY", value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,

    /// Taken from the logits of tokens the answer has.
    #[arg(long, env = "CLLM_PRESENCE_PENALTY", value_name = "X", default_value_t = 0.0)]
    #[arg(allow_negative_numbers = true)]
    presence_penalty: f32,

    /// Taken from a token's logit each time the answer has it.
    #[arg(long, env = "CLLM_FREQUENCY_PENALTY", value_name = "X", default_value_t = 0.0)]
    #[arg(allow_negative_numbers = true)]
    frequency_penalty: f32,

    /// Added to a token's logit, as in 1234=-5; may be given several times.
    #[arg(long, env = "CLLM_LOGIT_BIAS", value_name = "TOKEN=BIAS", value_delimiter = ',')]
    logit_bias: Vec<Bias>,
}

/// A token with what is added to its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bias(Token, f32);

impl FromStr for Bias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        let parsed = pair.and_then(|(token, bias)| {
            Some(Self(token.trim().parse().ok()?, bias.trim().parse().ok()?))
        });
        parsed.ok_or_else(|| format!("`{text}`: expected TOKEN=BIAS, as in 1234=-5"))
    }
}

impl SamplingArgs {
    /// The settings, for choice `choice` of those that `seed` gives.
    pub(crate) fn sampling(&self, seed: u64, choice: u64, logprobs: Option<usize>) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.iter().map(|&Bias(token, bias)| (token, bias)).collect(),
            logprobs,
            seed,
            choice,
        }
    }
}

/// How tokens were chosen, for reports. What the seed is stands beside it there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Chosen {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    logit_bias: Vec<(Token, f32)>,
}

impl From<&Sampling> for Chosen {
    fn from(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            typical_p: sampling.typical_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            logit_bias: sampling.logit_bias.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_are_pairs() {
        assert_eq!("7=-1.5".parse(), Ok(Bias(7, -1.5)));
        assert_eq!("7:2".parse(), Ok(Bias(7, 2.0)));
        for text in ["", "7", "x=1", "7=", "-1=2"] {
            assert!(text.parse::<Bias>().unwrap_err().contains("expected TOKEN=BIAS"), "{text}");
        }
    }
}
