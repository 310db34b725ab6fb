//! The network of the Llama family, one forward for all its members.
//!
//! A forward takes rows, not sequences: embedding, norms, projections and feed-forward
//! treat every row alike, and only attention asks what a row may see. Nothing here
//! branches on the number of rows, and every kernel treats a row by itself, so a row's
//! logits have the same bits in any company (the law of [`cllm_decode::batch`]).

mod cache;
mod plan;
mod rope;
mod weights;

use std::time::Instant;

use cllm_decode::lm::argmax;
use cllm_decode::{Batch, CausalLm, KvCache, LmError, Output, Want};
use cllm_kernels::heads::{Heads, Place};
use cllm_kernels::{
    Activations, Best, Coming, Format, HeadShape, Isa, KvFormat, KvStore, Pool, Query, RopeTable,
    Rows,
};

use crate::compute::Compute;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::weights::Checkpoint;

pub use cache::LlamaCache;
use plan::Plan;
pub use rope::frequencies;
use weights::Weights;

/// A model of the Llama family, ready to run.
#[derive(Debug)]
pub struct Llama {
    config: ModelConfig,
    context: usize,
    weights: Weights,
    kv_format: KvFormat,
    isa: Isa,
    pool: Pool,
    rope: RopeTable,
    scratch: Scratch,
    loaded: Instant,
}

/// Activations of the running forward; kept to keep their memory.
#[derive(Debug, Default)]
struct Scratch {
    /// The residual stream, `(R, D)`.
    x: Vec<f32>,
    /// The input of a linear layer: `(R, D)`, `(R, H head_dim)`.
    input: Activations,
    /// `(R, (H + 2 H_kv) head_dim)`.
    qkv: Vec<f32>,
    /// `(R, H head_dim)`.
    attended: Vec<f32>,
    /// `(R, F)`.
    gated: Activations,
}

impl Llama {
    /// Loads and packs the weights of a checkpoint.
    ///
    /// `context` limits the positions below what the model was made for.
    pub fn load(
        checkpoint: &Checkpoint,
        config: ModelConfig,
        compute: Compute,
        isa: Isa,
        mut pool: Pool,
        context: Option<usize>,
    ) -> Result<Self, ModelError> {
        if checkpoint.is_replaced() {
            return Err(ModelError::Unsupported {
                path: checkpoint.path().into(),
                what: "replaced tensors; write the model and load that".into(),
            });
        }
        let weights = Weights::load(checkpoint, &config, compute, &mut pool)?;
        let rope = RopeTable::new(rope::frequencies(&config));
        let context = config.context_length.min(context.unwrap_or(usize::MAX));
        let scratch = Scratch::default();
        // Where the layers lose nothing, neither do keys and values.
        let kv_format = KvFormat::beside(weights.layers[0].qkv.format());
        let loaded = Instant::now();
        Ok(Self { config, context, weights, kv_format, isa, pool, rope, scratch, loaded })
    }

