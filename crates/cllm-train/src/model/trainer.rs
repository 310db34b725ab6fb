//! A [`Learner`] on burn.

use burn::tensor::{Device, Tensor};
use cllm_kernels::Format;
use cllm_model::config::ModelConfig;

use super::cpu::Cpu;
use super::cpu::head::{Head, HeadWeight};
use super::cpu::operation::CpuTensor;
use super::linear::Pass;
use super::loss::{Scored, score};
use super::network::{Network, Rows, Trainable, WeightSource};
use super::parameters::{Leaves, Parameters, count, count_of, data_of, tensor};
use crate::learner::{AdamW, Learner, Losses, NamedTensor};
use crate::packed::Packed;

/// How to train.
#[derive(Debug, Clone)]
pub struct TrainerConfig {
    /// What is trained.
    pub trainable: Trainable,
    /// The optimizer's settings.
    pub optimizer: AdamW,
    /// Keep only the blocks' inputs of a forward and run each block again in the backward
    /// pass: less memory, about half as much work more.
    pub gradient_checkpointing: bool,
    /// Our own kernels for attention, norms and SwiGLU, and for frozen weights, which are
    /// then held in this format: on the CPU only. `None` is burn's operations in f32.
    pub kernels: Option<Format>,
    /// Seed of dropout.
    pub seed: u64,
}

/// A network in training, on any device burn has.
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    parameters: Parameters,
    config: TrainerConfig,
    device: Device,
    /// Forwards with gradients so far: keys dropout.
    forwards: u64,
}

/// Name of the count of forwards in [`Learner::state`].
const FORWARDS: &str = "forwards";

impl Trainer {
    /// Reads the weights to `device`.
    ///
    /// # Errors
    /// A weight that is missing or of another shape; a LoRA target that does not exist.
    pub fn new(
        model: &ModelConfig,
        source: &WeightSource<'_>,
        config: TrainerConfig,
        device: &Device,
    ) -> Result<Self, String> {
        let cpu = config.kernels.map(Cpu::new).transpose()?;
        let mut parameters = Parameters::new(device.clone(), cpu.clone());
        let trainable = &config.trainable;
        let network = Network::new(model, source, trainable, &mut parameters, device, cpu)?;
        Ok(Self { network, parameters, config, device: device.clone(), forwards: 0 })
    }

    /// The gradients so far, by parameter.
    #[cfg(test)]
    pub(super) fn gradients(&self) -> Vec<(String, Option<Vec<f32>>)> {
        self.parameters.gradients()
    }

    /// Takes gradients from outside, by name.
    #[cfg(test)]
    pub(super) fn set_gradients(&mut self, gradients: &[NamedTensor]) {
        self.parameters.set_gradients(gradients);
    }

    fn rows(&self, packed: &Packed) -> Result<Rows, String> {
        packed.validate(self.network.config().vocab_size)?;
        Ok(self.network.rows(packed))
    }

    fn score(&self, x: &Tensor<2>, packed: &Packed, leaves: &Leaves, wanted: bool) -> Scored {
        let (head, id) = self.network.head(Pass { leaves, dropout: None });
        let Some(cpu) = self.network.cpu() else {
            return score(x, &untracked(head), packed, wanted && id.is_some());
        };
        let (shape, hidden) = (x.dims(), data_of(x.clone()));
        let values = CpuTensor::of(untracked(head));
        let weight = match self.network.packed_head() {
            Some(weight) => HeadWeight::Frozen(weight),
            None => HeadWeight::Trained(values.slice()),
        };
        let head = Head { cpu, weight, hidden: &hidden, width: shape[1] };
        let (losses, hidden, own) = head.score(packed, wanted);
        let hidden = match wanted {
            true => tensor(&self.device, &shape, hidden),
            false => x.zeros_like(),
        };
        let own = id.filter(|_| wanted).map(|_| {
            let v = own.len() / shape[1];
            tensor(&self.device, &[v, shape[1]], own)
        });
        Scored { losses, hidden, head: own }
    }

