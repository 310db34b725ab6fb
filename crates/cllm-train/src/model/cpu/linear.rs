//! Linear layers: frozen, frozen with a low-rank update, trained.

use std::sync::Arc;

use cllm_kernels::training::{Matrix, matmul};
use cllm_kernels::{Activations, Linear, Rows, Source};

use super::Cpu;
use super::operation::Operation;

/// A frozen matrix `(outputs, inputs)`, packed as stored for the forward pass and
/// transposed for the gradient of the input.
#[derive(Debug)]
pub(in crate::model) struct Frozen {
    cpu: Cpu,
    forward: Linear,
    backward: Linear,
}

impl Frozen {
    pub(in crate::model) fn new(
        cpu: &Cpu,
        (outputs, inputs): (usize, usize),
        weight: &[f32],
    ) -> Self {
        let mut turned = vec![0.0; weight.len()];
        for (o, row) in weight.chunks_exact(inputs).enumerate() {
            for (i, &w) in row.iter().enumerate() {
                turned[i * outputs + o] = w;
            }
        }
        // Gradients suffer from coarse steps more than answers do.
        let pack = |outputs, inputs, weight: &[f32]| {
            let read = |output: usize, row: &mut [f32]| {
                row.copy_from_slice(&weight[output * inputs..][..inputs]);
            };
            Linear::load(outputs, inputs, cpu.format, &mut cpu.pool(), &Source::Fine(&read))
        };
        let (forward, backward) = (pack(outputs, inputs, weight), pack(inputs, outputs, &turned));
        Self { cpu: cpu.clone(), forward, backward }
    }

    /// `x W^T`: `(T, inputs) -> (T, outputs)`.
    pub(in crate::model) fn forward(&self, x: &[f32]) -> Vec<f32> {
        self.apply(&self.forward, x)
    }

    /// `dy W`: `(T, outputs) -> (T, inputs)`.
    pub(in crate::model) fn backward(&self, gradient: &[f32]) -> Vec<f32> {
        self.apply(&self.backward, gradient)
    }

    fn apply(&self, linear: &Linear, x: &[f32]) -> Vec<f32> {
        let (k, mut pool) = (linear.inputs(), self.cpu.pool());
        let mut input = Activations::default();
        input.fill(self.cpu.isa, &mut pool, linear.format(), Rows::all(x, k));
        let mut y = vec![0.0; input.rows() * linear.outputs()];
        linear.apply(self.cpu.isa, &mut pool, &input, &mut y);
        y
    }

    fn inputs(&self) -> usize {
        self.forward.inputs()
    }

    pub(in crate::model) fn outputs(&self) -> usize {
        self.forward.outputs()
    }
}

/// `y = x W^T`.
#[derive(Debug)]
pub(in crate::model) struct FrozenLinear(pub(in crate::model) Arc<Frozen>);

impl Operation<1> for FrozenLinear {
    fn forward(&self, [x]: [&[f32]; 1]) -> (Vec<f32>, Vec<f32>) {
        (self.0.forward(x), Vec::new())
    }

    fn backward(&self, _: [&[f32]; 1], _: &[f32], gradient: &[f32]) -> [Vec<f32>; 1] {
        [self.0.backward(gradient)]
    }
}

/// `y = x W^T + s (x A^T) B^T`, of `x`, `A (r, inputs)` and `B (outputs, r)`.
///
/// With `l = x A^T` and `dl = s dy B`: `dx = dy W + dl A`, `dA = dl^T x`, `dB = s dy^T l`.
#[derive(Debug)]
pub(in crate::model) struct LoraLinear {
    pub(in crate::model) weight: Arc<Frozen>,
    pub(in crate::model) r: usize,
    pub(in crate::model) scale: f32,
}

impl Operation<3> for LoraLinear {
    fn forward(&self, [x, a, b]: [&[f32]; 3]) -> (Vec<f32>, Vec<f32>) {
        let (k, n, r) = (self.weight.inputs(), self.weight.outputs(), self.r);
        let t = x.len() / k;
        let mut y = self.weight.forward(x);
        let mut pool = self.weight.cpu.pool();
        let mut low = vec![0.0; t * r];
        let x = Matrix::new(x, (t, k), k);
        matmul(&mut pool, &mut low, (1.0, 0.0), x, Matrix::new(a, (r, k), k).t());
        let l = Matrix::new(&low, (t, r), r);
        matmul(&mut pool, &mut y, (self.scale, 1.0), l, Matrix::new(b, (n, r), r).t());
        (y, low)
    }

    fn backward(&self, [x, a, b]: [&[f32]; 3], low: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
        let (k, n, r) = (self.weight.inputs(), self.weight.outputs(), self.r);
        let t = x.len() / k;
        let mut dx = self.weight.backward(dy);
        let mut pool = self.weight.cpu.pool();
        let dy = Matrix::new(dy, (t, n), n);
        let mut down = vec![0.0; t * r];
        matmul(&mut pool, &mut down, (self.scale, 0.0), dy, Matrix::new(b, (n, r), r));
        let mut db = vec![0.0; n * r];
        matmul(&mut pool, &mut db, (self.scale, 0.0), dy.t(), Matrix::new(low, (t, r), r));
        let dl = Matrix::new(&down, (t, r), r);
        let mut da = vec![0.0; r * k];
        matmul(&mut pool, &mut da, (1.0, 0.0), dl.t(), Matrix::new(x, (t, k), k));
        matmul(&mut pool, &mut dx, (1.0, 1.0), dl, Matrix::new(a, (r, k), k));
        [dx, da, db]
    }
}

/// `y = x W^T` of `x (T, inputs)` and a `W (outputs, inputs)` that is trained: `dx = dy W`,
/// `dW = dy^T x`. In f32: W is another one in every step, and not worth packing.
#[derive(Debug)]
pub(in crate::model) struct TrainedLinear {
    pub(in crate::model) cpu: Cpu,
    pub(in crate::model) outputs: usize,
}

impl Operation<2> for TrainedLinear {
    fn forward(&self, [x, w]: [&[f32]; 2]) -> (Vec<f32>, Vec<f32>) {
        let (k, n) = (w.len() / self.outputs, self.outputs);
        let t = x.len() / k;
        let mut y = vec![0.0; t * n];
        let (x, w) = (Matrix::new(x, (t, k), k), Matrix::new(w, (n, k), k));
        matmul(&mut self.cpu.pool(), &mut y, (1.0, 0.0), x, w.t());
        (y, Vec::new())
    }

    fn backward(&self, [x, w]: [&[f32]; 2], _: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
        let (k, n) = (w.len() / self.outputs, self.outputs);
        let t = x.len() / k;
        let (mut dx, mut dw) = (vec![0.0; t * k], vec![0.0; n * k]);
        let (x, w) = (Matrix::new(x, (t, k), k), Matrix::new(w, (n, k), k));
        let (dy, mut pool) = (Matrix::new(dy, (t, n), n), self.cpu.pool());
        matmul(&mut pool, &mut dx, (1.0, 0.0), dy, w);
        matmul(&mut pool, &mut dw, (1.0, 0.0), dy.t(), x);
        [dx, dw]
    }
}
