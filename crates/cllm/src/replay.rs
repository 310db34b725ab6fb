//! How sure a model was of what it said in a decode: for traces with probabilities.
//!
//! The decode is over when this begins. Its forwards are run again, with all logits, so the times
//! in a trace are those of a decode that nobody asked for probabilities. A row's logits do
//! not depend on its company, so what is read here is what was not read there.

use cllm_decode::{
    Batch, CausalLm, DEFAULT_PREFILL_CHUNK, KvCache, LmError, Output, RecordedIteration, Request,
    Token, Want,
};

use crate::run::Run;

/// For each forward, the probabilities of its outputs (softmax, temperature 1), or `None` where its
/// rows were not its outputs one by one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probabilities(Vec<Option<Vec<f64>>>);

impl Probabilities {
    /// Those of the forward with index `i`.
    pub(crate) fn of(&self, i: usize) -> Option<Vec<f64>> {
        self.0.get(i)?.clone()
    }

    /// Of every forward of `run`, which answered `request`.
    pub(crate) fn replay<L: CausalLm>(
        lm: &mut L,
        request: &Request,
        run: &Run,
    ) -> Result<Self, LmError> {
        let mut replay = Replay {
            cache: lm.new_cache(),
            lm,
            batch: Batch::new(),
            output: Output::new(),
            text: request.prompt.clone(),
            greedy: request.sampling.is_greedy(),
        };
        replay.read_prompt()?;
        let forwards = run.forwards.iter().map(|(forward, _)| replay.forward(forward));
        Ok(Self(forwards.collect::<Result<_, _>>()?))
    }
}

/// A decode that is gone through again.
struct Replay<'a, L: CausalLm> {
    lm: &'a mut L,
    cache: L::Cache,
    batch: Batch,
    output: Output,
    /// The prompt and what has settled; the cache holds all but the end of it.
    text: Vec<Token>,
    /// Whether outputs are the model's argmax.
    greedy: bool,
}

impl<L: CausalLm> Replay<'_, L> {
    /// All of the prompt but its last token.
    fn read_prompt(&mut self) -> Result<(), LmError> {
        while self.cache.len() + 1 < self.text.len() {
            let from = self.cache.len();
            let to = (from + DEFAULT_PREFILL_CHUNK).min(self.text.len() - 1);
            self.run(self.text[from..to].to_vec(), |_| Want::Nothing)?;
            self.cache.keep(&(0..to - from).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Runs rows after what is in the cache.
    fn run(&mut self, rows: Vec<Token>, want: impl Fn(usize) -> Want) -> Result<(), LmError> {
        self.batch.clear();
        self.batch.push_causal(0, self.cache.len(), rows, want);
        self.lm.forward(&self.batch, &mut [&mut self.cache], &mut self.output)
    }

    fn forward(&mut self, forward: &RecordedIteration) -> Result<Option<Vec<f64>>, LmError> {
        let RecordedIteration { draft, output, settled, .. } = forward;
        if output.is_empty() {
            return Ok(None);
        }
        // Row `first + i` speaks of output i: it sees the text and the first i guesses.
        let first = self.text.len() - 1 - self.cache.len();
        let guesses = draft.len().min(output.len() - 1);
        let rows = [&self.text[self.cache.len()..], &draft[..guesses]].concat();
        self.run(rows, |row| if row < first { Want::Nothing } else { Want::Logits })?;
        let chain = guesses + 1 == output.len()
            && (!self.greedy
                || (first..).zip(output).all(|(row, &said)| self.output.argmax(row) == said));
        let probabilities = chain.then(|| {
            let said = (first..).zip(output);
            said.map(|(row, &token)| probability(self.output.logits(row), token)).collect()
        });
        // What settled without having been a guess of this chain is read with the next forward.
        let right = draft[..guesses].iter().zip(output).take_while(|(g, a)| g == a).count();
        let kept = first + 1 + right.min(settled.saturating_sub(1));
        self.cache.keep(&(0..kept).collect::<Vec<_>>());
        self.text.extend_from_slice(&output[..*settled]);
        Ok(probabilities)
    }
}

/// `softmax(logits)[token]`, to the four digits that a reader can use.
fn probability(logits: &[f32], token: Token) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total = logits.iter().map(|logit| (logit - largest).exp()).sum::<f32>();
    let p = (logits[token as usize] - largest).exp() / total;
    (f64::from(p) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use cllm_decode::fake::{Fake, Kind};
    use cllm_decode::{Sampling, Sequence};

    use super::*;
    use crate::decoder::Making;

    #[test]
    fn a_probability_is_the_softmax() {
        let logits = [0.0, 2.0f32.ln(), 1.0f32.ln()];
        assert!((probability(&logits, 1) - 0.5).abs() < 1e-6);
        assert!((probability(&logits, 2) - 0.25).abs() < 1e-6);
    }

    /// The probability of a token after a text, computed alone.
    fn alone(fake: &mut Fake, text: &[Token], token: Token) -> f64 {
        let (mut batch, mut output) = (Batch::new(), Output::new());
        batch.push_causal(0, 0, text.to_vec(), |_| Want::Logits);
        fake.forward(&batch, &mut [&mut fake.new_cache()], &mut output).unwrap();
        probability(output.logits(text.len() - 1), token)
    }

    #[test]
    fn every_output_has_the_probability_it_has_alone() {
        let warm = Sampling { temperature: 1.0, ..Sampling::default() };
        for (decoder, sampling, chains) in [
            ("ar", Sampling::default(), true),
            ("jacobi:4", Sampling::default(), true),
            ("jacobi:4", warm, true),
            ("prompt-lookup", Sampling::default(), true),
            ("auto", Sampling::default(), true),
            ("jacobi-pool:4", Sampling::default(), false),
            ("lookahead", Sampling::default(), false),
        ] {
            let mut fake = Fake::new(Kind::Copy(3), 16, 90);
            let (prompt, stop_tokens) = (vec![1, 2, 3, 1, 2], vec![9]);
            let request = Request { prompt, max_new_tokens: 40, stop_tokens, sampling };
            let mut sequence = Sequence::new(fake.new_cache());
            let (spec, making) = (decoder.parse().unwrap(), Making::default());
            let on_token = &mut |_| ControlFlow::Continue(());
            let run = crate::run::run(&mut fake, &mut sequence, spec, &making, &request, on_token)
                .unwrap();
            let replayed = Probabilities::replay(&mut fake, &request, &run).unwrap();
            assert_eq!(replayed.0.len(), run.forwards.len());
            let mut text = request.prompt.clone();
            for (i, (forward, _)) in run.forwards.iter().enumerate() {
                let found = replayed.of(i);
                assert!(!chains || found.is_some() || forward.output.is_empty(), "{decoder}: {i}");
                for (k, p) in found.iter().flatten().enumerate() {
                    let seen = [&text[..], &forward.draft[..k]].concat();
                    let expected = alone(&mut fake, &seen, forward.output[k]);
                    assert_eq!(*p, expected, "{decoder}: forward {i}, output {k}");
                }
                text.extend_from_slice(&forward.output[..forward.settled]);
            }
        }
    }
}