    /// Shapes and flags.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How the matrices are stored: usually one format, and another for the LM head.
    pub fn formats(&self) -> Vec<Format> {
        self.weights.formats()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Bytes of weights that one forward reads.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Bytes of KV cache per position of one sequence.
    pub fn kv_bytes_per_position(&self) -> usize {
        self.config.num_layers
            * KvStore::slot_bytes(self.kv_format, self.config.num_kv_heads, self.config.head_dim)
    }

    /// Runs the layers: leaves the residual stream of all rows in `scratch.x`, and keys and
    /// values in the caches' pending slots.
    fn layers(&mut self, batch: &Batch, plan: &Plan, caches: &mut [&mut LlamaCache]) {
        let (rows, d) = (batch.len(), self.config.hidden_size);
        self.scratch.x.resize(rows * d, 0.0);
        for (row, x) in batch.rows().iter().zip(self.scratch.x.chunks_exact_mut(d)) {
            self.weights.embed(row.token as usize, x);
        }
        for index in 0..self.config.num_layers {
            self.attention_block(index, batch, plan, caches);
            self.mlp_block(index);
        }
    }

    /// `x += W_o attention(norm(x))`
    fn attention_block(
        &mut self,
        index: usize,
        batch: &Batch,
        plan: &Plan,
        caches: &mut [&mut LlamaCache],
    ) {
        let Self { config, weights, isa, pool, rope, scratch, .. } = self;
        let Scratch { x, input, qkv, attended, .. } = scratch;
        let (layer, isa) = (&weights.layers[index], *isa);
        let shape = HeadShape {
            heads: config.num_heads,
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
        };
        let (q_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);

        let width = q_width + 2 * kv_width;
        let normed = Rows::all(x, config.hidden_size);
        let normed = normed.normed(&layer.attention_norm, config.rms_norm_eps);
        input.fill(isa, pool, layer.qkv.format(), normed);
        qkv.resize(batch.len() * width, 0.0);
        layer.qkv.apply(isa, pool, input, qkv);

        let heads = Heads {
            shape,
            norms: layer.qk_norm.as_ref().map(|(q, k)| [&q[..], &k[..]]),
            eps: config.rms_norm_eps,
            rope: config.rope_layers[index].then_some(&*rope),
        };
        let places: Vec<Place> = batch
            .rows()
            .iter()
            .zip(plan.slots())
            .map(|(row, &slot)| Place { position: row.position, store: row.sequence, slot })
            .collect();
        let mut stores: Vec<_> = caches.iter_mut().map(|cache| cache.layer_mut(index)).collect();
        heads.place(isa, pool, qkv, &places, &mut stores);

        let window = config.sliding_window[index];
        let queries: Vec<Query<'_>> = batch
            .rows()
            .iter()
            .zip(qkv.chunks_exact(width))
            .enumerate()
            .map(|(i, (row, qkv))| Query {
                q: &qkv[..q_width],
                kv: caches[row.sequence].layer(index),
                span: plan.span(i, window),
            })
            .collect();
        attended.resize(batch.len() * q_width, 0.0);
        let coming = Coming::new(&layer.output, &layer.gate_up);
        cllm_kernels::attention(isa, pool, shape, &queries, coming, attended);

        input.fill(isa, pool, layer.output.format(), Rows::all(attended, q_width));
        layer.output.add_to(isa, pool, input, x);
    }

    /// `x += W_down (silu(W_gate norm(x)) * W_up norm(x))`
    fn mlp_block(&mut self, index: usize) {
        let Self { config, weights, isa, pool, scratch, .. } = self;
        let Scratch { x, input, gated, .. } = scratch;
        let (layer, isa) = (&weights.layers[index], *isa);
        let normed = Rows::all(x, config.hidden_size).normed(&layer.mlp_norm, config.rms_norm_eps);
        input.fill(isa, pool, layer.gate_up.format(), normed);
        layer.gate_up.apply(isa, pool, input, layer.down.format(), gated);
        layer.down.add_to(isa, pool, gated, x);
    }

    /// Runs the LM head on the rows that asked for something.
    fn head(&mut self, batch: &Batch, output: &mut Output) -> Result<(), LmError> {
        let Self { config, weights, isa, pool, scratch, .. } = self;
        let (d, isa) = (config.hidden_size, *isa);
        let Scratch { x, input, .. } = scratch;
        // Fills `input` with the rows that want this.
        let hidden = |want: Want, input: &mut Activations, pool: &mut Pool| {
            let rows: Vec<usize> =
                (0..batch.len()).filter(|&i| batch.rows()[i].want == want).collect();
            let normed = Rows::all(x, d).only(&rows).normed(&weights.norm, config.rms_norm_eps);
            input.fill(isa, pool, weights.head.format(), normed);
            rows
        };
        let broken = |row: usize| LmError::NotFinite { position: batch.rows()[row].position };

        let argmax_rows = hidden(Want::Argmax, input, pool);
        if !argmax_rows.is_empty() {
            let mut best = vec![Best::NONE; argmax_rows.len()];
            weights.head.argmax(isa, pool, input, &mut best);
            for (&row, best) in argmax_rows.iter().zip(&best) {
                if best.nan || !best.value.is_finite() {
                    return Err(broken(row));
                }
                output.set_argmax(row, best.index);
            }
        }
        let logits_rows = hidden(Want::Logits, input, pool);
        if !logits_rows.is_empty() {
            let mut logits = vec![0.0; logits_rows.len() * config.vocab_size];
            weights.head.apply(isa, pool, input, &mut logits);
            for (&row, logits) in logits_rows.iter().zip(logits.chunks_exact(config.vocab_size)) {
                output.set_argmax(row, argmax(logits).ok_or_else(|| broken(row))?);
                output.logits_mut(row).copy_from_slice(logits);
            }
        }
        Ok(())
    }
}

impl CausalLm for Llama {
    type Cache = LlamaCache;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn new_cache(&self) -> LlamaCache {
        let ModelConfig { num_layers, num_kv_heads, head_dim, .. } = self.config;
        LlamaCache::new(num_layers, self.kv_format, num_kv_heads, head_dim)
    }

    fn forward(
        &mut self,
        batch: &Batch,
        caches: &mut [&mut LlamaCache],
        output: &mut Output,
    ) -> Result<(), LmError> {
        let cached: Vec<usize> = caches.iter().map(|cache| cache.len()).collect();
        batch.validate(&cached, self.config.vocab_size, self.context)?;
        if let Some(adapter) = batch.rows().iter().find_map(|row| row.adapter) {
            return Err(LmError::UnknownAdapter(adapter));
        }
        output.reset(batch.len(), self.config.vocab_size);
        if batch.is_empty() {
            return Ok(());
        }
        for (sequence, cache) in caches.iter_mut().enumerate() {
            let own = batch.rows().iter().filter(|row| row.sequence == sequence);
            cache.begin(own.map(|row| row.position));
        }
        let last = batch.rows().iter().map(|row| row.position).max().unwrap_or(0);
        self.rope.reserve(last + 1);
        let plan = Plan::new(batch, &cached, &self.config.sliding_window);

        self.layers(batch, &plan, caches);
        let result = self.head(batch, output);
        if result.is_err() {
            caches.iter_mut().for_each(|cache| cache.truncate(usize::MAX));
        }
        result
    }

    /// Milliseconds since it was loaded.
    fn now(&self) -> Option<f64> {
        Some(self.loaded.elapsed().as_secs_f64() * 1e3)
    }
}
