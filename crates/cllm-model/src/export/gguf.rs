//! A GGUF file, version 3, as llama.cpp reads it: [`crate::weights::gguf`] has the layout.
//!
//! Matrices get the type that is asked for, vectors stay F32. Query and key rows are put in
//! llama.cpp's order where it rotates neighbours. Q8_0 rounds as ggml's reference does; a
//! matrix whose rows are no multiple of 32 is F16 instead, as llama.cpp's own tool does it.

use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use half::{bf16, f16};

use super::metadata::{self, Entry};
use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::error::ModelError;
use crate::llama::frequencies;
use crate::weights::{Checkpoint, DType, RotaryLayout, gguf_name, is_rotary};

/// The type of the matrices of a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an F32.
    Bf16,
    /// 8 bits with a scale per 32.
    Q8_0,
}

impl GgufType {
    /// `general.file_type`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
            Self::Q8_0 => 7,
        }
    }

    /// The type of a tensor of this shape.
    fn of(self, shape: &[usize]) -> DType {
        match self {
            _ if shape.len() < 2 => DType::F32,
            Self::F32 => DType::F32,
            Self::Q8_0 if shape[1].is_multiple_of(32) => DType::Q8_0,
            Self::F16 | Self::Q8_0 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// What offsets of tensors are multiples of.
const ALIGNMENT: u64 = 32;

/// One tensor to write: its name in GGUF and where it comes from.
struct Planned {
    name: String,
    /// The name of the checkpoint's tensor; the rotary factors are not one.
    hf_name: Option<String>,
    shape: Vec<usize>,
    dtype: DType,
}

/// Writes a checkpoint, its adapters merged in, to a file, which appears when it is
/// complete.
///
/// # Errors
/// What a GGUF file cannot express, and what the operating system says.
pub fn write_gguf(checkpoint: &Checkpoint, out: &Path, kind: GgufType) -> Result<(), ModelError> {
    let config = checkpoint.config()?;
    let entries = metadata::entries(checkpoint, &config, kind)?;
    let factors = factors(&config);
    let planned = plan(checkpoint, &config, kind, factors.as_deref())?;

    let io = |source| ModelError::Io { path: out.into(), source };
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    // As public as any other file; temporary ones are private unless told otherwise.
    let file = tempfile::Builder::new().make_in(folder, |path| {
        std::fs::OpenOptions::new().write(true).create_new(true).open(path)
    });
    let mut file = file.map_err(io)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    header(&mut writer, &entries, &planned).map_err(io)?;
    for tensor in &planned {
        pad(&mut writer).map_err(io)?;
        let values = match &tensor.hf_name {
            Some(name) => stored(checkpoint, &config, name, &tensor.shape, tensor.dtype)?,
            None => factors.clone().unwrap_or_default(),
        };
        writer.write_all(&encode(tensor.dtype, &values)).map_err(io)?;
    }
    pad(&mut writer).map_err(io)?;
    writer.flush().map_err(io)?;
    drop(writer);
    file.as_file().sync_all().map_err(io)?;
    file.persist(out).map_err(|e| io(e.error)).map(drop)
}

fn plan(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    kind: GgufType,
    factors: Option<&[f32]>,
) -> Result<Vec<Planned>, ModelError> {
    let mut planned = Vec::new();
    if let Some(factors) = factors {
        let (name, shape) = ("rope_freqs.weight".to_owned(), vec![factors.len()]);
        planned.push(Planned { name, hf_name: None, shape, dtype: DType::F32 });
    }
    for (hf_name, shape) in config.tensors() {
        let name = gguf_name(&hf_name).ok_or_else(|| ModelError::Unsupported {
            path: checkpoint.path().into(),
            what: format!("tensor `{hf_name}` has no name in GGUF"),
        })?;
        let dtype = kind.of(&shape);
        planned.push(Planned { name, hf_name: Some(hf_name), shape, dtype });
    }
    Ok(planned)
}

/// The values in the order of the file's rows.
fn stored(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    name: &str,
    shape: &[usize],
    dtype: DType,
) -> Result<Vec<f32>, ModelError> {
    let largest = match dtype {
        DType::F16 => f16::MAX.to_f32(),
        DType::BF16 => bf16::MAX.to_f32(),
        // The scale is F16.
        DType::Q8_0 => f16::MAX.to_f32() * 127.0,
        _ => f32::MAX,
    };
    let values = super::tensor(checkpoint, config, name, largest)?;
    if !is_rotary(name) || rotary_layout(config.architecture) == RotaryLayout::Halves {
        return Ok(values);
    }
    let row_len = values.len() / shape[0];
    let mut permuted = vec![0.0; values.len()];
    for (i, row) in values.chunks_exact(row_len).enumerate() {
        let at = RotaryLayout::Interleaved.stored_row(i, config.head_dim);
        permuted[at * row_len..][..row_len].copy_from_slice(row);
    }
    Ok(permuted)
}

/// The order that llama.cpp expects.
fn rotary_layout(architecture: Architecture) -> RotaryLayout {
    match architecture {
        Architecture::Qwen2 | Architecture::Qwen3 => RotaryLayout::Halves,
        _ => RotaryLayout::Interleaved,
    }
}

/// What `rope_freqs.weight` holds, one divisor per frequency, if the model needs it.
fn factors(config: &ModelConfig) -> Option<Vec<f32>> {
    match &config.rope_scaling {
        RopeScaling::Factors(factors) => Some(factors.clone()),
        RopeScaling::Llama3 { .. } => {
            let plain = ModelConfig { rope_scaling: RopeScaling::None, ..config.clone() };
            let (plain, scaled) = (frequencies(&plain), frequencies(config));
            Some(plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled).collect())
        }
        RopeScaling::None | RopeScaling::Linear { .. } => None,
    }
}

fn header(out: &mut impl Write, entries: &[Entry], planned: &[Planned]) -> std::io::Result<()> {
    out.write_all(b"GGUF")?;
    out.write_all(&3u32.to_le_bytes())?;
    out.write_all(&(planned.len() as u64).to_le_bytes())?;
    out.write_all(&(entries.len() as u64).to_le_bytes())?;
    for entry in entries {
        out.write_all(&entry.bytes())?;
    }
    let mut offset = 0u64;
    for tensor in planned {
        out.write_all(&(tensor.name.len() as u64).to_le_bytes())?;
        out.write_all(tensor.name.as_bytes())?;
        out.write_all(&(tensor.shape.len() as u32).to_le_bytes())?;
        for &dim in tensor.shape.iter().rev() {
            out.write_all(&(dim as u64).to_le_bytes())?;
        }
        out.write_all(&number(tensor.dtype).to_le_bytes())?;
        out.write_all(&offset.to_le_bytes())?;
        let elements: usize = tensor.shape.iter().product();
        let bytes = elements / tensor.dtype.block_len() * tensor.dtype.block_bytes();
        offset += (bytes as u64).next_multiple_of(ALIGNMENT);
    }
    Ok(())
}

/// ggml's number of a type.
fn number(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 1,
        DType::Q8_0 => 8,
        DType::BF16 => 30,
        _ => 0,
    }
}

fn pad(out: &mut (impl Write + Seek)) -> std::io::Result<()> {
    let at = out.stream_position()?;
    out.write_all(&[0; ALIGNMENT as usize][..(at.next_multiple_of(ALIGNMENT) - at) as usize])
}

fn encode(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        DType::Q8_0 => values.as_chunks::<32>().0.iter().flat_map(q8_0).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// `d = max |x| / 127`, kept as f16; `q = round(x / d)`.
fn q8_0(block: &[f32; 32]) -> [u8; 34] {
    let largest = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut bytes = [0; 34];
    bytes[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (byte, x) in bytes[2..].iter_mut().zip(block) {
        *byte = (x * inverse).round() as i8 as u8;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_blocks() {
        let block: [f32; 32] = std::array::from_fn(|i| i as f32 - 127.0);
        let bytes = q8_0(&block);
        assert_eq!(f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(), 1.0);
        assert_eq!((bytes[2] as i8, bytes[33] as i8), (-127, -96));
        assert_eq!(q8_0(&[0.0; 32]), [0; 34]);
    }
}
