//! The figures of one or several answers: what they cost and how fast they were.
//!
//! All figures count the *decode* phase, from the first token of the answer (which
//! prefill gives) to the last; prefill is reported beside it. So
//! `tokens_per_second = tokens / seconds` and `mean_acceptance_length = tokens /
//! forwards` can be recomputed, and a long prompt does not dilute either. Several
//! answers are pooled: sums first, then ratios.

use std::fmt;
use std::time::Duration;

use cllm_decode::Stats;
use serde::{Deserialize, Serialize};

use crate::run::Run;

/// What answers cost. Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Tokens settled by decode forwards: all but the first of each answer.
    pub(crate) tokens: usize,
    /// Decode forwards.
    pub(crate) forwards: usize,
    /// Rows they computed.
    #[serde(default)]
    pub(crate) rows: usize,
    /// Time of the decode phase.
    pub(crate) seconds: f64,
    /// Milliseconds per decode forward.
    #[serde(default)]
    pub(crate) forward_ms: Option<f64>,
    /// `tokens / seconds`.
    pub(crate) tokens_per_second: Option<f64>,
    /// `tokens / forwards`; exactly 1 for autoregressive decoding.
    pub(crate) mean_acceptance_length: Option<f64>,
    /// All tokens of the answers.
    pub(crate) answer_tokens: usize,
    /// Prompt tokens read.
    pub(crate) prefill_tokens: usize,
    /// Forwards that read them.
    pub(crate) prefill_forwards: usize,
    /// Time of the prefill phase.
    pub(crate) prefill_seconds: f64,
    /// Time of both phases.
    pub(crate) total_seconds: f64,
}

impl Figures {
    /// The figures of these answers, pooled.
    pub(crate) fn of<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Self {
        let mut stats = Stats::default();
        let (mut answer_tokens, mut prefill, mut total) = (0, Duration::ZERO, Duration::ZERO);
        for run in runs {
            stats.add(&run.answer.stats);
            answer_tokens += run.answer.tokens.len();
            prefill += run.prefill;
            total += run.total;
        }
        let seconds = total.saturating_sub(prefill).as_secs_f64();
        let measured = stats.decode_tokens > 0 && seconds > 0.0;
        Self {
            tokens: stats.decode_tokens,
            forwards: stats.decode_forwards,
            rows: stats.decode_rows,
            seconds,
            forward_ms: per_forward(seconds, stats.decode_forwards),
            tokens_per_second: measured.then(|| stats.decode_tokens as f64 / seconds),
            mean_acceptance_length: stats.mean_acceptance_length(),
            answer_tokens,
            prefill_tokens: stats.prefill_rows,
            prefill_forwards: stats.prefill_forwards,
            prefill_seconds: prefill.as_secs_f64(),
            total_seconds: total.as_secs_f64(),
        }
    }

    /// The figures of several sets of answers, pooled.
    pub(crate) fn pool<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.tokens += one.tokens;
            sum.forwards += one.forwards;
            sum.rows += one.rows;
            sum.seconds += one.seconds;
            sum.answer_tokens += one.answer_tokens;
            sum.prefill_tokens += one.prefill_tokens;
            sum.prefill_forwards += one.prefill_forwards;
            sum.prefill_seconds += one.prefill_seconds;
            sum.total_seconds += one.total_seconds;
        }
        sum.forward_ms = per_forward(sum.seconds, sum.forwards);
        let tokens = sum.tokens as f64;
        sum.tokens_per_second = (sum.tokens > 0 && sum.seconds > 0.0).then(|| tokens / sum.seconds);
        sum.mean_acceptance_length = (sum.forwards > 0).then(|| tokens / sum.forwards as f64);
        sum
    }
}

/// Milliseconds a forward.
fn per_forward(seconds: f64, forwards: usize) -> Option<f64> {
    (forwards > 0).then(|| 1e3 * seconds / forwards as f64)
}

/// One line for people.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.answer_tokens)?;
        if let Some(speed) = self.tokens_per_second {
            write!(f, ", {speed:.1} tokens/s")?;
        }
        if let Some(length) = self.mean_acceptance_length {
            write!(f, ", mean acceptance length {length:.2}")?;
        }
        write!(
            f,
            "; prompt: {} tokens read in {:.2} s; total {:.2} s",
            self.prefill_tokens, self.prefill_seconds, self.total_seconds
        )
    }
}

/// A figure for a table, or a dash where there is none.
pub(crate) fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use cllm_decode::{Answer, Finish};

    use super::*;

    /// A run of one prefill forward, then `forwards` decode forwards that settled
    /// `tokens` in all.
    pub(crate) fn run_of(tokens: usize, forwards: usize, prefill: f64, decode: f64) -> Run {
        let stats = Stats {
            prefill_forwards: 1,
            prefill_rows: 10,
            decode_forwards: forwards,
            decode_rows: forwards,
            decode_tokens: tokens,
        };
        let answer = Answer { tokens: vec![7; tokens + 1], finish: Finish::MaxNewTokens, stats };
        let prefill = Duration::from_secs_f64(prefill);
        let total = prefill + Duration::from_secs_f64(decode);
        Run { answer, forwards: Vec::new(), logprobs: Vec::new(), prefill, total }
    }

    #[test]
    fn answers_are_pooled_before_they_are_divided() {
        let runs = [run_of(30, 10, 1.0, 2.0), run_of(10, 10, 0.5, 6.0)];
        let figures = Figures::of(&runs);
        assert_eq!((figures.tokens, figures.forwards, figures.answer_tokens), (40, 20, 42));
        assert_eq!(figures.tokens_per_second, Some(5.0));
        assert_eq!(figures.mean_acceptance_length, Some(2.0), "not the mean of 3 and 1");
        assert_eq!((figures.prefill_tokens, figures.prefill_seconds), (20, 1.5));
        assert_eq!(figures.total_seconds, 9.5);
        let apart = [Figures::of(&runs[..1]), Figures::of(&runs[1..])];
        assert_eq!(Figures::pool(&apart), figures);
        assert_eq!(
            figures.to_string(),
            "42 tokens, 5.0 tokens/s, mean acceptance length 2.00; \
             prompt: 20 tokens read in 1.50 s; total 9.50 s"
        );
    }

    #[test]
    fn an_answer_of_one_token_has_no_speed() {
        let figures = Figures::of(&[run_of(0, 0, 1.0, 0.0)]);
        assert_eq!((figures.tokens_per_second, figures.mean_acceptance_length), (None, None));
        assert_eq!(cell(figures.tokens_per_second, 1), "-");
        assert_eq!(cell(Some(1.25), 1), "1.2");
    }
}
