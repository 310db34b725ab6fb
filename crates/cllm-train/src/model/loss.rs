//! The LM head with both losses, and the gradient of the hidden states, a few rows at a
//! time.
//!
//! * AR loss, SFT: cross-entropy `-ln q(y)`.
//! * Consistency loss (Kou et al. 2024, eq. 4 and 5): `KL(p || q) = sum p (ln p - ln q)`, p
//!   the distribution of the teacher's row with its gradient stopped, q the student's.
//!
//! Logits z of all rows would be the largest tensor of a training step, so they are made in
//! chunks of scored rows and forgotten. The gradients are written out, which spares a tape:
//! `d CE / dz = q - onehot(y)` and `d KL / dz = q - p`.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::learner::Losses;
use crate::packed::{Packed, RowTarget, TokenTarget};

/// Scored rows at a time: with a vocabulary of 50,000, a logits tensor of 25 MB.
const CHUNK: usize = 128;

/// Losses and gradients.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) losses: Losses,
    /// Of the hidden states, `(T, D)`.
    pub(super) hidden: Tensor<2>,
    /// Of the head, `(V, D)`, if wanted.
    pub(super) head: Option<Tensor<2>>,
}

/// Scores `hidden (T, D)` with `head (V, D)`. Neither is on a tape.
pub(super) fn score(
    hidden: &Tensor<2>,
    head: &Tensor<2>,
    packed: &Packed,
    head_gradient: bool,
) -> Scored {
    let device = hidden.device();
    let mut scored = Scored {
        losses: Losses::default(),
        hidden: hidden.zeros_like(),
        head: head_gradient.then(|| head.zeros_like()),
    };
    for targets in packed.tokens_scored.chunks(CHUNK) {
        let rows = indices(targets.iter().map(|t| t.row), &device);
        let (input, log_q) = log_probabilities(hidden, head, rows.clone());
        let weights = column(targets.iter().map(|t: &TokenTarget| t.weight), &device);
        let tokens = indices(targets.iter().map(|t| t.token as usize), &device);
        let tokens = tokens.reshape([targets.len(), 1]);
        let right = log_q.clone().gather(1, tokens.clone());
        scored.losses.tokens -= sum(right * weights.clone());
        let dz = log_q.exp() * weights.clone();
        let dz = dz.scatter(1, tokens, weights.neg(), burn::tensor::IndexingUpdateOp::Add);
        scored.add(rows, input, dz, head);
    }
    for targets in packed.rows_scored.chunks(CHUNK) {
        let rows = indices(targets.iter().map(|t| t.student), &device);
        let teachers = indices(targets.iter().map(|t| t.teacher), &device);
        let (input, log_q) = log_probabilities(hidden, head, rows.clone());
        let (_, log_p) = log_probabilities(hidden, head, teachers);
        let weights = column(targets.iter().map(|t: &RowTarget| t.weight), &device);
        let p = log_p.clone().exp();
        let divergence = (p.clone() * (log_p - log_q.clone())).sum_dim(1);
        scored.losses.rows += sum(divergence * weights.clone());
        scored.add(rows, input, (log_q.exp() - p) * weights, head);
    }
    scored
}

impl Scored {
    /// Adds what the gradient `dz (C, V)` of rows `rows` with hidden states `input (C, D)`
    /// gives.
    fn add(&mut self, rows: Tensor<1, Int>, input: Tensor<2>, dz: Tensor<2>, head: &Tensor<2>) {
        let zeros = self.hidden.clone();
        let back = dz.clone().matmul(head.clone());
        self.hidden = zeros.select_assign(0, rows, back, burn::tensor::IndexingUpdateOp::Add);
        if let Some(sum) = self.head.take() {
            self.head = Some(sum + dz.transpose().matmul(input));
        }
    }
}

/// Hidden states `(C, D)` of the rows and their log probabilities `(C, V)`.
fn log_probabilities(
    hidden: &Tensor<2>,
    head: &Tensor<2>,
    rows: Tensor<1, Int>,
) -> (Tensor<2>, Tensor<2>) {
    let input = hidden.clone().select(0, rows);
    let logits = input.clone().matmul(head.clone().transpose());
    (input, log_softmax(logits, 1))
}

fn indices(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.map(|v| v as i64).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

fn column(values: impl Iterator<Item = f32>, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = values.collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count, 1]), device)
}

fn sum(tensor: Tensor<2>) -> f64 {
    f64::from(tensor.sum().into_scalar::<f32>())
}
