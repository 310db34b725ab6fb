//! GGUF: llama.cpp's single file of metadata and tensors, versions 2 and 3, little-endian.
//!
//! ```text
//! "GGUF"  version u32  tensors u64  entries u64
//! entries: key string, type u32, value         (string: length u64, bytes)
//! tensors: name string, rank u32, dims u64 (innermost first), type u32, offset u64
//! padding to `general.alignment`, then the data; offsets count from here
//! ```
//!
//! Opening walks the metadata once and keeps offsets only, so a vocabulary of any size
//! costs a scan and no allocation. Nothing in the file is believed: see `cursor`.
//! Not read: big-endian files, version 1, files split in several parts.

mod cursor;
mod tensors;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cllm_kernels::mmap::MappedFile;

pub use self::value::{Array, Value, ValueType};

use self::cursor::Cursor;
use super::{TensorInfo, TensorView};
use crate::ModelError;

/// A mapped GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: MappedFile,
    version: u32,
    /// By key: type, and byte of the value.
    metadata: BTreeMap<String, (ValueType, usize)>,
    pub(super) tensors: Vec<TensorInfo>,
}

/// Longest key and tensor name: the specification's limit for keys.
const MAX_NAME: usize = 65_535;

impl Gguf {
    /// Maps a file and checks its metadata and its table of tensors.
    ///
    /// # Errors
    /// The first thing that is wrong, with the byte where it stands.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let map = MappedFile::open(path)
            .map_err(|source| ModelError::Io { path: path.into(), source })?;
        let mut c = Cursor::new(path, &map, 0);
        let version = header(&mut c)?;
        // 24 bytes: a name's length, rank, type, offset. 13: a key's length, type, a byte.
        let tensor_count = c.count(24, "the number of tensors")?;
        let entry_count = c.count(13, "the number of metadata entries")?;
        let metadata = entries(&mut c, entry_count)?;
        let table = c.at();
        let mut gguf = Self { path: path.into(), map, version, metadata, tensors: Vec::new() };
        gguf.check_parts()?;
        let alignment = gguf.alignment()?;
        gguf.tensors = {
            let mut c = Cursor::new(path, &gguf.map, table);
            tensors::read(&mut c, tensor_count, alignment)?
        };
        Ok(gguf)
    }

    /// Says that these bytes of the file need not stay in memory.
    pub(super) fn release(&self, bytes: &[u8]) {
        self.map.release(bytes);
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// A tensor by its name in the file. Looks through all: for the few names a caller
    /// asks once.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.iter().find(|t| t.name == name).map(|t| t.view(&self.map))
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let &(ty, at) = self.metadata.get(key)?;
        // Read and checked before; `ok` so that a file changed since is no panic.
        Value::read(&mut Cursor::new(&self.path, &self.map, at), ty, key).ok()
    }

    /// Type and bytes of a key's value, as they stand in the file.
    pub(crate) fn raw(&self, key: &str) -> Option<(ValueType, &[u8])> {
        let &(ty, at) = self.metadata.get(key)?;
        let mut cursor = Cursor::new(&self.path, &self.map, at);
        Value::read(&mut cursor, ty, key).ok()?;
        Some((ty, &self.map[at..cursor.at()]))
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// A value of another type. So for all getters.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a string", |v| if let Value::Str(s) = v { Some(s) } else { None })
    }

    /// An integer of any type that fits into 32 unsigned bits, if the key is there.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.typed(key, "an integer from 0 to 4294967295", as_u32)
    }

    /// A number, if the key is there.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.typed(key, "a float", |v| if let Value::Float(x) = v { Some(x as f32) } else { None })
    }

    /// A truth value, if the key is there.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "a bool", |v| if let Value::Bool(b) = v { Some(b) } else { None })
    }

    /// An array of any type, if the key is there.
    pub fn get_array(&self, key: &str) -> Result<Option<Array<'_>>, ModelError> {
        self.typed(key, "an array", |v| if let Value::Array(a) = v { Some(a) } else { None })
    }

    /// An array of strings, if the key is there.
    pub fn get_strings(&self, key: &str) -> Result<Option<Vec<&str>>, ModelError> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Array(a) => a.strings().map(Iterator::collect),
            _ => None,
        })
    }

    /// An array of floats, if the key is there.
    pub fn get_f32s(&self, key: &str) -> Result<Option<Vec<f32>>, ModelError> {
        self.typed(key, "an array of floats", |v| {
            let Value::Array(a) = v else { return None };
            a.scalars()?
                .map(|v| if let Value::Float(x) = v { Some(x as f32) } else { None })
                .collect()
        })
    }

    /// An array of integers from 0 to 4294967295, if the key is there.
    pub fn get_u32s(&self, key: &str) -> Result<Option<Vec<u32>>, ModelError> {
        self.typed(key, "an array of integers from 0 to 4294967295", |v| {
            let Value::Array(a) = v else { return None };
            a.scalars()?.map(as_u32).collect()
        })
    }

    /// The error of a key that must be there and is not.
    pub fn missing(&self, key: &str) -> ModelError {
        self.format(format!("the metadata has no `{key}`"))
    }

    /// This file breaks the format, or contradicts itself.
    pub(crate) fn format(&self, what: String) -> ModelError {
        ModelError::Format { path: self.path.clone(), what }
    }

    /// This file asks for something we cannot do.
    pub(crate) fn unsupported(&self, what: String) -> ModelError {
        ModelError::Unsupported { path: self.path.clone(), what }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| {
            self.format(format!("`{key}`: expected {expected}, found {}", value.describe()))
        })
    }

    fn alignment(&self) -> Result<usize, ModelError> {
        let key = "general.alignment";
        let alignment = self.get_u32(key)?.unwrap_or(32);
        if !alignment.is_power_of_two() {
            return Err(self.format(format!("`{key}`: expected a power of two, found {alignment}")));
        }
        Ok(alignment as usize)
    }

    fn check_parts(&self) -> Result<(), ModelError> {
        match self.get_u32("split.count")? {
            Some(n) if n > 1 => Err(self.unsupported(format!(
                "one of {n} parts of a split GGUF; merge them with `llama-gguf-split --merge`"
            ))),
            _ => Ok(()),
        }
    }
}

