//! The files a model comes in: a GGUF file, or a Hugging Face folder of safetensors.
//!
//! Both are mapped, checked when opened, and then look alike: tensors by Hugging Face
//! name, a [`ModelConfig`], and the one difference that cannot be hidden, the
//! [`RotaryLayout`]. Opening reads headers only; weights are touched when asked for.

mod dequant;
mod dtype;
pub mod gguf;
mod integers;
mod names;
mod plain;
mod safetensors;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cllm_kernels::{Format as Packing, Integers};

pub use self::dtype::DType;
pub use self::gguf::Gguf;
pub(crate) use self::names::gguf_name;
pub(crate) use self::plain::is_rotary;

pub(crate) use self::safetensors::TensorFile;

use self::safetensors::Folder;
use crate::adapter::{Adapter, Merge};
use crate::config::{self, ModelConfig};
use crate::error::ModelError;

/// Where a tensor is and what it looks like, checked against its file.
#[derive(Debug, Clone)]
struct TensorInfo {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// Which file of the checkpoint.
    file: usize,
    /// Bytes within that file.
    range: Range<usize>,
}

impl TensorInfo {
    /// The tensor in the bytes of its file.
    fn view<'a>(&'a self, file: &'a [u8]) -> TensorView<'a> {
        TensorView {
            name: &self.name,
            dtype: self.dtype,
            shape: self.shape.clone(),
            data: &file[self.range.clone()],
        }
    }
}

/// A tensor as it lies in its file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Storage of the elements.
    pub dtype: DType,
    /// Row-major, outermost dimension first: `[out, in]` for a projection, in both formats.
    pub shape: Vec<usize>,
    /// The stored bytes, row after row without gaps; not aligned to anything.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// Number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Elements of a row: the last dimension.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Whether its weights are integers that `format` can hold as they are.
    pub fn has_integers(&self, format: Packing) -> bool {
        integers::fit(self.dtype, format)
    }

    /// Whether the integers are symmetric, every minimum being -128 times its scale.
    pub fn is_symmetric(&self) -> bool {
        self.dtype == DType::Q8_0
    }

    /// The integers, scales and minima of one row, as stored.
    ///
    /// # Panics
    /// If the tensor has none, the row is out of bounds or `out` of another length.
    pub fn read_integers(&self, row: usize, out: Integers<'_>) {
        integers::read(self.dtype, self.row_bytes(row..row + 1), out);
    }

    /// Converts rows to f32: `out` has `rows.len() * row_len()` elements.
    ///
    /// # Panics
    /// If `rows` is out of bounds or `out` has another length.
    pub fn read_f32(&self, rows: Range<usize>, out: &mut [f32]) {
        dequant::dequantize(self.dtype, self.row_bytes(rows), out);
    }

    fn row_bytes(&self, rows: Range<usize>) -> &[u8] {
        let row_bytes = self.row_len() / self.dtype.block_len() * self.dtype.block_bytes();
        &self.data[rows.start * row_bytes..rows.end * row_bytes]
    }
}

/// Which elements of a head form the pairs that the rotary embedding turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryLayout {
    /// Element i with element `i + head_dim / 2`: Hugging Face, and GGUF of Qwen (NEOX).
    Halves,
    /// Element 2 i with element 2 i + 1. llama.cpp's converter permutes the rows of the
    /// query and key projections of Llama, Mistral and SmolLM3 (weights and biases):
    /// row `h D + i + j D / 2` of Hugging Face, D = `head_dim`, j of 0 and 1, becomes row
    /// `h D + 2 i + j`.
    Interleaved,
}

impl RotaryLayout {
    /// The row of the file that holds row `i` of Hugging Face's query or key projection.
    /// Our rotation pairs element i of a head's first half with element i of its second
    /// half, as Hugging Face does; llama.cpp's converter stores the two of a pair next to
    /// each other.
    pub fn stored_row(self, i: usize, head_dim: usize) -> usize {
        match self {
            Self::Halves => i,
            Self::Interleaved => {
                let (head, e) = (i / head_dim, i % head_dim);
                let half = head_dim / 2;
                head * head_dim + 2 * (e % half) + e / half
            }
        }
    }
}

/// An opened model.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    format: Format,
    /// By name in the file: place in the list of tensors.
    index: HashMap<String, usize>,
    merge: Merge,
    /// Values in place of the file's, see [`Checkpoint::replace`].
    replaced: HashMap<String, Vec<f32>>,
}

#[derive(Debug)]
enum Format {
    Gguf(Gguf),
    Folder(Folder),
}

