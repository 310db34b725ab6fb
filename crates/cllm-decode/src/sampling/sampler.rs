//! Chooses the tokens of a request's rows.

use std::ops::Range;

use super::Sampling;
use super::filter::{self, Candidate};
use super::gumbel;
use super::logprobs::TokenLogprobs;
use super::seen::Seen;
use crate::batch::{Batch, Want};
use crate::lm::{Output, Token, argmax};

/// What a request that is not plainly greedy keeps between forwards.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    sampling: Sampling,
    seen: Seen,
    /// The logits under work, shape `(vocab,)`.
    z: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// For a request; `None` if the model's own argmax is all that is wanted.
    pub(crate) fn new(sampling: &Sampling, prompt_len: usize) -> Option<Self> {
        let needed = !sampling.is_greedy() || sampling.logprobs.is_some();
        needed.then(|| Self {
            sampling: sampling.clone(),
            seen: Seen::new(prompt_len),
            z: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Overwrites the argmax of those of `rows` that asked for logits with the token chosen
    /// for the place after each. `text` is what is settled.
    pub(crate) fn choose(
        &mut self,
        text: &[Token],
        rows: Range<usize>,
        batch: &Batch,
        output: &mut Output,
    ) {
        if self.sampling.is_greedy() {
            return;
        }
        for row in rows {
            let asked = &batch.rows()[row];
            if asked.want != Want::Logits {
                continue;
            }
            self.z.clear();
            self.z.extend_from_slice(output.logits(row));
            for &(token, bias) in &self.sampling.logit_bias {
                self.z[token as usize] += bias;
            }
            if self.sampling.penalises() {
                self.seen.count(text, asked.prefix);
                for peer in batch.peers(row).iter().cloned().flatten() {
                    self.seen.add(batch.rows()[peer].position, batch.rows()[peer].token);
                }
                self.seen.add(asked.position, asked.token);
                self.penalise();
            }
            if let Some(token) = self.draw(asked.position + 1) {
                output.set_argmax(row, token);
            }
        }
    }

    /// Applies the penalties.
    fn penalise(&mut self) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } =
            self.sampling;
        for (token, count) in self.seen.tokens() {
            let z = &mut self.z[token as usize];
            *z = if *z > 0.0 { *z / repetition_penalty } else { *z * repetition_penalty };
            if count > 0 {
                *z -= presence_penalty + frequency_penalty * count as f32;
            }
        }
    }

    /// The token for `position`; `None` if no logit is finite.
    fn draw(&mut self, position: usize) -> Option<Token> {
        let Sampling { temperature, seed, choice, .. } = self.sampling;
        if temperature == 0.0 {
            return argmax(&self.z);
        }
        // Shifted first: a small temperature must not make infinities of large logits.
        let max = self.z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.z.iter_mut().for_each(|z| *z = (*z - max) / temperature);
        let key = gumbel::key(seed, choice, position);
        if filter::filter(&self.sampling, &self.z, &mut self.candidates) {
            return gumbel::winner(key, self.candidates.iter().copied());
        }
        // The leader first: most others then need no logarithm.
        let leader = argmax(&self.z)?;
        let all = self.z.iter().enumerate().map(|(token, &z)| (token as Token, z));
        gumbel::winner(key, std::iter::once((leader, self.z[leader as usize])).chain(all))
    }

    /// The log-probabilities of a settled token that `row` led to, if they are wanted.
    pub(crate) fn logprobs(
        &self,
        row: usize,
        token: Token,
        output: &Output,
    ) -> Option<TokenLogprobs> {
        let top = self.sampling.logprobs?;
        Some(TokenLogprobs::of(output.logits(row), token, top))
    }
}
