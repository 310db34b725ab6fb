//! The forward pass of a Llama-family network, from tokens to normed hidden states.

use burn::tensor::{Device, Int, Tensor, TensorData, activation::silu};
use cllm_model::config::ModelConfig;

use super::attention::Rows;
use super::linear::{Linear, LoraConfig, Pass, Weight};
use super::parameters::{Id, Parameters, tensor};

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Trainable {
    /// Every weight.
    Full,
    /// Low-rank updates of a frozen network.
    Lora(LoraConfig),
}

/// Where weights come from: Hugging Face name and shape to elements, row-major.
pub type WeightSource<'a> = dyn Fn(&str, &[usize]) -> Result<Vec<f32>, String> + 'a;

/// One transformer block.
#[derive(Debug)]
struct Block {
    attention_norm: Weight,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Gains over `head_dim` of query and key heads.
    qk_norm: Option<[Weight; 2]>,
    output: Linear,
    mlp_norm: Weight,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The network. Matrices are `(outputs, inputs)`.
#[derive(Debug)]
pub(super) struct Network {
    config: ModelConfig,
    embedding: Weight,
    blocks: Vec<Block>,
    norm: Weight,
    /// `None` if the embedding serves as head.
    head: Option<Weight>,
    device: Device,
}

impl Network {
    /// Reads all weights; what is trained is added to `parameters`.
    pub(super) fn new(
        config: &ModelConfig,
        source: &WeightSource<'_>,
        trainable: &Trainable,
        parameters: &mut Parameters,
        device: &Device,
    ) -> Result<Self, String> {
        let c = config;
        let mut builder = Builder { source, trainable, parameters, device, layers: 0 };
        let embedding =
            builder.weight("model.embed_tokens.weight", &[c.vocab_size, c.hidden_size])?;
        let blocks =
            (0..c.num_layers).map(|i| builder.block(c, i)).collect::<Result<Vec<_>, _>>()?;
        let norm = builder.weight("model.norm.weight", &[c.hidden_size])?;
        let head = if c.tie_word_embeddings {
            None
        } else {
            Some(builder.weight("lm_head.weight", &[c.vocab_size, c.hidden_size])?)
        };
        if let Trainable::Lora(lora) = trainable {
            let unknown = |m: &&String| !MODULES.contains(&m.as_str());
            if let Some(module) = lora.target_modules.iter().find(unknown) {
                return Err(format!("target module {module}: expected one of {MODULES:?}"));
            }
            if builder.parameters.values().is_empty() {
                return Err("LoRA without target modules trains nothing".into());
            }
        }
        Ok(Self { config: config.clone(), embedding, blocks, norm, head, device: device.clone() })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Embeddings of the rows' tokens, `(T, D)`.
    pub(super) fn embed(&self, tokens: &[u32], pass: Pass<'_>) -> Tensor<2> {
        let ids: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
        let ids: Tensor<1, Int> =
            Tensor::from_data(TensorData::new(ids, [tokens.len()]), &self.device);
        self.embedding.get(pass.leaves).select(0, ids)
    }

    /// One block: `(T, D) -> (T, D)`.
    pub(super) fn block(
        &self,
        index: usize,
        x: Tensor<2>,
        rows: &Rows,
        pass: Pass<'_>,
    ) -> Tensor<2> {
        let (c, b) = (&self.config, &self.blocks[index]);
        let (t, eps, hd) = (x.dims()[0], c.rms_norm_eps, c.head_dim);
        let normed = rms_norm(x.clone(), b.attention_norm.get(pass.leaves), eps);
        let mut q = b.q.forward(normed.clone(), pass);
        let mut k = b.k.forward(normed.clone(), pass);
        let v = b.v.forward(normed, pass).reshape([t, c.num_kv_heads, hd]);
        if let Some([q_gain, k_gain]) = &b.qk_norm {
            let heads = |x: Tensor<2>, heads: usize, gain: &Weight| {
                let x = x.reshape([t * heads, hd]);
                rms_norm(x, gain.get(pass.leaves), eps).reshape([t, heads * hd])
            };
            q = heads(q, c.num_heads, q_gain);
            k = heads(k, c.num_kv_heads, k_gain);
        }
        let mut q = q.reshape([t, c.num_heads, hd]);
        let mut k = k.reshape([t, c.num_kv_heads, hd]);
        if c.rope_layers[index] {
            q = rows.rotate(q);
            k = rows.rotate(k);
        }
        let attended = rows.attend(q, k, v, c.sliding_window[index]);
        let x = x + b.output.forward(attended, pass);
        let normed = rms_norm(x.clone(), b.mlp_norm.get(pass.leaves), eps);
        let gate = silu(b.gate.forward(normed.clone(), pass));
        let up = b.up.forward(normed, pass);
        x + b.down.forward(gate * up, pass)
    }

    /// The last norm.
    pub(super) fn finish(&self, x: Tensor<2>, pass: Pass<'_>) -> Tensor<2> {
        rms_norm(x, self.norm.get(pass.leaves), self.config.rms_norm_eps)
    }

    /// The LM head `(V, D)`, and which parameter it is if it is trained.
    pub(super) fn head(&self, pass: Pass<'_>) -> (Tensor<2>, Option<Id>) {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let id = match head {
            Weight::Frozen(_) => None,
            Weight::Trained(id) => Some(*id),
        };
        (head.get(pass.leaves), id)
    }
}

/// The projections of a block.
const MODULES: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// `x * gain / sqrt(mean(x^2) + eps)` over the last dimension (Zhang and Sennrich 2019).
fn rms_norm(x: Tensor<2>, gain: Tensor<2>, eps: f32) -> Tensor<2> {
    let mean = x.clone().powi_scalar(2).mean_dim(1);
    x * (mean + eps).sqrt().recip() * gain
}

struct Builder<'a> {
    source: &'a WeightSource<'a>,
    trainable: &'a Trainable,
    parameters: &'a mut Parameters,
    device: &'a Device,
    /// Linear layers so far.
    layers: u64,
}

