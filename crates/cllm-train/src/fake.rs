//! A learner of a few lines, for tests of the loop: a table of bigrams.
//!
//! The logits of a row are the table's row of its token, whatever else it sees. Losses and
//! gradients are exact, the optimizer is AdamW; nothing is random.

use cllm_decode::Token;

use crate::learner::{AdamW, Learner, Losses, NamedTensor};
use crate::packed::Packed;

/// The table, `(V, V)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bigrams {
    vocab: usize,
    adam: AdamW,
    table: Vec<f32>,
    gradient: Vec<f64>,
    /// Means of gradients and of their squares.
    moments: [Vec<f32>; 2],
    steps: u32,
    /// Forwards until the next one fails, if it shall.
    pub fails_after: Option<usize>,
}

impl Bigrams {
    /// A table of zeros for `vocab` tokens.
    #[must_use]
    pub fn new(vocab: usize, adam: AdamW) -> Self {
        let zeros = vec![0.0; vocab * vocab];
        Self {
            vocab,
            adam,
            table: zeros.clone(),
            gradient: vec![0.0; vocab * vocab],
            moments: [zeros.clone(), zeros],
            steps: 0,
            fails_after: None,
        }
    }

    /// Sets a logit, for tests of what a bad value does.
    pub fn set(&mut self, token: Token, next: Token, logit: f32) {
        self.table[token as usize * self.vocab + next as usize] = logit;
    }

    fn forward(&mut self, packed: &Packed, backward: bool) -> Result<Losses, String> {
        packed.validate(self.vocab)?;
        let mut losses = Losses::default();
        let mut pieces = Vec::new();
        for target in &packed.tokens_scored {
            let token = packed.tokens[target.row];
            let found = probabilities(&self.table, self.vocab, token);
            let weight = f64::from(target.weight);
            losses.tokens -= weight * found[target.token as usize].ln();
            let mut wanted = vec![0.0; self.vocab];
            wanted[target.token as usize] = 1.0;
            pieces.push((token, found, wanted, weight));
        }
        for target in &packed.rows_scored {
            let token = packed.tokens[target.student];
            let found = probabilities(&self.table, self.vocab, token);
            let teacher = packed.tokens[target.teacher];
            let wanted = probabilities(&self.table, self.vocab, teacher);
            let weight = f64::from(target.weight);
            let kl: f64 = wanted.iter().zip(&found).map(|(q, p)| q * (q / p).ln()).sum();
            losses.rows += weight * kl;
            pieces.push((token, found, wanted, weight));
        }
        if backward {
            for (token, found, wanted, weight) in pieces {
                let at = token as usize * self.vocab;
                for (i, (p, q)) in found.iter().zip(&wanted).enumerate() {
                    self.gradient[at + i] += weight * (p - q);
                }
            }
        }
        Ok(losses)
    }
}

fn probabilities(table: &[f32], vocab: usize, token: Token) -> Vec<f64> {
    let at = token as usize * vocab;
    let exp: Vec<f64> = table[at..at + vocab].iter().map(|&x| f64::from(x).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|x| x / sum).collect()
}

impl Learner for Bigrams {
    fn accumulate(&mut self, packed: &Packed) -> Result<Losses, String> {
        match &mut self.fails_after {
            Some(0) => return Err("the fake was told to fail".into()),
            Some(left) => *left -= 1,
            None => {}
        }
        self.forward(packed, true)
    }

    fn evaluate(&mut self, packed: &Packed) -> Result<Losses, String> {
        self.forward(packed, false)
    }

    fn step(&mut self, lr: f64, max_norm: Option<f64>) -> f64 {
        let norm = self.gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        if norm.is_finite() {
            self.steps += 1;
            let scale = max_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
            let AdamW { beta1, beta2, epsilon, weight_decay } = self.adam;
            let [means, squares] = &mut self.moments;
            for (i, value) in self.table.iter_mut().enumerate() {
                let g = self.gradient[i] * scale;
                means[i] = (beta1 * f64::from(means[i]) + (1.0 - beta1) * g) as f32;
                squares[i] = (beta2 * f64::from(squares[i]) + (1.0 - beta2) * g * g) as f32;
                let mean = f64::from(means[i]) / (1.0 - beta1.powi(self.steps as i32));
                let square = f64::from(squares[i]) / (1.0 - beta2.powi(self.steps as i32));
                let decayed = f64::from(*value) * (1.0 - lr * weight_decay);
                *value = (decayed - lr * mean / (square.sqrt() + epsilon)) as f32;
            }
        }
        self.gradient.fill(0.0);
        norm
    }

    fn parameters(&self) -> Vec<NamedTensor> {
        vec![self.tensor("bigrams", &self.table)]
    }

    fn state(&self) -> Vec<NamedTensor> {
        let [means, squares] = &self.moments;
        let steps =
            NamedTensor { name: "step".into(), shape: vec![1], data: vec![self.steps as f32] };
        vec![
            self.tensor("exp_avg.bigrams", means),
            self.tensor("exp_avg_sq.bigrams", squares),
            steps,
        ]
    }

    fn restore(&mut self, parameters: &[NamedTensor], state: &[NamedTensor]) -> Result<(), String> {
        let take = |from: &[NamedTensor], like: &NamedTensor| {
            let found = from.iter().find(|tensor| tensor.name == like.name);
            let found = found.ok_or_else(|| format!("no tensor `{}`", like.name))?;
            if found.shape != like.shape {
                return Err(format!(
                    "`{}`: expected shape {:?}, found {:?}",
                    like.name, like.shape, found.shape
                ));
            }
            Ok(found.data.clone())
        };
        let table = take(parameters, &self.parameters()[0])?;
        let like = self.state();
        let moments = [take(state, &like[0])?, take(state, &like[1])?];
        self.steps = take(state, &like[2])?[0] as u32;
        (self.table, self.moments) = (table, moments);
        self.gradient.fill(0.0);
        Ok(())
    }
}

impl Bigrams {
    fn tensor(&self, name: &str, data: &[f32]) -> NamedTensor {
        NamedTensor { name: name.into(), shape: vec![self.vocab; 2], data: data.to_vec() }
    }
}
