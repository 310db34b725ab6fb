//! The LM head with both losses and the gradients of the hidden states and, if it is
//! trained, its own: what `model/loss.rs` computes, with teachers' rows made once where they are
//! scored themselves.

use cllm_kernels::training::{Matrix, elementwise, matmul};
use elementwise::{divergence, softmax};

use super::Cpu;
use super::linear::Frozen;
use crate::learner::Losses;
use crate::packed::Packed;

/// Rows of logits at a time.
const CHUNK: usize = 96;

/// Logits, probabilities and log normalisers of some rows.
struct Distributions {
    logits: Vec<f32>,
    p: Vec<f32>,
    log: Vec<f32>,
}

/// A scored row with what it is scored against.
struct Item<'a> {
    row: usize,
    weight: f32,
    against: Against<'a>,
}

enum Against<'a> {
    Token(usize),
    Row { p: &'a [f32], logits: &'a [f32], log: f32 },
}

/// The matrix `(V, D)`.
#[derive(Clone, Copy)]
pub(in crate::model) enum HeadWeight<'a> {
    Frozen(&'a Frozen),
    Trained(&'a [f32]),
}

/// Gradients; empty where they are not wanted.
struct Gradients {
    /// `(T, D)`.
    hidden: Vec<f32>,
    /// `(V, D)`, of a trained head.
    head: Vec<f32>,
}

pub(in crate::model) struct Head<'a> {
    pub(in crate::model) cpu: &'a Cpu,
    pub(in crate::model) weight: HeadWeight<'a>,
    /// `(T, D)`.
    pub(in crate::model) hidden: &'a [f32],
    pub(in crate::model) width: usize,
}

