//! What is trained: values, gradients and AdamW's moments, by name.

use burn::tensor::{Device, Tensor, TensorData};

use super::cpu::{Cpu, optimizer};
use crate::learner::{AdamW, NamedTensor};

/// A trainable tensor. Vectors are held as `(1, n)`.
#[derive(Debug)]
struct Parameter {
    name: String,
    /// As its file has it.
    shape: Vec<usize>,
    value: Tensor<2>,
    gradient: Option<Tensor<2>>,
    /// Running means of the gradient and of its square.
    moments: Option<[Tensor<2>; 2]>,
    /// Matrices decay, gains and biases do not.
    decays: bool,
}

/// Index of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(usize);

/// All trainable tensors of a network.
#[derive(Debug)]
pub(super) struct Parameters {
    device: Device,
    /// Our own kernels, where they are used.
    cpu: Option<Cpu>,
    all: Vec<Parameter>,
    /// Optimizer steps taken.
    steps: u64,
}

const MOMENTS: [&str; 2] = ["exp_avg.", "exp_avg_sq."];
const STEPS: &str = "step";

impl Parameters {
    pub(super) fn new(device: Device, cpu: Option<Cpu>) -> Self {
        Self { device, cpu, all: Vec::new(), steps: 0 }
    }

    /// Adds a tensor to train.
    pub(super) fn add(&mut self, name: String, shape: &[usize], data: Vec<f32>) -> Id {
        let value = tensor(&self.device, shape, data);
        let decays = shape.len() > 1;
        let shape = shape.to_vec();
        self.all.push(Parameter { name, shape, value, gradient: None, moments: None, decays });
        Id(self.all.len() - 1)
    }

    /// The values: on the tape if `tracked`.
    pub(super) fn leaves(&self, tracked: bool) -> Leaves {
        let leaf = |p: &Parameter| match tracked {
            true => p.value.clone().autodiff().require_grad(),
            false => p.value.clone(),
        };
        Leaves(self.all.iter().map(leaf).collect())
    }

    /// Adds to a parameter's gradient.
    pub(super) fn add_gradient(&mut self, id: Id, gradient: Tensor<2>) {
        let slot = &mut self.all[id.0].gradient;
        *slot = Some(match slot.take() {
            Some(sum) => sum + gradient,
            None => gradient,
        });
    }

    /// Adds the gradients that a backward pass left at the leaves.
    pub(super) fn collect(&mut self, leaves: &Leaves, gradients: &mut burn::tensor::Gradients) {
        for (index, leaf) in leaves.0.iter().enumerate() {
            if let Some(gradient) = leaf.grad_remove(gradients) {
                self.add_gradient(Id(index), gradient);
            }
        }
    }

