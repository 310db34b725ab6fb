//! An adapter's folder, read and written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};

use super::{Adapter, LoraConfig, LoraPair};
use crate::config::json::read_capped;
use crate::error::ModelError;
use crate::weights::{TensorFile, TensorView};

pub(super) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the network it wraps.
pub const PREFIX: &str = "base_model.model.";

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an F32.
    Bf16,
}

impl FloatType {
    /// The name of Hugging Face's configurations: `float32`, `float16`, `bfloat16`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// The largest number.
    pub(crate) fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32(),
            Self::Bf16 => bf16::MAX.to_f32(),
        }
    }

    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// Rounded to nearest, little-endian.
    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        }
    }
}

/// A tensor for the `safetensors` crate.
struct Encoded<'a> {
    kind: FloatType,
    shape: [usize; 2],
    values: &'a [f32],
}

impl View for Encoded<'_> {
    fn dtype(&self) -> Dtype {
        self.kind.dtype()
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.kind.encode(self.values).into()
    }
    fn data_len(&self) -> usize {
        self.values.len() * self.kind.bytes()
    }
}

impl Adapter {
    /// Reads an adapter's folder. Whether it fits a network is for
    /// [`Checkpoint::add_adapter`](crate::Checkpoint::add_adapter) to say.
    ///
    /// # Errors
    /// What is missing, broken or not supported: see [`crate::adapter`].
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let config_path = dir.join(CONFIG);
        if dir.is_dir() && !config_path.exists() {
            let what = format!("holds no {CONFIG}; expected a folder saved by PEFT");
            return Err(ModelError::Unsupported { path: dir.into(), what });
        }
        let config = LoraConfig::parse(&config_path, &read_capped(&config_path)?)?;
        let path = dir.join(WEIGHTS);
        if !path.exists() && dir.join("adapter_model.bin").exists() {
            let what = "holds adapter_model.bin, but only safetensors are read".into();
            return Err(ModelError::Unsupported { path: dir.into(), what });
        }
        let file = TensorFile::open(&path)?;
        let pairs = pairs(&path, &file, &config)?;
        Ok(Self { path: dir.into(), config, pairs })
    }

    /// An adapter from its parts, to be written; `pairs` in any order.
    ///
    /// # Errors
    /// Settings or matrices that contradict each other.
    pub fn new(config: LoraConfig, mut pairs: Vec<LoraPair>) -> Result<Self, ModelError> {
        let config = config.checked().map_err(ModelError::Text)?;
        pairs.sort_by(|a, b| a.module.cmp(&b.module));
        for pair in &pairs {
            check(pair, &config)
                .map_err(|what| ModelError::Tensor { name: pair.module.clone(), what })?;
        }
        Ok(Self { path: Default::default(), config, pairs })
    }

    /// Writes the folder as PEFT does; a folder that is there is replaced, whole, at once.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, dir: &Path, kind: FloatType) -> Result<(), ModelError> {
        crate::files::replace_folder(dir, |staged| {
            let io = |source| ModelError::Io { path: dir.into(), source };
            let text = serde_json::to_string_pretty(&self.config_json())
                .map_err(|e| io(std::io::Error::other(e)))?;
            std::fs::write(staged.join(CONFIG), text + "\n").map_err(io)?;
            let tensors = self.pairs.iter().flat_map(|pair| {
                let name = |part| format!("{PREFIX}{}.lora_{part}.weight", pair.module);
                let a = Encoded { kind, shape: [pair.rank, pair.inputs], values: &pair.a };
                let b = Encoded { kind, shape: [pair.outputs, pair.rank], values: &pair.b };
                [(name("A"), a), (name("B"), b)]
            });
            let metadata = [("format".to_owned(), "pt".to_owned())].into();
            safetensors::serialize_to_file(tensors, Some(metadata), &staged.join(WEIGHTS))
                .map_err(|e| io(std::io::Error::other(e)))
        })
    }

    /// The settings with the keys that PEFT expects beside them.
    fn config_json(&self) -> Value {
        let mut json = json!(self.config);
        json["peft_type"] = "LORA".into();
        json["task_type"] = "CAUSAL_LM".into();
        json["bias"] = "none".into();
        json["inference_mode"] = true.into();
        json["fan_in_fan_out"] = false.into();
        json
    }
}

