//! How the numbers of a tensor are stored.
//!
//! The types of both formats in one enum: a quantised type stores *blocks* of elements
//! that share a scale, a plain one is a block of one element. Block layouts are those of
//! ggml; `dequant` says what they mean.

use std::fmt;

/// Storage of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names every GGUF user knows")]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an F32.
    BF16,
    /// 4 bits, scale; blocks of 32.
    Q4_0,
    /// 4 bits, scale and minimum; blocks of 32.
    Q4_1,
    /// 5 bits, scale; blocks of 32.
    Q5_0,
    /// 5 bits, scale and minimum; blocks of 32.
    Q5_1,
    /// 8 bits, scale; blocks of 32.
    Q8_0,
    /// 4 bits, 6-bit scales and minima for 8 groups; blocks of 256.
    Q4_K,
    /// 5 bits, 6-bit scales and minima for 8 groups; blocks of 256.
    Q5_K,
    /// 6 bits, 8-bit scales for 16 groups; blocks of 256.
    Q6_K,
}

impl DType {
    /// All types, in the order messages list them.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Elements in a block. A row of a tensor is a whole number of blocks.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 2 + 2 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 2 + 2 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4_K => 2 + 2 + 12 + 128,
            Self::Q5_K => 2 + 2 + 12 + 32 + 128,
            Self::Q6_K => 128 + 64 + 16 + 2,
        }
    }

    /// The name both formats use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
        }
    }

    /// Bytes of a tensor of this shape (outermost first), or why there is none: the last
    /// dimension is no whole number of blocks, or the product overflows.
    pub(crate) fn byte_len(self, shape: &[usize]) -> Result<usize, String> {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len()) {
            return Err(format!(
                "expected rows of a multiple of {} elements for {self}, found {row}",
                self.block_len()
            ));
        }
        shape
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .and_then(|n| (n / self.block_len()).checked_mul(self.block_bytes()))
            .ok_or_else(|| format!("the size of shape {shape:?} overflows"))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
