//! The arithmetic of the linear layers, as a user chooses it.

use std::fmt;
use std::str::FromStr;

use cllm_kernels::Format;

use crate::weights::{DType, TensorView};

/// The arithmetic of the linear layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compute {
    /// What the file holds, matrix by matrix: `w4` for Q4 types, `w8` for Q5, Q6 and Q8,
    /// `bf16` for BF16, `f32` for F16 and F32.
    #[default]
    Auto,
    /// Weights and activations in f32: the reference.
    F32,
    /// Weights and activations in bf16, sums in f32.
    Bf16,
    /// Weights of 8 bits with a scale per 32, and a minimum if the file has them, activations of 8
    /// bits.
    W8,
    /// Weights of 4 bits with a scale and a minimum per 32, activations of 8 bits. The
    /// embedding and the LM head have 8 bits.
    W4,
}

impl Compute {
    /// Every choice.
    pub const ALL: [Self; 5] = [Self::Auto, Self::F32, Self::Bf16, Self::W8, Self::W4];

    /// The storage format of a matrix made of `parts`; `is_head` for the embedding and the
    /// LM head.
    pub fn format(self, parts: &[TensorView<'_>], is_head: bool) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::Bf16 => Format::Bf16,
            Self::W8 => Format::W8,
            Self::W4 if is_head => Format::W8,
            Self::W4 => Format::W4,
            Self::Auto if parts.iter().all(|p| matches!(p.dtype, DType::F16 | DType::F32)) => {
                Format::F32
            }
            Self::Auto
                if parts
                    .iter()
                    .all(|p| matches!(p.dtype, DType::BF16 | DType::F16 | DType::F32)) =>
            {
                Format::Bf16
            }
            Self::Auto if !is_head && parts.iter().all(|p| p.has_integers(Format::W4)) => {
                Format::W4
            }
            Self::Auto => Format::W8,
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::W8 => "w8",
            Self::W4 => "w4",
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compute {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|compute| compute.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown compute format `{name}`: expected one of {names}")
        })
    }
}