/// Puts the tensors of the file together.
fn pairs(path: &Path, file: &TensorFile, config: &LoraConfig) -> Result<Vec<LoraPair>, ModelError> {
    let bad = |name: &str, what: String| {
        let what = format!("{what} ({})", path.display());
        ModelError::Tensor { name: name.into(), what }
    };
    let mut modules: BTreeMap<String, [Option<TensorView<'_>>; 2]> = BTreeMap::new();
    for tensor in file.tensors() {
        if tensor.name.ends_with(".base_layer.weight") {
            let what = "a copy of the base model's weights, which PEFT saves with an adapter of \
                        the LM head; save it with save_embedding_layers=False";
            return Err(bad(tensor.name, what.into()));
        }
        let Some((module, part)) = module(tensor.name) else {
            return Err(bad(
                tensor.name,
                format!(
                    "expected names like {PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight; \
                     supported are lora_A and lora_B of linear layers"
                ),
            ));
        };
        if tensor.shape.len() != 2 {
            return Err(bad(tensor.name, format!("expected a matrix, found {:?}", tensor.shape)));
        }
        let name = tensor.name;
        if modules.entry(module.to_owned()).or_default()[part].replace(tensor).is_some() {
            return Err(bad(name, "stands twice".into()));
        }
    }
    if modules.is_empty() {
        return Err(ModelError::Format { path: path.into(), what: "holds no tensors".into() });
    }
    let mut pairs = Vec::with_capacity(modules.len());
    for (module, parts) in modules {
        let (a, b) = match parts {
            [Some(a), Some(b)] => (a, b),
            [Some(_), None] => return Err(bad(&module, "has a lora_A but no lora_B".into())),
            _ => return Err(bad(&module, "has a lora_B but no lora_A".into())),
        };
        let read = |tensor: &TensorView<'_>| {
            let mut values = vec![0.0; tensor.rows() * tensor.row_len()];
            tensor.read_f32(0..tensor.rows(), &mut values);
            values
        };
        if a.rows() != b.row_len() {
            return Err(bad(
                &module,
                format!(
                    "lora_A has {:?}, lora_B {:?}: expected (r, in) and (out, r)",
                    a.shape, b.shape
                ),
            ));
        }
        let pair = LoraPair {
            rank: a.rows(),
            inputs: a.row_len(),
            outputs: b.rows(),
            a: read(&a),
            b: read(&b),
            module,
        };
        check(&pair, config).map_err(|what| bad(&pair.module, what))?;
        pairs.push(pair);
    }
    Ok(pairs)
}

/// The module of a tensor, and 0 for `lora_A`, 1 for `lora_B`.
fn module(name: &str) -> Option<(&str, usize)> {
    let stem = name.strip_prefix(PREFIX)?.strip_suffix(".weight")?;
    match stem.strip_suffix(".lora_A") {
        Some(module) => Some((module, 0)),
        None => Some((stem.strip_suffix(".lora_B")?, 1)),
    }
}

/// Whether a pair is what the settings say.
fn check(pair: &LoraPair, config: &LoraConfig) -> Result<(), String> {
    let rank = config.rank(&pair.module);
    if pair.rank != rank {
        return Err(format!("expected rank {rank} as in {CONFIG}, found {}", pair.rank));
    }
    if (pair.a.len(), pair.b.len()) != (rank * pair.inputs, pair.outputs * rank) {
        return Err(format!("{} and {} values, not of its shape", pair.a.len(), pair.b.len()));
    }
    if config.targets(&pair.module) == Some(false) {
        return Err(format!("is not among the `target_modules` of {CONFIG}"));
    }
    if !pair.a.iter().chain(&pair.b).all(|value| value.is_finite()) {
        return Err("holds NaN or infinity".into());
    }
    Ok(())
}