impl Builder<'_> {
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Weight, String> {
        let data = (self.source)(name, shape)?;
        if data.len() != shape.iter().product::<usize>() {
            return Err(format!("{name}: expected shape {shape:?}, found {} elements", data.len()));
        }
        Ok(match self.trainable {
            Trainable::Full => Weight::Trained(self.parameters.add(name.into(), shape, data)),
            Trainable::Lora(_) => Weight::Frozen(tensor(self.device, shape, data)),
        })
    }

    fn linear(
        &mut self,
        name: &str,
        shape: (usize, usize),
        has_bias: bool,
    ) -> Result<Linear, String> {
        let weight = self.weight(&format!("{name}.weight"), &[shape.0, shape.1])?;
        let bias =
            has_bias.then(|| self.weight(&format!("{name}.bias"), &[shape.0])).transpose()?;
        let linear = Linear::new(weight, bias);
        self.layers += 1;
        let Trainable::Lora(lora) = self.trainable else { return Ok(linear) };
        let module = name.rsplit('.').next().unwrap_or(name);
        if !lora.target_modules.iter().any(|target| target == module) {
            return Ok(linear);
        }
        Ok(linear.with_lora(name, shape, lora, self.parameters, self.layers))
    }

    fn block(&mut self, c: &ModelConfig, index: usize) -> Result<Block, String> {
        let (d, f, hd) = (c.hidden_size, c.intermediate_size, c.head_dim);
        let (q, kv) = (c.num_heads * hd, c.num_kv_heads * hd);
        let name = |what: &str| format!("model.layers.{index}.{what}");
        Ok(Block {
            attention_norm: self.weight(&name("input_layernorm.weight"), &[d])?,
            q: self.linear(&name("self_attn.q_proj"), (q, d), c.qkv_bias)?,
            k: self.linear(&name("self_attn.k_proj"), (kv, d), c.qkv_bias)?,
            v: self.linear(&name("self_attn.v_proj"), (kv, d), c.qkv_bias)?,
            qk_norm: if c.qk_norm {
                Some([
                    self.weight(&name("self_attn.q_norm.weight"), &[hd])?,
                    self.weight(&name("self_attn.k_norm.weight"), &[hd])?,
                ])
            } else {
                None
            },
            output: self.linear(&name("self_attn.o_proj"), (d, q), c.output_bias)?,
            mlp_norm: self.weight(&name("post_attention_layernorm.weight"), &[d])?,
            gate: self.linear(&name("mlp.gate_proj"), (f, d), c.mlp_bias)?,
            up: self.linear(&name("mlp.up_proj"), (f, d), c.mlp_bias)?,
            down: self.linear(&name("mlp.down_proj"), (d, f), c.mlp_bias)?,
        })
    }
}