    /// Runs `f` on the tape from `x` on, sends `gradient` of its output back, adds the
    /// parameters' gradients and returns that of `x`.
    fn back(
        &mut self,
        leaves: &Leaves,
        x: Tensor<2>,
        gradient: Tensor<2>,
        f: impl FnOnce(&Network, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let x = x.autodiff().require_grad();
        let y = f(&self.network, x.clone());
        let mut gradients = surrogate(y, gradient).backward();
        self.parameters.collect(leaves, &mut gradients);
        x.grad_remove(&mut gradients).expect("every block hands its input's gradient down")
    }

    /// All on one tape.
    fn whole(&mut self, packed: &Packed, rows: &Rows, dropout: Option<u64>) -> Losses {
        let leaves = self.parameters.leaves(true);
        let pass = Pass { leaves: &leaves, dropout };
        let mut x = self.network.embed(&packed.tokens, pass);
        for index in 0..self.network.num_blocks() {
            x = self.network.block(index, x, rows, pass);
        }
        let hidden = self.network.finish(x, pass);
        let scored = self.score(&untracked(hidden.clone()), packed, &leaves, true);
        let mut gradients = surrogate(hidden, scored.hidden).backward();
        self.parameters.collect(&leaves, &mut gradients);
        self.add_head(scored.head, &leaves);
        scored.losses
    }

    /// A tape per block.
    fn by_block(&mut self, packed: &Packed, rows: &Rows, dropout: Option<u64>) -> Losses {
        let still = self.parameters.leaves(false);
        let pass = Pass { leaves: &still, dropout };
        let mut inputs = vec![self.network.embed(&packed.tokens, pass)];
        for index in 0..self.network.num_blocks() {
            let x = inputs[index].clone();
            inputs.push(self.network.block(index, x, rows, pass));
        }
        let leaves = self.parameters.leaves(true);
        let pass = Pass { leaves: &leaves, dropout };
        let x = inputs.pop().expect("the embedding is there");
        let hidden = self.network.finish(x.clone(), Pass { leaves: &still, dropout });
        let scored = self.score(&hidden, packed, &still, true);
        let mut gradient = self.back(&leaves, x, scored.hidden, |n, x| n.finish(x, pass));
        for (index, x) in inputs.into_iter().enumerate().rev() {
            gradient = self.back(&leaves, x, gradient, |n, x| n.block(index, x, rows, pass));
        }
        let embedded = self.network.embed(&packed.tokens, pass);
        if embedded.is_tracked() {
            let mut gradients = surrogate(embedded, gradient).backward();
            self.parameters.collect(&leaves, &mut gradients);
        }
        self.add_head(scored.head, &leaves);
        scored.losses
    }

    fn add_head(&mut self, gradient: Option<Tensor<2>>, leaves: &Leaves) {
        let (_, id) = self.network.head(Pass { leaves, dropout: None });
        if let (Some(id), Some(gradient)) = (id, gradient) {
            self.parameters.add_gradient(id, gradient);
        }
    }
}

/// A scalar whose gradient by `y` is `gradient`.
fn surrogate(y: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    (y * gradient.autodiff()).sum()
}

/// The values without their history.
fn untracked(x: Tensor<2>) -> Tensor<2> {
    if x.is_autodiff() { x.inner() } else { x }
}

impl Learner for Trainer {
    fn accumulate(&mut self, packed: &Packed) -> Result<Losses, String> {
        let rows = self.rows(packed)?;
        let dropout = Some(self.config.seed ^ self.forwards.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        self.forwards += 1;
        Ok(match self.config.gradient_checkpointing {
            true => self.by_block(packed, &rows, dropout),
            false => self.whole(packed, &rows, dropout),
        })
    }

    fn evaluate(&mut self, packed: &Packed) -> Result<Losses, String> {
        let rows = self.rows(packed)?;
        let leaves = self.parameters.leaves(false);
        let pass = Pass { leaves: &leaves, dropout: None };
        let mut x = self.network.embed(&packed.tokens, pass);
        for index in 0..self.network.num_blocks() {
            x = self.network.block(index, x, &rows, pass);
        }
        let hidden = self.network.finish(x, pass);
        Ok(self.score(&hidden, packed, &leaves, false).losses)
    }

    fn step(&mut self, lr: f64, max_norm: Option<f64>) -> f64 {
        self.parameters.step(&self.config.optimizer, lr, max_norm)
    }

    fn parameters(&self) -> Vec<NamedTensor> {
        self.parameters.values()
    }

    fn state(&self) -> Vec<NamedTensor> {
        let mut state = self.parameters.state();
        state.push(count(FORWARDS, self.forwards));
        state
    }

    fn restore(&mut self, parameters: &[NamedTensor], state: &[NamedTensor]) -> Result<(), String> {
        self.parameters.restore(parameters, state)?;
        self.forwards = count_of(state, FORWARDS)?;
        Ok(())
    }
}
