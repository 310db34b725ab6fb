//! The typed values of GGUF metadata, as views into the file.
//!
//! A vocabulary is an array of 50,000 to 250,000 strings; a value therefore borrows the
//! mapped file and costs nothing until someone asks for its elements.

use std::fmt::Display;

use super::cursor::Cursor;
use crate::ModelError;

/// The type tag of a metadata value, in the order of its numbers in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `u8`
    U8,
    /// `i8`
    I8,
    /// `u16`
    U16,
    /// `i16`
    I16,
    /// `u32`
    U32,
    /// `i32`
    I32,
    /// `f32`
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// UTF-8 with a length.
    Str,
    /// Elements of one type; never of arrays.
    Array,
    /// `u64`
    U64,
    /// `i64`
    I64,
    /// `f64`
    F64,
}

impl ValueType {
    pub(super) fn read(c: &mut Cursor<'_>, what: impl Display + Copy) -> Result<Self, ModelError> {
        let at = c.at();
        Ok(match c.u32(format_args!("the type of {what}"))? {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Str,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            other => {
                return Err(c.format(format!(
                    "the type of {what} at byte {at} is {other}; expected 0 to 12"
                )));
            }
        })
    }

    /// Bytes of a value, at least.
    const fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::Str | Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Array => 12,
        }
    }

    /// What it is called in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// A metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Any unsigned integer type.
    Unsigned(u64),
    /// Any signed integer type.
    Signed(i64),
    /// `f32` or `f64`.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    Str(&'a str),
    /// An array.
    Array(Array<'a>),
}

/// An array in GGUF metadata.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Value<'a> {
    /// Reads a value of type `ty`; `what` names it in messages.
    pub(super) fn read(
        c: &mut Cursor<'a>,
        ty: ValueType,
        what: impl Display + Copy,
    ) -> Result<Self, ModelError> {
        match ty {
            ValueType::Str => c.string(what).map(Value::Str),
            ValueType::Array => Array::read(c, what).map(Value::Array),
            _ => {
                let at = c.at();
                let bytes = c.take(ty.least_bytes(), what)?;
                scalar(ty, bytes).ok_or_else(|| {
                    c.format(format!(
                        "{what} at byte {at}: expected a bool, 0 or 1, found {bytes:?}"
                    ))
                })
            }
        }
    }

    /// The value in words, for messages: type and, where short, content.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unsigned(v) => format!("the integer {v}"),
            Self::Signed(v) => format!("the integer {v}"),
            Self::Float(v) => format!("the float {v}"),
            Self::Bool(v) => format!("the bool {v}"),
            Self::Str(v) if v.len() <= 40 => format!("the string {v:?}"),
            Self::Str(v) => format!("a string of {} bytes", v.len()),
            Self::Array(a) => format!("an array of {} {}", a.len, a.element.name()),
        }
    }
}

/// A value of fixed size from its bytes; `None` for a bool that is neither 0 nor 1.
fn scalar<'a>(ty: ValueType, b: &[u8]) -> Option<Value<'a>> {
    let mut word = [0u8; 8];
    word[..b.len()].copy_from_slice(b);
    let bits = u64::from_le_bytes(word);
    Some(match ty {
        ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64 => Value::Unsigned(bits),
        ValueType::I8 => Value::Signed((bits as i8).into()),
        ValueType::I16 => Value::Signed((bits as i16).into()),
        ValueType::I32 => Value::Signed((bits as i32).into()),
        ValueType::I64 => Value::Signed(bits as i64),
        ValueType::F32 => Value::Float(f32::from_bits(bits as u32).into()),
        ValueType::F64 => Value::Float(f64::from_bits(bits)),
        ValueType::Bool if bits <= 1 => Value::Bool(bits == 1),
        ValueType::Bool | ValueType::Str | ValueType::Array => return None,
    })
}

impl<'a> Array<'a> {
    fn read(c: &mut Cursor<'a>, what: impl Display + Copy) -> Result<Self, ModelError> {
        let element = ValueType::read(c, format_args!("the elements of {what}"))?;
        if element == ValueType::Array {
            return Err(
                c.format(format!("{what} is an array of arrays, which GGUF readers refuse"))
            );
        }
        let len =
            c.count(element.least_bytes(), format_args!("the number of elements of {what}"))?;
        let mut end = c.clone();
        if element == ValueType::Str {
            for _ in 0..len {
                end.string(what)?;
            }
        } else {
            // No overflow: `count` compared the product with the bytes left.
            end.take(len * element.least_bytes(), what)?;
        }
        let bytes = c.take(end.at() - c.at(), what)?;
        if element == ValueType::Bool && bytes.iter().any(|&b| b > 1) {
            return Err(
                c.format(format!("{what} is an array of bool with a value other than 0, 1"))
            );
        }
        Ok(Self { element, len, bytes })
    }

    /// Type of the elements.
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, if they are strings.
    pub fn strings(&self) -> Option<impl ExactSizeIterator<Item = &'a str> + use<'a>> {
        let mut rest = self.bytes;
        (self.element == ValueType::Str).then_some((0..self.len).map(move |_| {
            // Walked and checked by `read`; a file changed since then ends in empty strings.
            let Some((len, tail)) = rest.split_first_chunk::<8>() else { return "" };
            let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
            let Some((text, tail)) = tail.split_at_checked(len) else { return "" };
            rest = tail;
            str::from_utf8(text).unwrap_or("")
        }))
    }

    /// The elements, if they are of a fixed size.
    pub fn scalars(&self) -> Option<impl ExactSizeIterator<Item = Value<'a>> + use<'a>> {
        let element = self.element;
        (element != ValueType::Str).then_some(
            self.bytes
                .chunks_exact(element.least_bytes())
                .map(move |b| scalar(element, b).unwrap_or(Value::Bool(true))),
        )
    }
}
