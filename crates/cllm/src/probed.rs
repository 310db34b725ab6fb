//! A model that also tells how sure it was: for traces with probabilities.
//!
//! [`Probed`] stands between a decoder and a model. Wherever a row asks for the argmax it
//! asks for all logits, which bring the argmax with them, and notes the token's probability
//! (softmax, temperature 1). The answer stays the same; forwards take longer, so times of
//! such a run say little about speed. A token that a sampler chose is not the argmax and has no
//! probability here.

use cllm_decode::{Batch, CausalLm, LmError, Output, RecordedIteration, Token, Want};

/// For each forward, what its asking rows said and how sure they were, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probabilities(Vec<Vec<(Token, f32)>>);

impl Probabilities {
    /// The probabilities of the outputs of `forward`, the one with index `i`: null where they
    /// were not asked for, or where a decoder's rows are not its outputs one by one.
    pub(crate) fn of(&self, i: usize, forward: &RecordedIteration) -> Option<Vec<f64>> {
        let noted = self.0.get(i)?;
        let same = noted.iter().map(|(token, _)| token).eq(&forward.output);
        // Four digits are what a reader can use.
        same.then(|| noted.iter().map(|(_, p)| (f64::from(*p) * 1e4).round() / 1e4).collect())
    }
}

/// A model under observation.
#[derive(Debug)]
pub(crate) struct Probed<'a, L> {
    lm: &'a mut L,
    batch: Batch,
    noted: Probabilities,
}

impl<'a, L> Probed<'a, L> {
    /// Observes `lm`.
    pub(crate) fn new(lm: &'a mut L) -> Self {
        Self { lm, batch: Batch::new(), noted: Probabilities::default() }
    }

    /// What was noted.
    pub(crate) fn into_probabilities(self) -> Probabilities {
        self.noted
    }
}

impl<L: CausalLm> CausalLm for Probed<'_, L> {
    type Cache = L::Cache;

    fn vocab_size(&self) -> usize {
        self.lm.vocab_size()
    }

    fn context_length(&self) -> usize {
        self.lm.context_length()
    }

    fn new_cache(&self) -> Self::Cache {
        self.lm.new_cache()
    }

    fn forward(
        &mut self,
        batch: &Batch,
        caches: &mut [&mut Self::Cache],
        output: &mut Output,
    ) -> Result<(), LmError> {
        self.batch.clone_from(batch);
        self.batch.want_logits(0..batch.len());
        self.lm.forward(&self.batch, caches, output)?;
        let rows = batch.rows().iter().enumerate().filter(|(_, row)| row.want != Want::Nothing);
        let note = |(i, _)| {
            let token = output.argmax(i);
            (token, probability(output.logits(i), token))
        };
        self.noted.0.push(rows.map(note).collect());
        Ok(())
    }
}

/// `softmax(logits)[token]`; `token` is the largest of them.
fn probability(logits: &[f32], token: Token) -> f32 {
    let largest = logits[token as usize];
    1.0 / logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_is_the_softmax() {
        let logits = [0.0, 2.0f32.ln(), 1.0f32.ln()];
        assert!((probability(&logits, 1) - 0.5).abs() < 1e-6);
    }
}
