//! AdamW in one pass over each parameter, in place.
//!
//! burn's operations make a new tensor each: of all weights of a model that is a dozen times
//! their memory, cleared and written once more, for every step.

use std::sync::Mutex;

use burn::tensor::Tensor;
use cllm_kernels::training::elementwise::{adamw, square_sum};

use super::Cpu;
use super::operation::CpuTensor;

/// Elements a piece of work.
const PIECE: usize = 16_384;

/// What an update does to every parameter alike.
#[derive(Debug, Clone, Copy)]
pub(in crate::model) struct Update {
    pub(in crate::model) betas: [f32; 2],
    pub(in crate::model) epsilon: f32,
    /// Factor of the gradient.
    pub(in crate::model) clip: f32,
    /// Learning rate over the first bias correction.
    pub(in crate::model) rate: f32,
    /// Inverse root of the second bias correction.
    pub(in crate::model) root: f32,
}

/// The sum of a gradient's squares; the same whatever the number of threads.
pub(in crate::model) fn squares(cpu: &Cpu, gradient: &Tensor<2>) -> f64 {
    let gradient = CpuTensor::of(gradient.clone());
    let g = gradient.slice();
    let mut sums = vec![0.0; g.len().div_ceil(PIECE)];
    cpu.pool().for_each_chunk(&mut sums, 1, &|i, sum| {
        sum[0] = square_sum(cpu.isa, &g[i * PIECE..g.len().min((i + 1) * PIECE)]);
    });
    sums.into_iter().map(f64::from).sum()
}

/// Updates a parameter, which is first multiplied by `keep`, and its moments.
pub(in crate::model) fn step(
    cpu: &Cpu,
    update: Update,
    keep: f32,
    value: Tensor<2>,
    moments: [Tensor<2>; 2],
    gradient: Tensor<2>,
) -> (Tensor<2>, [Tensor<2>; 2]) {
    let (gradient, mut value) = (CpuTensor::of(gradient), CpuTensor::of(value));
    let [mut m, mut v] = moments.map(CpuTensor::of);
    let pieces: Vec<_> = value
        .slice_mut()
        .chunks_mut(PIECE)
        .zip(m.slice_mut().chunks_mut(PIECE))
        .zip(v.slice_mut().chunks_mut(PIECE))
        .zip(gradient.slice().chunks(PIECE))
        .map(|(((p, m), v), g)| Mutex::new((p, [m, v], g)))
        .collect();
    let Update { betas, epsilon, clip, rate, root } = update;
    cpu.pool().run_near(pieces.len(), &|i| {
        let mut piece = pieces[i].lock().expect("each piece is taken once");
        let (p, [m, v], g) = &mut *piece;
        adamw(cpu.isa, p, [m, v], (g, clip), betas, epsilon, [rate, root, keep]);
    });
    drop(pieces);
    (value.tensor(), [m, v].map(CpuTensor::tensor))
}
