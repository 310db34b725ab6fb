//! A linear layer: frozen or trained, with or without a low-rank update.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use cllm_decode::counter;
use cllm_model::adapter::PREFIX;

use super::cpu::Cpu;
use super::cpu::linear::{Frozen, FrozenLinear, LoraLinear, TrainedLinear};
use super::cpu::operation::apply;
use super::parameters::{Id, Leaves, Parameters, tensor};

/// Low-rank adaptation (Hu et al. 2021): `y = W x + alpha / r * B A x`, W frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank of the update.
    pub r: usize,
    /// Numerator of the update's scale.
    pub alpha: f64,
    /// Probability that an input of A is zeroed in training; the others grow by 1/(1-p).
    pub dropout: f64,
    /// The adapted projections: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`,
    /// `up_proj`, `down_proj`.
    pub target_modules: Vec<String>,
    /// Seed of A's first values; B starts at zero.
    pub seed: u64,
}

impl LoraConfig {
    pub(super) fn scale(&self) -> f64 {
        self.alpha / self.r as f64
    }
}

/// The weight of a layer.
#[derive(Debug)]
pub(super) enum Weight {
    /// `(outputs, inputs)`, never changed.
    Frozen(Box<Tensor<2>>),
    /// `(outputs, inputs)`, trained.
    Trained(Id),
}

/// How a layer multiplies by its weight.
#[derive(Debug)]
pub(super) enum Matrix {
    /// With burn.
    Plain(Weight),
    /// Frozen, with our kernels.
    Packed(Arc<Frozen>),
    /// Trained, with our kernels: `(outputs, inputs)`.
    Trained(Id, Cpu),
}

impl Weight {
    pub(super) fn get(&self, leaves: &Leaves) -> Tensor<2> {
        match self {
            Self::Frozen(weight) => weight.as_ref().clone(),
            Self::Trained(id) => leaves.get(*id),
        }
    }
}

/// `A (r, inputs)` and `B (outputs, r)`.
#[derive(Debug)]
struct Lora {
    a: Id,
    b: Id,
    r: usize,
    scale: f64,
    dropout: f32,
}

/// What differs between two forwards over the same rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    /// Values of the parameters.
    pub(super) leaves: &'a Leaves,
    /// Key of this forward's dropout; `None` drops nothing.
    pub(super) dropout: Option<u64>,
}

/// `(T, inputs) -> (T, outputs)`.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Matrix,
    /// `(1, outputs)`.
    bias: Option<Weight>,
    lora: Option<Lora>,
    /// Tells layers apart in dropout.
    index: u64,
}

impl Linear {
    pub(super) fn new(weight: Matrix, bias: Option<Weight>) -> Self {
        Self { weight, bias, lora: None, index: 0 }
    }

    /// Adds a low-rank update to the layer of this name and shape.
    pub(super) fn with_lora(
        mut self,
        name: &str,
        (outputs, inputs): (usize, usize),
        config: &LoraConfig,
        parameters: &mut Parameters,
        index: u64,
    ) -> Self {
        // As PEFT: A uniform within 1/sqrt(inputs) (Kaiming's with a = sqrt 5), B zero.
        let key = counter::hash(config.seed, index);
        let bound = 1.0 / (inputs as f32).sqrt();
        let a =
            (0..config.r * inputs).map(|i| (2.0 * uniform(key, i as u64) - 1.0) * bound).collect();
        let prefix = format!("{PREFIX}{name}");
        let add = |parameters: &mut Parameters, which: &str, shape: [usize; 2], data| {
            parameters.add(format!("{prefix}.{which}.weight"), &shape, data)
        };
        let a = add(parameters, "lora_A", [config.r, inputs], a);
        let b = add(parameters, "lora_B", [outputs, config.r], vec![0.0; outputs * config.r]);
        let (r, scale, dropout) = (config.r, config.scale(), config.dropout as f32);
        self.lora = Some(Lora { a, b, r, scale, dropout });
        self.index = index;
        self
    }

    pub(super) fn forward(&self, x: Tensor<2>, pass: Pass<'_>) -> Tensor<2> {
        let lora = self.lora.as_ref().map(|lora| {
            (lora, pass.leaves.get(lora.a), pass.leaves.get(lora.b), lora.dropout_key(pass))
        });
        let biased = |y: Tensor<2>| match &self.bias {
            Some(bias) => y + bias.get(pass.leaves),
            None => y,
        };
        if let (Matrix::Packed(weight), Some((lora, a, b, None))) = (&self.weight, &lora) {
            let (weight, columns) = (weight.clone(), weight.outputs());
            let operation = LoraLinear { weight, r: lora.r, scale: lora.scale as f32 };
            return biased(apply(Arc::new(operation), [x, a.clone(), b.clone()], columns));
        }
        let y = biased(match &self.weight {
            Matrix::Plain(weight) => x.clone().matmul(weight.get(pass.leaves).transpose()),
            Matrix::Packed(weight) => {
                let columns = weight.outputs();
                apply(Arc::new(FrozenLinear(weight.clone())), [x.clone()], columns)
            }
            Matrix::Trained(id, cpu) => {
                let weight = pass.leaves.get(*id);
                let (cpu, outputs) = (cpu.clone(), weight.dims()[0]);
                apply(Arc::new(TrainedLinear { cpu, outputs }), [x.clone(), weight], outputs)
            }
        });
        let Some((lora, a, b, dropout)) = lora else { return y };
        let x = match dropout {
            Some(key) => {
                x.clone()
                    * dropout_mask(
                        x.dims(),
                        lora.dropout,
                        counter::hash(key, self.index),
                        &x.device(),
                    )
            }
            None => x,
        };
        // (x A) B, never B A: the product of the two would be as large as W.
        y + (x.matmul(a.transpose()) * lora.scale).matmul(b.transpose())
    }
}

impl Lora {
    fn dropout_key(&self, pass: Pass<'_>) -> Option<u64> {
        pass.dropout.filter(|_| self.dropout > 0.0)
    }
}

/// Zero with probability p, else `1 / (1 - p)`.
fn dropout_mask(shape: [usize; 2], p: f32, key: u64, device: &Device) -> Tensor<2> {
    let kept = 1.0 / (1.0 - p);
    let draw = |i: usize| if uniform(key, i as u64) < p { 0.0 } else { kept };
    let mask = (0..shape[0] * shape[1]).map(draw).collect();
    tensor(device, &shape, mask)
}

/// Uniform in `[0, 1)`, 24 bits.
fn uniform(key: u64, at: u64) -> f32 {
    (counter::hash(key, at) >> 40) as f32 / (1u32 << 24) as f32
}
