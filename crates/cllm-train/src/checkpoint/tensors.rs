//! Tensors in a safetensors file, all f32.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::TrainError;
use crate::learner::NamedTensor;

/// Writes tensors and waits until they are on the disk.
///
/// # Errors
/// A full disk, or a tensor whose shape is not that of its data.
pub fn write(path: &Path, tensors: &[NamedTensor]) -> Result<(), TrainError> {
    let bad = |what: String| TrainError::BadInput(format!("{}: {what}", path.display()));
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        Ok((tensor.name.clone(), view.map_err(|error| bad(format!("{}: {error}", tensor.name)))?))
    });
    let views = views.collect::<Result<Vec<_>, TrainError>>()?;
    let whole = safetensors::serialize(views, None).map_err(|error| bad(error.to_string()))?;
    super::write(path, &whole)
}

/// Reads all tensors of a file.
///
/// # Errors
/// A file that is missing, broken or has other types.
pub fn read(path: &Path) -> Result<Vec<NamedTensor>, TrainError> {
    let bad = |what: String| TrainError::BadInput(format!("{}: {what}", path.display()));
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(bad(format!("`{name}`: expected F32, found {:?}", view.dtype())));
        }
        let (values, _) = view.data().as_chunks::<4>();
        let data = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        tensors.push(NamedTensor { name: name.to_owned(), shape: view.shape().to_vec(), data });
    }
    Ok(tensors)
}
