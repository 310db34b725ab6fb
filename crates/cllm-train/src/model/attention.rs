//! Attention over packed rows, written with burn's operations: for any device, and the
//! definition that faster ways are compared with.

use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use cllm_model::config::ModelConfig;

use crate::packed::Packed;

/// What is added to the score of a key that a row does not see.
const UNSEEN: f32 = -1e30;

/// What the layers of one forward need to know of its rows.
#[derive(Debug)]
pub(super) struct PlainRows {
    /// Cosine and sine of the rows' angles, `(T, 1, head_dim)`, both halves alike.
    cos: Tensor<3>,
    sin: Tensor<3>,
    /// Per sliding window that occurs: 0 or [`UNSEEN`], `(1, G T, T)`, G query heads a key
    /// head.
    masks: Vec<(Option<usize>, Tensor<3>)>,
}

impl PlainRows {
    pub(super) fn new(
        packed: &Packed,
        config: &ModelConfig,
        frequencies: &[f32],
        device: &Device,
    ) -> Self {
        let angles = |f: fn(f32) -> f32| {
            let row = |&position: &usize| {
                let half = frequencies.iter().map(move |&w| f(position as f32 * w));
                half.clone().chain(half).collect::<Vec<f32>>()
            };
            let data = packed.positions.iter().flat_map(row).collect();
            Tensor::from_data(TensorData::new(data, [packed.len(), 1, config.head_dim]), device)
        };
        let mut windows = config.sliding_window.clone();
        windows.sort_unstable();
        windows.dedup();
        let groups = config.num_heads / config.num_kv_heads;
        let masks = windows
            .into_iter()
            .map(|window| (window, mask(packed, window, groups, device)))
            .collect();
        Self { cos: angles(libm::cosf), sin: angles(libm::sinf), masks }
    }

    /// Turns the heads of `x (T, heads, head_dim)` by their rows' angles, pairs half a head
    /// apart (Su et al. 2021, as in Hugging Face).
    fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let low = x.clone().narrow(2, 0, half);
        let high = x.clone().narrow(2, half, half);
        let turned = Tensor::cat(vec![high.neg(), low], 2);
        x * self.cos.clone() + turned * self.sin.clone()
    }

    /// Attention of layer `index`: `q (T, H head_dim)`, `k` and `v (T, H_kv head_dim)`, to
    /// `(T, H head_dim)`.
    pub(super) fn attend_heads(
        &self,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        config: &ModelConfig,
        index: usize,
    ) -> Tensor<2> {
        let heads = |x: Tensor<2>, heads| {
            let t = x.dims()[0];
            x.reshape([t, heads, config.head_dim])
        };
        let mut q = heads(q, config.num_heads);
        let mut k = heads(k, config.num_kv_heads);
        if config.rope_layers[index] {
            (q, k) = (self.rotate(q), self.rotate(k));
        }
        self.attend(q, k, heads(v, config.num_kv_heads), config.sliding_window[index])
    }

    /// `q (T, H, head_dim)`, `k` and `v` `(T, H_kv, head_dim)` to `(T, H head_dim)`.
    fn attend(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, window: Option<usize>) -> Tensor<2> {
        let ([t, heads, head_dim], kv_heads) = (q.dims(), k.dims()[1]);
        let groups = heads / kv_heads;
        // Query heads of one key head stand below each other: (H_kv, G T, head_dim).
        let q = q.swap_dims(0, 1).reshape([kv_heads, groups * t, head_dim]);
        let (k, v) = (k.swap_dims(0, 1), v.swap_dims(0, 1));
        let scale = 1.0 / (head_dim as f32).sqrt();
        let scores = (q * scale).matmul(k.transpose()) + self.mask(window);
        let attended = softmax(scores, 2).matmul(v);
        attended.reshape([heads, t, head_dim]).swap_dims(0, 1).reshape([t, heads * head_dim])
    }

    fn mask(&self, window: Option<usize>) -> Tensor<3> {
        let found = self.masks.iter().find(|(w, _)| *w == window);
        found.expect("one mask for each window of the configuration").1.clone()
    }
}

fn mask(packed: &Packed, window: Option<usize>, groups: usize, device: &Device) -> Tensor<3> {
    let t = packed.len();
    let mut mask = vec![UNSEEN; t * t];
    for segment in &packed.segments {
        for row in segment.rows.clone() {
            let own = segment.rows.start..row + 1;
            for key in segment.sees.iter().cloned().flatten().chain(own) {
                let distance = packed.positions[row].abs_diff(packed.positions[key]);
                if window.is_none_or(|window| distance < window) {
                    mask[row * t + key] = 0.0;
                }
            }
        }
    }
    Tensor::<3>::from_data(TensorData::new(mask, [1, t, t]), device).repeat_dim(1, groups)
}
