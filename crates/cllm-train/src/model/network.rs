//! The forward pass of a Llama-family network, from tokens to normed hidden states.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, activation::silu};
use cllm_model::config::ModelConfig;

use super::attention::PlainRows;
use super::cpu::Cpu;
use super::cpu::attention::{Attention, Rows as CpuRows};
use super::cpu::elementwise::{RmsNorm, SwiGlu};
use super::cpu::linear::Frozen;
use super::cpu::operation::apply;
use super::linear::{Linear, LoraConfig, Matrix, Pass, Weight};
use super::parameters::{Id, Parameters, tensor};
use crate::packed::Packed;

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Trainable {
    /// Every weight.
    Full,
    /// Low-rank updates of a frozen network.
    Lora(LoraConfig),
}

/// Where weights come from: Hugging Face name to elements, row-major, in the shape that the
/// configuration promises.
pub type WeightSource<'a> = dyn Fn(&str) -> Result<Vec<f32>, String> + 'a;

/// One transformer block.
#[derive(Debug)]
struct Block {
    attention_norm: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Gains over `head_dim` of query and key heads.
    qk_norm: Option<[Norm; 2]>,
    output: Linear,
    mlp_norm: Norm,
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
    norm: Norm,
    /// `None` if the embedding serves as head, or the packed one.
    head: Option<Weight>,
    /// The head for our kernels, if it is frozen and they are used.
    packed_head: Option<Arc<Frozen>>,
    device: Device,
    cpu: Option<Cpu>,
    /// Angle per position of each rotary pair.
    frequencies: Vec<f32>,
}

/// A gain and its epsilon.
#[derive(Debug)]
enum Norm {
    Plain(Weight, f32),
    Cpu(Arc<RmsNorm>),
}

impl Norm {
    fn forward(&self, x: Tensor<2>, pass: Pass<'_>) -> Tensor<2> {
        match self {
            Self::Plain(gain, eps) => rms_norm(x, gain.get(pass.leaves), *eps),
            Self::Cpu(norm) => {
                let columns = norm.gain.len();
                apply(norm.clone(), [x], columns)
            }
        }
    }
}

/// What the layers of one forward need to know of its rows.
#[derive(Debug)]
pub(super) enum Rows {
    Plain(Box<PlainRows>),
    Cpu(Arc<CpuRows>),
}

