//! RMSNorm with a frozen gain, and SwiGLU.

use std::sync::Arc;

use cllm_kernels::norm::rms_norm;
use cllm_kernels::training::elementwise::{rms_norm_backward, swiglu, swiglu_backward};

use super::operation::Operation;
use super::{Cpu, piece_of};

/// RMSNorm over rows of the gain's length.
#[derive(Debug)]
pub(in crate::model) struct RmsNorm {
    pub(in crate::model) cpu: Cpu,
    pub(in crate::model) gain: Arc<Vec<f32>>,
    pub(in crate::model) eps: f32,
}

impl Operation<1> for RmsNorm {
    fn forward(&self, [x]: [&[f32]; 1]) -> (Vec<f32>, Vec<f32>) {
        let (mut y, piece) = (vec![0.0; x.len()], piece_of(self.gain.len()));
        self.cpu.pool().for_each_chunk(&mut y, piece, &|i, y| {
            rms_norm(self.cpu.isa, &x[i * piece..][..y.len()], &self.gain, self.eps, y);
        });
        (y, Vec::new())
    }

    fn backward(&self, [x]: [&[f32]; 1], _: &[f32], dy: &[f32]) -> [Vec<f32>; 1] {
        let (mut dx, piece) = (vec![0.0; x.len()], piece_of(self.gain.len()));
        self.cpu.pool().for_each_chunk(&mut dx, piece, &|i, dx| {
            let part = i * piece..i * piece + dx.len();
            let (x, dy) = (&x[part.clone()], &dy[part]);
            rms_norm_backward(self.cpu.isa, x, &self.gain, self.eps, dy, dx);
        });
        [dx]
    }
}

/// `silu(gate) up`.
#[derive(Debug)]
pub(in crate::model) struct SwiGlu(pub(in crate::model) Cpu);

/// Elements a piece of work.
const PIECE: usize = 16_384;

impl Operation<2> for SwiGlu {
    fn forward(&self, [gate, up]: [&[f32]; 2]) -> (Vec<f32>, Vec<f32>) {
        let mut y = vec![0.0; gate.len()];
        self.0.pool().for_each_chunk(&mut y, PIECE, &|i, y| {
            let part = i * PIECE..i * PIECE + y.len();
            swiglu(self.0.isa, &gate[part.clone()], &up[part], y);
        });
        (y, Vec::new())
    }

    fn backward(&self, [gate, up]: [&[f32]; 2], _: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
        // Both gradients of a piece beside each other, so that one thread has both.
        let mut both = vec![0.0; 2 * gate.len()];
        self.0.pool().for_each_chunk(&mut both, 2 * PIECE, &|i, both| {
            let (dgate, dup) = both.split_at_mut(both.len() / 2);
            let part = i * PIECE..i * PIECE + dgate.len();
            let (gate, up) = (&gate[part.clone()], &up[part.clone()]);
            swiglu_backward(self.0.isa, gate, up, &dy[part], dgate, dup);
        });
        let mut out = [Vec::with_capacity(gate.len()), Vec::with_capacity(gate.len())];
        for both in both.chunks(2 * PIECE) {
            let (dgate, dup) = both.split_at(both.len() / 2);
            out[0].extend_from_slice(dgate);
            out[1].extend_from_slice(dup);
        }
        out
    }
}