    /// AdamW as PyTorch computes it (Loshchilov and Hutter 2019): decoupled decay, bias
    /// corrections, epsilon outside the root. See [`crate::learner::Learner::step`].
    pub(super) fn step(&mut self, adam: &AdamW, lr: f64, max_norm: Option<f64>) -> f64 {
        let gradients: Vec<_> = self.all.iter_mut().map(|p| p.gradient.take()).collect();
        let Some(norm) = norm(self.cpu.as_ref(), &gradients) else { return 0.0 };
        if !norm.is_finite() {
            return norm;
        }
        // PyTorch's clip_grad_norm_ adds the same 1e-6.
        let clip = max_norm.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0));
        self.steps += 1;
        let correction = |beta: f64| 1.0 - beta.powi(self.steps.min(1 << 30) as i32);
        let (first, second) = (correction(adam.beta1), correction(adam.beta2));
        for (p, gradient) in self.all.iter_mut().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            let keep = if p.decays { 1.0 - lr * adam.weight_decay } else { 1.0 };
            let [m, v] =
                p.moments.take().unwrap_or_else(|| [p.value.zeros_like(), p.value.zeros_like()]);
            if let Some(cpu) = &self.cpu {
                let update = optimizer::Update {
                    betas: [adam.beta1 as f32, adam.beta2 as f32],
                    epsilon: adam.epsilon as f32,
                    clip: clip as f32,
                    rate: (lr / first) as f32,
                    root: (1.0 / second.sqrt()) as f32,
                };
                // Taken out, so that it is the only one and changes in place.
                let nothing = Tensor::zeros([0, 0], &self.device);
                let value = std::mem::replace(&mut p.value, nothing);
                let (value, moments) =
                    optimizer::step(cpu, update, keep as f32, value, [m, v], gradient);
                (p.value, p.moments) = (value, Some(moments));
                continue;
            }
            let gradient = if clip < 1.0 { gradient * clip } else { gradient };
            let m = m * adam.beta1 + gradient.clone() * (1.0 - adam.beta1);
            let v = v * adam.beta2 + gradient.powi_scalar(2) * (1.0 - adam.beta2);
            let root = (v.clone() / second).sqrt() + adam.epsilon;
            let value = if keep == 1.0 { p.value.clone() } else { p.value.clone() * keep };
            p.value = value - m.clone() / root * (lr / first);
            p.moments = Some([m, v]);
        }
        norm
    }

    /// The gradients so far, for tests.
    #[cfg(test)]
    pub(super) fn gradients(&self) -> Vec<(String, Option<Vec<f32>>)> {
        let host = |g: &Tensor<2>| data_of(g.clone());
        self.all.iter().map(|p| (p.name.clone(), p.gradient.as_ref().map(host))).collect()
    }

    /// Takes gradients from outside, for tests.
    #[cfg(test)]
    pub(super) fn set_gradients(&mut self, gradients: &[NamedTensor]) {
        for p in &mut self.all {
            let found = gradients.iter().find(|t| t.name == p.name).expect("one for each");
            p.gradient = Some(tensor(&self.device, &found.shape, found.data.clone()));
        }
    }

    /// Names, shapes and values.
    pub(super) fn values(&self) -> Vec<NamedTensor> {
        let named = |p: &Parameter| NamedTensor {
            name: p.name.clone(),
            shape: p.shape.clone(),
            data: data_of(p.value.clone()),
        };
        self.all.iter().map(named).collect()
    }

    /// The moments and the number of steps.
    pub(super) fn state(&self) -> Vec<NamedTensor> {
        let mut all = Vec::new();
        for p in &self.all {
            for (prefix, moment) in MOMENTS.iter().zip(p.moments.iter().flatten()) {
                let name = format!("{prefix}{}", p.name);
                let data = data_of(moment.clone());
                all.push(NamedTensor { name, shape: p.shape.clone(), data });
            }
        }
        all.push(count(STEPS, self.steps));
        all
    }

    /// Takes values, and moments if any, back.
    pub(super) fn restore(
        &mut self,
        values: &[NamedTensor],
        state: &[NamedTensor],
    ) -> Result<(), String> {
        let known = |name: &str| self.all.iter().any(|p| p.name == name);
        if let Some(stranger) = values.iter().find(|t| !known(&t.name)) {
            return Err(format!("{} is not a trained tensor of this run", stranger.name));
        }
        let device = self.device.clone();
        let mut updates = Vec::new();
        for p in &self.all {
            let value =
                find(values, &p.name, &p.shape)?.ok_or_else(|| format!("{} is missing", p.name))?;
            let moment = |prefix: &str| {
                let found = find(state, &format!("{prefix}{}", p.name), &p.shape)?;
                Ok::<_, String>(found.map(|t| tensor(&device, &p.shape, t.data.clone())))
            };
            let moments = match (moment(MOMENTS[0])?, moment(MOMENTS[1])?) {
                (Some(m), Some(v)) => Some([m, v]),
                (None, None) => None,
                _ => return Err(format!("{}: only one of its moments is there", p.name)),
            };
            updates.push((tensor(&device, &p.shape, value.data.clone()), moments));
        }
        self.steps = count_of(state, STEPS)?;
        for (p, (value, moments)) in self.all.iter_mut().zip(updates) {
            (p.value, p.moments, p.gradient) = (value, moments, None);
        }
        Ok(())
    }
}

/// The norm of all gradients as one vector; `None` without any.
fn norm(cpu: Option<&Cpu>, gradients: &[Option<Tensor<2>>]) -> Option<f64> {
    let mut some = gradients.iter().flatten().peekable();
    some.peek()?;
    if let Some(cpu) = cpu {
        return Some(some.map(|g| optimizer::squares(cpu, g)).sum::<f64>().sqrt());
    }
    let sum = some.map(|g| g.clone().powi_scalar(2).sum()).reduce(|a, b| a + b)?;
    Some(f64::from(sum.into_scalar::<f32>()).sqrt())
}

/// The values of all parameters during one forward.
#[derive(Debug)]
pub(super) struct Leaves(Vec<Tensor<2>>);

impl Leaves {
    pub(super) fn get(&self, id: Id) -> Tensor<2> {
        self.0[id.0].clone()
    }
}

/// A count as a tensor: two halves of 24 bits each, because one f32 stops at 16.7 million.
pub(super) fn count(name: &str, count: u64) -> NamedTensor {
    let halves = vec![(count >> 24) as f32, (count & 0xFF_FFFF) as f32];
    NamedTensor { name: name.into(), shape: vec![2], data: halves }
}

/// What [`count`] wrote, or 0.
pub(super) fn count_of(state: &[NamedTensor], name: &str) -> Result<u64, String> {
    let found = find(state, name, &[2])?;
    Ok(found.map_or(0, |t| ((t.data[0] as u64) << 24) | t.data[1] as u64))
}

/// The tensor of this name, checked.
fn find<'a>(
    all: &'a [NamedTensor],
    name: &str,
    shape: &[usize],
) -> Result<Option<&'a NamedTensor>, String> {
    let Some(found) = all.iter().find(|t| t.name == name) else { return Ok(None) };
    if found.shape != shape || found.data.len() != shape.iter().product::<usize>() {
        return Err(format!("{name}: expected shape {shape:?}, found {:?}", found.shape));
    }
    Ok(Some(found))
}

/// A tensor of two dimensions: a vector becomes `(1, n)`.
pub(super) fn tensor(device: &Device, shape: &[usize], data: Vec<f32>) -> Tensor<2> {
    let columns = shape.last().copied().unwrap_or(1);
    let rows = shape.iter().product::<usize>().checked_div(columns).unwrap_or(0);
    Tensor::from_data(TensorData::new(data, [rows, columns]), device)
}

/// A tensor's elements on the host.
pub(super) fn data_of<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("a device that can be read")
}
