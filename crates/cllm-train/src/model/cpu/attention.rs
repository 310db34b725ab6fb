//! Rotation and attention as one operation.

use std::sync::Arc;

use cllm_kernels::rope::rotate;
use cllm_kernels::training::{Heads, Segment, attend, attend_backward};
use cllm_model::config::ModelConfig;

use super::Cpu;
use super::operation::Operation;
use crate::packed::Packed;

/// What attention knows of a forward's rows.
#[derive(Debug)]
pub(in crate::model) struct Rows {
    segments: Vec<Segment>,
    positions: Vec<usize>,
    /// `(T, head_dim / 2)`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rows {
    pub(in crate::model) fn new(packed: &Packed, frequencies: &[f32]) -> Self {
        let angles = |f: fn(f32) -> f32| {
            let row = |&position: &usize| frequencies.iter().map(move |&w| f(position as f32 * w));
            packed.positions.iter().flat_map(row).collect()
        };
        let segment =
            |s: &crate::packed::Segment| Segment { rows: s.rows.clone(), sees: s.sees.clone() };
        Self {
            segments: packed.segments.iter().map(segment).collect(),
            positions: packed.positions.clone(),
            cos: angles(libm::cosf),
            sin: angles(libm::sinf),
        }
    }
}

/// `(T, H head_dim)` of queries `(T, H head_dim)`, keys and values `(T, H_kv head_dim)`.
#[derive(Debug)]
pub(in crate::model) struct Attention {
    cpu: Cpu,
    rows: Arc<Rows>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    turned: bool,
}

impl Attention {
    pub(in crate::model) fn new(
        cpu: &Cpu,
        rows: &Arc<Rows>,
        config: &ModelConfig,
        layer: usize,
    ) -> Self {
        Self {
            cpu: cpu.clone(),
            rows: rows.clone(),
            heads: config.num_heads,
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            window: config.sliding_window[layer],
            turned: config.rope_layers[layer],
        }
    }

    fn shape(&self) -> Heads<'_> {
        Heads {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            segments: &self.rows.segments,
            window: self.window.map(|window| (&self.rows.positions[..], window)),
        }
    }

    /// Turns all heads by their rows' angles, or back: the inverse of a rotation is its
    /// transpose, which is what a gradient goes through.
    fn turn(&self, x: &mut [f32], back: bool) {
        let (rows, half) = (self.rows.positions.len(), self.head_dim / 2);
        if !self.turned || rows == 0 {
            return;
        }
        let sin: Vec<f32>;
        let sines = match back {
            true => {
                sin = self.rows.sin.iter().map(|s| -s).collect();
                &sin
            }
            false => &self.rows.sin,
        };
        let width = x.len() / rows;
        self.cpu.pool().for_each_chunk(x, 16 * width, &|piece, x| {
            for (i, x) in x.chunks_exact_mut(width).enumerate() {
                let at = (piece * 16 + i) * half;
                rotate(self.cpu.isa, x, &self.rows.cos[at..][..half], &sines[at..][..half]);
            }
        });
    }

    fn turned(&self, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        self.turn(&mut x, false);
        x
    }
}

impl Operation<3> for Attention {
    fn forward(&self, [q, k, v]: [&[f32]; 3]) -> (Vec<f32>, Vec<f32>) {
        let (q, k) = (self.turned(q), self.turned(k));
        let out = attend(self.cpu.isa, &mut self.cpu.pool(), self.shape(), [&q, &k, v]);
        (out, Vec::new())
    }

    fn backward(&self, [q, k, v]: [&[f32]; 3], _: &[f32], gradient: &[f32]) -> [Vec<f32>; 3] {
        let (q, k) = (self.turned(q), self.turned(k));
        let (isa, shape) = (self.cpu.isa, self.shape());
        let [mut dq, mut dk, dv] =
            attend_backward(isa, &mut self.cpu.pool(), shape, [&q, &k, v], gradient);
        self.turn(&mut dq, true);
        self.turn(&mut dk, true);
        [dq, dk, dv]
    }
}
