//! A Hugging Face folder: `config.json` and one or many safetensors files.
//!
//! The files are those that `transformers` would take: `model.safetensors`, or those
//! named by `model.safetensors.index.json`; without both, every `*.safetensors` there is.
//! The `safetensors` crate checks a header. What it lets pass is checked here: names that
//! stand twice, end offsets so large that adding to them overflows, and an index that
//! disagrees with its files. Not read: PyTorch pickles, quantised checkpoints.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use cllm_kernels::mmap::MappedFile;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::{DType, TensorInfo, TensorView};
use crate::ModelError;
use crate::config::json;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The mapped files of a folder and their tensors.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) files: Vec<MappedFile>,
    pub(super) tensors: Vec<TensorInfo>,
}

/// One safetensors file by itself.
#[derive(Debug)]
pub(crate) struct TensorFile(Folder);

impl TensorFile {
    /// Maps the file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        Folder::read(&[path.into()]).map(Self)
    }

    /// Its tensors, in no particular order.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.0.tensors.iter().map(|info| info.view(&self.0.files[info.file]))
    }
}

impl Folder {
    pub(super) fn open(dir: &Path) -> Result<Self, ModelError> {
        if !dir.join("config.json").is_file() {
            return Err(unsupported(
                dir,
                "a folder without config.json; expected a Hugging Face \
                model folder or a .gguf file"
                    .into(),
            ));
        }
        let index = dir.join(INDEX);
        if dir.join(SINGLE).is_file() {
            Self::read(&[dir.join(SINGLE)])
        } else if index.is_file() {
            Self::read_indexed(dir, &index)
        } else {
            Self::read(&every_file(dir)?)
        }
    }

    /// Opens these files and no others.
    fn read(paths: &[PathBuf]) -> Result<Self, ModelError> {
        let mut folder = Self { files: Vec::new(), tensors: Vec::new() };
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (file, path) in paths.iter().enumerate() {
            let map = MappedFile::open(path)
                .map_err(|source| ModelError::Io { path: path.clone(), source })?;
            for tensor in header(path, &map, file)? {
                if let Some(other) = seen.insert(tensor.name.clone(), file) {
                    return Err(format(
                        path,
                        format!(
                            "tensor `{}` stands in {} too",
                            tensor.name,
                            paths[other].display()
                        ),
                    ));
                }
                folder.tensors.push(tensor);
            }
            folder.files.push(map);
        }
        Ok(folder)
    }

    fn read_indexed(dir: &Path, index: &Path) -> Result<Self, ModelError> {
        let weight_map = weight_map(index)?;
        let mut names: Vec<&str> = weight_map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        for name in &names {
            // A path would let a downloaded index point out of its folder.
            if Path::new(name).file_name().is_none_or(|f| f != *name) {
                return Err(format(index, format!("expected names of files, found `{name}`")));
            }
        }
        let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
        let folder = Self::read(&paths)?;
        for t in &folder.tensors {
            match weight_map.get(&t.name) {
                Some(file) if file == names[t.file] => {}
                Some(file) => {
                    return Err(format(
                        index,
                        format!(
                            "tensor `{}` should be in {file}, but is in {}",
                            t.name, names[t.file]
                        ),
                    ));
                }
                None => {
                    return Err(format(
                        index,
                        format!(
                            "{} holds tensor `{}`, which the index lacks",
                            names[t.file], t.name
                        ),
                    ));
                }
            }
        }
        let found: HashSet<&str> = folder.tensors.iter().map(|t| t.name.as_str()).collect();
        match weight_map.iter().find(|(name, _)| !found.contains(name.as_str())) {
            Some((name, file)) => {
                Err(format(index, format!("tensor `{name}` should be in {file}, but is not")))
            }
            None => Ok(folder),
        }
    }
}

/// The index: by tensor, the file that holds it.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index_json: Index = serde_json::from_slice(&json::read_capped(index)?)
        .map_err(|e| format(index, e.to_string()))?;
    if index_json.weight_map.is_empty() {
        return Err(format(index, "the weight_map is empty".into()));
    }
    Ok(index_json.weight_map)
}

/// Every safetensors file of a folder, sorted by name.
fn every_file(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let io = |source| ModelError::Io { path: dir.into(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        // An adapter is no model; PEFT saves it under this name.
        let adapter = path.file_name().is_some_and(|n| n == "adapter_model.safetensors");
        if path.extension().is_some_and(|e| e == "safetensors") && !adapter {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let what = if dir.join("pytorch_model.bin").exists()
            || dir.join("pytorch_model.bin.index.json").exists()
        {
            "holds pytorch_model.bin, but only safetensors are read: save the model again with \
             transformers"
        } else {
            "holds no .safetensors file"
        };
        return Err(unsupported(dir, what.into()));
    }
    paths.sort();
    Ok(paths)
}

/// The tensors of one file.
fn header(path: &Path, bytes: &[u8], file: usize) -> Result<Vec<TensorInfo>, ModelError> {
    precheck(path, bytes)?;
    let (header_len, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| format(path, explain(&e, bytes)))?;
    let base = 8 + header_len;
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(unsupported(
                    path,
                    format!("tensor `{name}` has type {other:?}; supported are F32, F16, BF16"),
                ));
            }
        };
        if info.shape.contains(&0) {
            return Err(format(path, format!("tensor `{name}` is empty: shape {:?}", info.shape)));
        }
        let (start, end) = info.data_offsets;
        let range = base + start..base + end;
        tensors.push(TensorInfo { name, dtype, shape: info.shape.clone(), file, range });
    }
    Ok(tensors)
}

/// Finds what the crate does not look for.
fn precheck(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else { return Ok(()) };
    let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
    let Some((json, data)) = rest.split_at_checked(len) else { return Ok(()) };
    let Entries(entries) =
        serde_json::from_slice(json).map_err(|e| format(path, format!("header: {e}")))?;
    let mut names = HashSet::new();
    for (name, (_, end)) in &entries {
        if !names.insert(name) {
            return Err(format(path, format!("tensor `{name}` stands twice")));
        }
        if *end > data.len() as u64 {
            return Err(format(
                path,
                format!(
                    "tensor `{name}` ends at byte {end} of the data, but the file has only {} bytes \
                 of data: truncated?",
                    data.len()
                ),
            ));
        }
    }
    Ok(())
}

/// Name and offsets of every tensor in a header, with those that stand twice.
struct Entries(Vec<(String, (u64, u64))>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        #[derive(Deserialize)]
        struct Entry {
            data_offsets: (u64, u64),
        }
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to their places")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value::<Entry>()?.data_offsets));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The crate's error, with the numbers it leaves out.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let len = bytes.len();
    match error {
        SafeTensorError::HeaderTooSmall => {
            format!("expected 8 bytes for the header's length, found a file of {len}")
        }
        SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooLarge => {
            let claimed = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
            format!("the header claims {claimed} bytes in a file of {len}")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("the tensors of the header do not end where the file of {len} bytes ends")
        }
        other => format!("header: {other}"),
    }
}

fn format(path: &Path, what: String) -> ModelError {
    ModelError::Format { path: path.into(), what }
}

fn unsupported(path: &Path, what: String) -> ModelError {
    ModelError::Unsupported { path: path.into(), what }
}
