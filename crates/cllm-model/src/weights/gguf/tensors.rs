//! The table of tensors of a GGUF file, checked as a whole.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::{MAX_NAME, TensorInfo};
use crate::ModelError;
use crate::weights::DType;

/// ggml's limit.
const MAX_RANK: usize = 4;

/// Reads `count` entries and checks that each tensor lies within the file and on no other.
pub(super) fn read(
    c: &mut Cursor<'_>,
    count: usize,
    alignment: usize,
) -> Result<Vec<TensorInfo>, ModelError> {
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for i in 0..count {
        let tensor = entry(c, i)?;
        if !names.insert(tensor.name.clone()) {
            return Err(c.format(format!("tensor `{}` stands twice", tensor.name)));
        }
        tensors.push(tensor);
    }
    place(c, &mut tensors, alignment)?;
    Ok(tensors)
}

/// One entry. The range counts from the start of the data.
fn entry(c: &mut Cursor<'_>, i: usize) -> Result<TensorInfo, ModelError> {
    let name = c.name(MAX_NAME, format_args!("the name of tensor {i}"))?;
    let what = |part: &str| format!("the {part} of tensor `{name}`");
    let rank = c.u32(what("rank"))? as usize;
    if rank > MAX_RANK {
        return Err(c.format(format!("tensor `{name}`: expected rank 0 to 4, found {rank}")));
    }
    let mut shape = Vec::with_capacity(MAX_RANK);
    for _ in 0..rank {
        let dim = c.u64(what("shape"))?;
        let dim = usize::try_from(dim).ok().filter(|&d| d > 0).ok_or_else(|| {
            c.format(format!("tensor `{name}`: dimension {} is {dim}", shape.len()))
        })?;
        shape.push(dim);
    }
    // The file has the innermost dimension first.
    shape.reverse();
    let dtype = dtype(c.u32(what("type"))?)
        .map_err(|found| c.unsupported(format!("tensor `{name}` has type {found}; {SUPPORTED}")))?;
    let len =
        dtype.byte_len(&shape).map_err(|what| c.format(format!("tensor `{name}`: {what}")))?;
    let offset = c.u64(what("offset"))?;
    let (start, end) = usize::try_from(offset)
        .ok()
        .and_then(|start| Some((start, start.checked_add(len)?)))
        .ok_or_else(|| c.format(format!("tensor `{name}`: the offset {offset} overflows")))?;
    Ok(TensorInfo { name: name.to_owned(), dtype, shape, file: 0, range: start..end })
}

/// Moves the ranges to the file's own bytes, and checks them against it and each other.
fn place(c: &Cursor<'_>, tensors: &mut [TensorInfo], alignment: usize) -> Result<(), ModelError> {
    let base = c.align(alignment);
    let available = c.file_len().saturating_sub(base);
    for t in tensors.iter_mut() {
        let (name, range) = (&t.name, t.range.clone());
        if !range.start.is_multiple_of(alignment) {
            return Err(c.format(format!(
                "tensor `{name}`: expected an offset of a multiple of {alignment}, found {}",
                range.start
            )));
        }
        if range.end > available {
            return Err(c.format(format!(
                "tensor `{name}` ends at byte {} of the data, but the file has only {available} \
                 bytes of data: truncated?",
                range.end
            )));
        }
        t.range = base + range.start..base + range.end;
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|t| t.range.start);
    match order.windows(2).find(|w| w[0].range.end > w[1].range.start) {
        Some(w) => Err(c.format(format!("tensors `{}` and `{}` overlap", w[0].name, w[1].name))),
        None => Ok(()),
    }
}

const SUPPORTED: &str =
    "supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

/// The type of ggml's number, or the name of one we do not read.
fn dtype(id: u32) -> Result<DType, String> {
    Ok(match id {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        12 => DType::Q4_K,
        13 => DType::Q5_K,
        14 => DType::Q6_K,
        30 => DType::BF16,
        other => {
            let name = match other {
                9 => "Q8_1",
                10 => "Q2_K",
                11 => "Q3_K",
                15 => "Q8_K",
                16 => "IQ2_XXS",
                17 => "IQ2_XS",
                18 => "IQ3_XXS",
                19 => "IQ1_S",
                20 => "IQ4_NL",
                21 => "IQ3_S",
                22 => "IQ2_S",
                23 => "IQ4_XS",
                24 => "I8",
                25 => "I16",
                26 => "I32",
                27 => "I64",
                28 => "F64",
                29 => "IQ1_M",
                34 => "TQ1_0",
                35 => "TQ2_0",
                39 => "MXFP4",
                40 => "NVFP4",
                _ => return Err(format!("number {other}, unknown to us")),
            };
            return Err(name.to_owned());
        }
    })
}