impl Network {
    /// Reads all weights; what is trained is added to `parameters`.
    pub(super) fn new(
        config: &ModelConfig,
        source: &WeightSource<'_>,
        trainable: &Trainable,
        parameters: &mut Parameters,
        device: &Device,
        cpu: Option<Cpu>,
    ) -> Result<Self, String> {
        let c = config;
        let mut builder =
            Builder { source, trainable, parameters, device, cpu: cpu.as_ref(), layers: 0 };
        let embedding = builder.weight(EMBEDDING, &[c.vocab_size, c.hidden_size])?;
        let blocks =
            (0..c.num_layers).map(|i| builder.block(c, i)).collect::<Result<Vec<_>, _>>()?;
        let norm = builder.norm("model.norm.weight", c.hidden_size, c)?;
        let packed_head = match (&cpu, trainable) {
            (Some(cpu), Trainable::Lora(_)) => {
                let name = if c.tie_word_embeddings { EMBEDDING } else { HEAD };
                let shape = (c.vocab_size, c.hidden_size);
                Some(Arc::new(Frozen::new(cpu, shape, &source(name)?)))
            }
            _ => None,
        };
        let head = match c.tie_word_embeddings || packed_head.is_some() {
            true => None,
            false => Some(builder.weight(HEAD, &[c.vocab_size, c.hidden_size])?),
        };
        if let Trainable::Lora(lora) = trainable {
            let unknown = |m: &&String| !LINEAR_MODULES.contains(&m.as_str());
            if let Some(module) = lora.target_modules.iter().find(unknown) {
                return Err(format!("target module {module}: expected one of {LINEAR_MODULES:?}"));
            }
            if builder.parameters.values().is_empty() {
                return Err("LoRA without target modules trains nothing".into());
            }
        }
        Ok(Self {
            config: config.clone(),
            embedding,
            blocks,
            norm,
            head,
            packed_head,
            device: device.clone(),
            cpu,
            frequencies: cllm_model::llama::frequencies(config),
        })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn rows(&self, packed: &Packed) -> Rows {
        match self.cpu {
            Some(_) => Rows::Cpu(Arc::new(CpuRows::new(packed, &self.frequencies))),
            None => {
                let (config, frequencies) = (&self.config, &self.frequencies);
                Rows::Plain(Box::new(PlainRows::new(packed, config, frequencies, &self.device)))
            }
        }
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
        let normed = b.attention_norm.forward(x.clone(), pass);
        let mut q = b.q.forward(normed.clone(), pass);
        let mut k = b.k.forward(normed.clone(), pass);
        let v = b.v.forward(normed, pass);
        if let Some([q_norm, k_norm]) = &b.qk_norm {
            let heads = |x: Tensor<2>, norm: &Norm| {
                let [t, width] = x.dims();
                let heads = x.reshape([t * width / c.head_dim, c.head_dim]);
                norm.forward(heads, pass).reshape([t, width])
            };
            (q, k) = (heads(q, q_norm), heads(k, k_norm));
        }
        let attended = match (rows, &self.cpu) {
            (Rows::Plain(rows), _) => rows.attend_heads(q, k, v, c, index),
            (Rows::Cpu(rows), Some(cpu)) => {
                let columns = q.dims()[1];
                apply(Arc::new(Attention::new(cpu, rows, c, index)), [q, k, v], columns)
            }
            (Rows::Cpu(_), None) => unreachable!("rows are made by this network"),
        };
        let x = x + b.output.forward(attended, pass);
        let normed = b.mlp_norm.forward(x.clone(), pass);
        let (gate, up) = (b.gate.forward(normed.clone(), pass), b.up.forward(normed, pass));
        let gated = match &self.cpu {
            Some(cpu) => apply(Arc::new(SwiGlu(cpu.clone())), [gate, up], c.intermediate_size),
            None => silu(gate) * up,
        };
        x + b.down.forward(gated, pass)
    }

    /// The last norm.
    pub(super) fn finish(&self, x: Tensor<2>, pass: Pass<'_>) -> Tensor<2> {
        self.norm.forward(x, pass)
    }

    /// Our own kernels, where they are used.
    pub(super) fn cpu(&self) -> Option<&Cpu> {
        self.cpu.as_ref()
    }

    /// The LM head packed for them, if it is frozen.
    pub(super) fn packed_head(&self) -> Option<&Frozen> {
        self.packed_head.as_deref()
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

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// The linear layers of a block, by the names that LoRA's targets have.
pub const LINEAR_MODULES: [&str; 7] =
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
    cpu: Option<&'a Cpu>,
    /// Linear layers so far.
    layers: u64,
}

impl Builder<'_> {
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Weight, String> {
        let data = (self.source)(name)?;
        if data.len() != shape.iter().product::<usize>() {
            return Err(format!("{name}: expected shape {shape:?}, found {} elements", data.len()));
        }
        Ok(match self.trainable {
            Trainable::Full => Weight::Trained(self.parameters.add(name.into(), shape, data)),
            Trainable::Lora(_) => Weight::Frozen(Box::new(tensor(self.device, shape, data))),
        })
    }

    fn norm(&mut self, name: &str, width: usize, config: &ModelConfig) -> Result<Norm, String> {
        let eps = config.rms_norm_eps;
        if let (Some(cpu), Trainable::Lora(_)) = (self.cpu, self.trainable) {
            let gain = Arc::new((self.source)(name)?);
            return Ok(Norm::Cpu(Arc::new(RmsNorm { cpu: cpu.clone(), gain, eps })));
        }
        Ok(Norm::Plain(self.weight(name, &[width])?, eps))
    }

    fn matrix(&mut self, name: &str, shape: (usize, usize)) -> Result<Matrix, String> {
        if let (Some(cpu), Trainable::Lora(_)) = (self.cpu, self.trainable) {
            let weight = (self.source)(name)?;
            return Ok(Matrix::Packed(Arc::new(Frozen::new(cpu, shape, &weight))));
        }
        Ok(match (self.weight(name, &[shape.0, shape.1])?, self.cpu) {
            (Weight::Trained(id), Some(cpu)) => Matrix::Trained(id, cpu.clone()),
            (weight, _) => Matrix::Plain(weight),
        })
    }

    fn linear(
        &mut self,
        name: &str,
        shape: (usize, usize),
        has_bias: bool,
    ) -> Result<Linear, String> {
        let weight = self.matrix(&format!("{name}.weight"), shape)?;
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
            attention_norm: self.norm(&name("input_layernorm.weight"), d, c)?,
            q: self.linear(&name("self_attn.q_proj"), (q, d), c.qkv_bias)?,
            k: self.linear(&name("self_attn.k_proj"), (kv, d), c.qkv_bias)?,
            v: self.linear(&name("self_attn.v_proj"), (kv, d), c.qkv_bias)?,
            qk_norm: if c.qk_norm {
                Some([
                    self.norm(&name("self_attn.q_norm.weight"), hd, c)?,
                    self.norm(&name("self_attn.k_norm.weight"), hd, c)?,
                ])
            } else {
                None
            },
            output: self.linear(&name("self_attn.o_proj"), (d, q), c.output_bias)?,
            mlp_norm: self.norm(&name("post_attention_layernorm.weight"), d, c)?,
            gate: self.linear(&name("mlp.gate_proj"), (f, d), c.mlp_bias)?,
            up: self.linear(&name("mlp.up_proj"), (f, d), c.mlp_bias)?,
            down: self.linear(&name("mlp.down_proj"), (d, f), c.mlp_bias)?,
        })
    }
}