impl Checkpoint {
    /// Opens a `.gguf` file, or a folder with `config.json` and safetensors.
    ///
    /// # Errors
    /// What is missing or broken in the files.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let meta = std::fs::metadata(path)
            .map_err(|source| ModelError::Io { path: path.into(), source })?;
        let format = if meta.is_dir() {
            Format::Folder(Folder::open(path)?)
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            return Err(ModelError::Unsupported {
                path: path.into(),
                what: "a single safetensors file; expected the folder that holds it and \
                       config.json, or a .gguf file"
                    .into(),
            });
        } else {
            Format::Gguf(Gguf::open(path)?)
        };
        let mut checkpoint = Self {
            path: path.into(),
            format,
            index: HashMap::new(),
            merge: Merge::default(),
            replaced: HashMap::new(),
        };
        checkpoint.index =
            checkpoint.infos().iter().enumerate().map(|(i, info)| (info.name.clone(), i)).collect();
        Ok(checkpoint)
    }

    /// What kind of network it is.
    ///
    /// # Errors
    /// Missing, misshapen or unsupported configuration.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        match &self.format {
            Format::Gguf(gguf) => config::gguf::read(gguf, |hf_name| self.tensor(hf_name)),
            Format::Folder(_) => config::hf::read(&self.path),
        }
    }

    /// Lets the weights be those with this adapter merged in: [`Checkpoint::tensor_f32`] and
    /// the network that is loaded have them. Several adapters add up.
    ///
    /// # Errors
    /// A module that the network does not have, another shape, a module without matrices.
    pub fn add_adapter(&mut self, adapter: Adapter) -> Result<(), ModelError> {
        let config = self.config()?;
        self.merge.push(adapter, &config)
    }

    /// The adapters, in the order they were added.
    pub fn adapters(&self) -> &[Adapter] {
        self.merge.adapters()
    }

    pub(crate) fn merge(&self) -> &Merge {
        &self.merge
    }

    /// A tensor as it lies in the file, without adapters, by its Hugging Face name,
    /// `model.layers.0.self_attn.q_proj.weight`.
    pub fn tensor(&self, hf_name: &str) -> Option<TensorView<'_>> {
        let place = match &self.format {
            Format::Gguf(_) => self.index.get(&names::gguf_name(hf_name)?),
            // Some checkpoints were saved from the network without its head and lack the
            // prefix.
            Format::Folder(_) => {
                self.index.get(hf_name).or_else(|| self.index.get(hf_name.strip_prefix("model.")?))
            }
        };
        place.map(|&i| self.view(&self.infos()[i]))
    }

    /// Says that rows of a tensor have been read: their part of the file need not stay in
    /// memory.
    pub fn release(&self, tensor: &TensorView<'_>, rows: Range<usize>) {
        let bytes = tensor.row_bytes(rows);
        match &self.format {
            Format::Gguf(gguf) => gguf.release(bytes),
            Format::Folder(folder) => folder.files.iter().for_each(|file| file.release(bytes)),
        }
    }

    /// How the rows of the query and key projections are ordered.
    pub fn rotary_layout(&self) -> RotaryLayout {
        match &self.format {
            Format::Gguf(gguf) => config::gguf::rotary_layout(gguf),
            Format::Folder(_) => RotaryLayout::Halves,
        }
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        self.infos().iter().map(|info| self.view(info))
    }

    /// The GGUF file, if it is one: its metadata holds the tokenizer.
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.format {
            Format::Gguf(gguf) => Some(gguf),
            Format::Folder(_) => None,
        }
    }

    /// The file or folder it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, if it is one: it holds the tokenizer.
    pub fn dir(&self) -> Option<&Path> {
        match &self.format {
            Format::Gguf(_) => None,
            Format::Folder(_) => Some(&self.path),
        }
    }

    fn infos(&self) -> &[TensorInfo] {
        match &self.format {
            Format::Gguf(gguf) => &gguf.tensors,
            Format::Folder(folder) => &folder.tensors,
        }
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> TensorView<'a> {
        let bytes = match &self.format {
            Format::Gguf(gguf) => gguf.bytes(),
            Format::Folder(folder) => &folder.files[info.file],
        };
        info.view(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::RotaryLayout;

    #[test]
    fn interleaved_rows_are_found() {
        let rows: Vec<_> = (0..12).map(|i| RotaryLayout::Interleaved.stored_row(i, 6)).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert_eq!(RotaryLayout::Halves.stored_row(4, 6), 4);
    }
}