impl Head<'_> {
    /// The losses, and if wanted the gradients `(T, D)` and, of a trained head, `(V, D)`.
    pub(in crate::model) fn score(
        &self,
        packed: &Packed,
        wanted: bool,
    ) -> (Losses, Vec<f32>, Vec<f32>) {
        let mut losses = Losses::default();
        let trained = match self.weight {
            HeadWeight::Trained(weight) => weight.len(),
            HeadWeight::Frozen(_) => 0,
        };
        let zeros = |len: usize| vec![0.0; if wanted { len } else { 0 }];
        let mut gradients = Gradients { hidden: zeros(self.hidden.len()), head: zeros(trained) };
        let v = self.vocabulary();
        // Rows that are scored against tokens or that teach, each once.
        let tokens = packed.tokens_scored.iter().map(|t| t.row);
        let teachers = packed.rows_scored.iter().map(|t| t.teacher);
        let mut rows: Vec<usize> = tokens.chain(teachers).collect();
        rows.sort_unstable();
        rows.dedup();
        for rows in rows.chunks(CHUNK) {
            let place = |row: usize| rows.binary_search(&row).ok();
            let made = self.distributions(rows);
            // Students of these rows, before their probabilities are used up.
            let students: Vec<_> = packed
                .rows_scored
                .iter()
                .filter_map(|t| Some((t.student, place(t.teacher)?, t.weight)))
                .collect();
            for students in students.chunks(CHUNK) {
                let own: Vec<usize> = students.iter().map(|s| s.0).collect();
                let items = students.iter().map(|&(row, teacher, weight)| {
                    let p = &made.p[teacher * v..][..v];
                    let logits = &made.logits[teacher * v..][..v];
                    let against = Against::Row { p, logits, log: made.log[teacher] };
                    Item { row, weight, against }
                });
                let items: Vec<Item<'_>> = items.collect();
                losses.rows += self.against(self.distributions(&own), &items, &mut gradients);
            }
            // Rows in the order of their targets; a row may have several.
            let scored: Vec<_> =
                packed.tokens_scored.iter().filter_map(|t| Some((t, place(t.row)?))).collect();
            let same = scored.len() == rows.len()
                && scored.iter().enumerate().all(|(i, (_, place))| i == *place);
            let items: Vec<Item<'_>> = scored
                .iter()
                .map(|(t, _)| Item {
                    row: t.row,
                    weight: t.weight,
                    against: Against::Token(t.token as usize),
                })
                .collect();
            let made = if same { made } else { made.pick(&scored, v) };
            losses.tokens += self.against(made, &items, &mut gradients);
        }
        (losses, gradients.hidden, gradients.head)
    }

    fn vocabulary(&self) -> usize {
        match self.weight {
            HeadWeight::Frozen(weight) => weight.outputs(),
            HeadWeight::Trained(weight) => weight.len() / self.width,
        }
    }

    /// The hidden states of some rows, one after another.
    fn hidden_of(&self, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        rows.flat_map(|row| &self.hidden[row * self.width..][..self.width]).copied().collect()
    }

    /// `(R, D) -> (R, V)`.
    fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let (d, v) = (self.width, self.vocabulary());
        match self.weight {
            HeadWeight::Frozen(weight) => weight.forward(hidden),
            HeadWeight::Trained(weight) => {
                let rows = hidden.len() / d;
                let mut logits = vec![0.0; rows * v];
                let (x, w) = (Matrix::new(hidden, (rows, d), d), Matrix::new(weight, (v, d), d));
                matmul(&mut self.cpu.pool(), &mut logits, (1.0, 0.0), x, w.t());
                logits
            }
        }
    }

    /// Adds what the logits' gradient `dz (R, V)` of these rows gives.
    fn back(&self, dz: &[f32], rows: &[usize], gradients: &mut Gradients) {
        let (d, v) = (self.width, self.vocabulary());
        let back = match self.weight {
            HeadWeight::Frozen(weight) => weight.backward(dz),
            HeadWeight::Trained(weight) => {
                let (mut pool, n) = (self.cpu.pool(), rows.len());
                let (dz, w) = (Matrix::new(dz, (n, v), v), Matrix::new(weight, (v, d), d));
                let mut back = vec![0.0; n * d];
                matmul(&mut pool, &mut back, (1.0, 0.0), dz, w);
                let hidden = self.hidden_of(rows.iter().copied());
                let x = Matrix::new(&hidden, (n, d), d);
                matmul(&mut pool, &mut gradients.head, (1.0, 1.0), dz.t(), x);
                back
            }
        };
        for (row, back) in rows.iter().zip(back.chunks_exact(d)) {
            let row = &mut gradients.hidden[row * d..][..d];
            row.iter_mut().zip(back).for_each(|(sum, x)| *sum += x);
        }
    }

    fn distributions(&self, rows: &[usize]) -> Distributions {
        let v = self.vocabulary();
        let logits = self.logits(&self.hidden_of(rows.iter().copied()));
        let mut p = logits.clone();
        // A row's log normaliser travels behind its probabilities to leave its thread.
        let log = std::sync::Mutex::new(vec![0.0; rows.len()]);
        self.cpu.pool().for_each_chunk(&mut p, v, &|i, p| {
            let total = softmax(self.cpu.isa, p);
            log.lock().expect("no thread panics here")[i] = total;
        });
        Distributions { logits, p, log: log.into_inner().expect("as above") }
    }

    /// The weighted loss of rows scored one for one; adds to the gradients unless empty.
    fn against(
        &self,
        mut made: Distributions,
        items: &[Item<'_>],
        gradients: &mut Gradients,
    ) -> f64 {
        let v = self.vocabulary();
        if items.is_empty() {
            return 0.0;
        }
        let Distributions { logits, p, log } = &mut made;
        let loss = std::sync::Mutex::new(vec![0.0f64; items.len()]);
        self.cpu.pool().for_each_chunk(p, v, &|i, q| {
            let (item, z) = (&items[i], &logits[i * v..][..v]);
            let nats = match item.against {
                Against::Token(token) => {
                    q[token] -= 1.0;
                    log[i] - z[token]
                }
                Against::Row { p, logits, log: log_p } => {
                    let nats = divergence(self.cpu.isa, p, (logits, log_p), (z, log[i]));
                    q.iter_mut().zip(p).for_each(|(q, p)| *q -= p);
                    nats
                }
            };
            q.iter_mut().for_each(|dz| *dz *= item.weight);
            loss.lock().expect("no thread panics here")[i] =
                f64::from(nats) * f64::from(item.weight);
        });
        if !gradients.hidden.is_empty() {
            let rows: Vec<usize> = items.iter().map(|item| item.row).collect();
            self.back(p, &rows, gradients);
        }
        loss.into_inner().expect("as above").iter().sum()
    }
}

impl Distributions {
    /// The rows at these places.
    fn pick<T>(&self, places: &[(T, usize)], v: usize) -> Self {
        let all = |x: &[f32]| {
            places.iter().flat_map(|&(_, i)| &x[i * v..][..v]).copied().collect::<Vec<f32>>()
        };
        let log = places.iter().map(|&(_, i)| self.log[i]).collect();
        Self { logits: all(&self.logits), p: all(&self.p), log }
    }
}