fn as_u32(value: Value<'_>) -> Option<u32> {
    match value {
        Value::Unsigned(v) => v.try_into().ok(),
        Value::Signed(v) => v.try_into().ok(),
        _ => None,
    }
}

/// Magic and version.
fn header(c: &mut Cursor<'_>) -> Result<u32, ModelError> {
    let magic = c.take(4, "the magic")?;
    if magic != b"GGUF" {
        return Err(c.format(format!("not a GGUF file: expected `GGUF`, found {magic:?}")));
    }
    match c.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        1 => Err(c.unsupported("GGUF version 1; supported are 2 and 3: convert the model again")),
        other if matches!(other.swap_bytes(), 1..=3) => Err(c.unsupported(format!(
            "a big-endian GGUF (version {}); only little-endian files are read",
            other.swap_bytes()
        ))),
        other => Err(c.unsupported(format!("GGUF version {other}; supported are 2 and 3"))),
    }
}

fn entries(
    c: &mut Cursor<'_>,
    count: usize,
) -> Result<BTreeMap<String, (ValueType, usize)>, ModelError> {
    let mut metadata = BTreeMap::new();
    for i in 0..count {
        let key = c.name(MAX_NAME, format_args!("metadata key {i}"))?;
        if key.is_empty() {
            return Err(
                c.format(format!("metadata key {i} is empty: more entries than there are?"))
            );
        }
        let ty = ValueType::read(c, format_args!("`{key}`"))?;
        let at = c.at();
        Value::read(c, ty, format_args!("`{key}`"))?;
        if metadata.insert(key.to_owned(), (ty, at)).is_some() {
            return Err(c.format(format!("the metadata key `{key}` stands twice")));
        }
    }
    Ok(metadata)
}
