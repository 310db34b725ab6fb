//! What training changed in a model, as an adapter.

use super::low_rank::low_rank;
use super::{Adapter, LoraConfig, LoraPair, Targets};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::weights::Checkpoint;

/// An adapter that turns one model nearly into another.
#[derive(Debug)]
pub struct Extracted {
    /// `base + adapter` is near to the trained model.
    pub adapter: Adapter,
    /// The share of the squared differences of its matrices that it holds, 0 to 1.
    pub kept: f64,
    /// What else is different, in the network's order.
    pub left_out: Vec<LeftOut>,
}

/// A tensor that differs and that an adapter does not hold: the embedding, the LM head, a norm, a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut {
    /// Its Hugging Face name.
    pub tensor: String,
    /// The norm of the difference over the norm of the base's.
    pub change: f64,
}

impl Adapter {
    /// The difference of two models of the same shape as an adapter of rank `rank`: for each linear
    /// layer of a block the nearest matrix of that rank, by a truncated singular value decomposition. `lora_alpha`
    /// is the rank, so that the scale is 1. Both models have the adapters that were added to them.
    ///
    /// Calls `progress(done, all)`, in weights, after every matrix.
    ///
    /// # Errors
    /// Models of other shapes, numbers that are not finite, or no difference.
    pub fn extract(
        base: &Checkpoint,
        trained: &Checkpoint,
        rank: usize,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Extracted, ModelError> {
        let (config, other) = (base.config()?, trained.config()?);
        let tensors = config.tensors();
        same_shapes(&tensors, &other.tensors(), trained)?;
        let (matrices, rest): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|(name, shape)| is_linear(name, shape));
        let mut pairs = Vec::with_capacity(matrices.len());
        let (mut kept, mut whole) = (0.0, 0.0);
        let all = matrices.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let mut done = 0;
        for (name, shape) in &matrices {
            let (difference, squares, _) = difference(base, trained, (&config, &other), name)?;
            let (outputs, inputs) = (shape[0], shape[1]);
            let near = low_rank(difference, outputs, inputs, rank);
            kept += near.kept;
            whole += squares;
            let module = name.strip_suffix(".weight").unwrap_or(name).to_owned();
            pairs.push(LoraPair { module, rank, inputs, outputs, a: near.a, b: near.b });
            done += outputs * inputs;
            progress(done, all);
        }
        if whole == 0.0 {
            let path = trained.path().to_owned();
            let base = base.path().display();
            let what = format!("its linear layers are those of {base}: no difference to extract");
            return Err(ModelError::Unsupported { path, what });
        }
        let mut left_out = Vec::new();
        for (tensor, _) in rest {
            let (_, squares, of) = difference(base, trained, (&config, &other), &tensor)?;
            if squares > 0.0 {
                left_out.push(LeftOut { tensor, change: (squares / of).sqrt() });
            }
        }
        let mut names: Vec<String> = Vec::new();
        for pair in &pairs {
            let name = pair.module.rsplit('.').next().unwrap_or_default();
            if !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
        }
        let settings = LoraConfig {
            r: rank,
            lora_alpha: rank as f64,
            target_modules: Some(Targets::Names(names)),
            ..LoraConfig::default()
        };
        let adapter = Self::new(settings, pairs)?;
        Ok(Extracted { adapter, kept: kept / whole, left_out })
    }
}

/// Whether a tensor is the matrix of a linear layer of a block, which adapters are for.
fn is_linear(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && name.starts_with("model.layers.")
}

/// `trained - base`, the sum of its squares, and that of the base's.
fn difference(
    base: &Checkpoint,
    trained: &Checkpoint,
    (base_config, trained_config): (&ModelConfig, &ModelConfig),
    name: &str,
) -> Result<(Vec<f32>, f64, f64), ModelError> {
    let from = base.tensor_f32(base_config, name)?;
    let mut values = trained.tensor_f32(trained_config, name)?;
    let squares = |values: &[f32]| values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    values.iter_mut().zip(&from).for_each(|(value, &from)| *value -= from);
    let (changed, of) = (squares(&values), squares(&from));
    if !changed.is_finite() {
        let what = "the difference holds NaN or infinity".into();
        return Err(ModelError::Tensor { name: name.into(), what });
    }
    Ok((values, changed, of))
}

/// Whether two networks have the same tensors.
fn same_shapes(
    base: &[(String, Vec<usize>)],
    trained: &[(String, Vec<usize>)],
    path: &Checkpoint,
) -> Result<(), ModelError> {
    let what = match base.iter().zip(trained).find(|(a, b)| a != b) {
        Some(((name, shape), (other, found))) if name == other => {
            format!("{name}: expected shape {shape:?} as in the base model, found {found:?}")
        }
        None if base.len() == trained.len() => return Ok(()),
        _ => {
            let (base, trained) = (base.len(), trained.len());
            format!("expected the base model's {base} tensors, found {trained} or other names")
        }
    };
    Err(ModelError::Unsupported { path: path.path().to_owned(), what })
}
