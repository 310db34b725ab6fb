//! An operation on slices becomes one on burn's tensors, with its gradient on the tape.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Shape, Tensor, TensorData};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::FlexTensor;

/// A function of N matrices on the CPU.
pub(in crate::model) trait Operation<const N: usize>:
    Debug + Send + Sync + 'static
{
    /// The result, row-major, and what the backward pass would else compute again.
    fn forward(&self, inputs: [&[f32]; N]) -> (Vec<f32>, Vec<f32>);

    /// The gradients of the inputs, given the result's.
    fn backward(&self, inputs: [&[f32]; N], saved: &[f32], gradient: &[f32]) -> [Vec<f32>; N];
}

type Tape = Autodiff<Flex, NoCheckpointing>;

/// Applies `operation`, whose result has shape `(T, columns)`, T the first input's rows.
///
/// # Panics
/// If a tensor is on another device.
pub(in crate::model) fn apply<const N: usize>(
    operation: Arc<dyn Operation<N>>,
    inputs: [Tensor<2>; N],
    columns: usize,
) -> Tensor<2> {
    let shape = [inputs[0].dims()[0], columns];
    if !inputs.iter().any(Tensor::is_tracked) {
        let inputs = inputs.map(|x| {
            let x = if x.is_autodiff() { x.inner() } else { x };
            contiguous(x.try_into_primitive::<Flex>().expect("a tensor on the CPU"))
        });
        let (result, _) = operation.forward(inputs.each_ref().map(slice));
        return Tensor::from_primitive::<Flex>(tensor(result, shape));
    }
    let inputs = inputs.map(|x| {
        let x = if x.is_autodiff() { x } else { x.autodiff() };
        x.try_into_primitive::<Tape>().expect("a tensor on the CPU's tape")
    });
    let nodes = inputs.each_ref().map(|x| x.node());
    let inputs = inputs.map(|x| contiguous(x.into_primitive()));
    let (result, saved) = operation.forward(inputs.each_ref().map(slice));
    let result = tensor(result, shape);
    let step = Step::<N>;
    let out = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            prepared.finish(State { operation, inputs, saved: Arc::new(saved) }, result)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    };
    Tensor::from_primitive::<Tape>(out)
}

#[derive(Debug)]
struct Step<const N: usize>;

#[derive(Debug, Clone)]
struct State<const N: usize> {
    operation: Arc<dyn Operation<N>>,
    inputs: [FlexTensor; N],
    saved: Arc<Vec<f32>>,
}

impl<const N: usize> Backward<Flex, N> for Step<N> {
    type State = State<N>;

    fn backward(
        self,
        ops: Ops<State<N>, N>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let State { operation, inputs, saved } = ops.state;
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let backs = operation.backward(inputs.each_ref().map(slice), &saved, slice(&gradient));
        for ((node, input), back) in ops.parents.into_iter().zip(&inputs).zip(backs) {
            if let Some(node) = node {
                let shape = input.layout().shape();
                gradients.register::<Flex>(node.id, tensor(back, [shape[0], shape[1]]));
            }
        }
    }
}

/// A tensor of the CPU, to be read where it lies.
#[derive(Debug)]
pub(in crate::model) struct CpuTensor(FlexTensor);

impl CpuTensor {
    /// # Panics
    /// If the tensor is on another device or on a tape.
    pub(in crate::model) fn of(x: Tensor<2>) -> Self {
        Self(contiguous(x.try_into_primitive::<Flex>().expect("a tensor on the CPU")))
    }

    pub(in crate::model) fn slice(&self) -> &[f32] {
        slice(&self.0)
    }

    /// Copies it if it is shared.
    pub(in crate::model) fn slice_mut(&mut self) -> &mut [f32] {
        self.0.storage_mut()
    }

    pub(in crate::model) fn tensor(self) -> Tensor<2> {
        Tensor::from_primitive::<Flex>(self.0)
    }
}

fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.as_slice::<f32>().is_some() { x } else { x.to_contiguous() }
}

fn slice(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("just made contiguous")
}

fn tensor(data: Vec<f32>, shape: [usize; 2]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, Shape::new(shape)))
}
