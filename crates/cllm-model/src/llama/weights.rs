//! The weights of a network, packed for the kernels.
//!
//! Matrices that read the same activations are stored as one: query, key and value, and
//! gate and up. A forward then takes one parallel step for each, and reads its
//! activations once.

use cllm_kernels::{Format, Integers, Linear, Pool, Source, SwiGlu};

use crate::compute::Compute;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::weights::{Checkpoint, RotaryLayout, TensorView};

/// Everything a forward reads.
#[derive(Debug)]
pub(super) struct Weights {
    /// `(V, D)`; `None` if the head serves as embedding.
    embedding: Option<Linear>,
    pub(super) layers: Vec<Layer>,
    /// Gain of the last norm, `(D,)`.
    pub(super) norm: Vec<f32>,
    /// `(V, D)`.
    pub(super) head: Linear,
}

/// One transformer block. Matrices have biases if the configuration says so.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    /// `((H + 2 H_kv) head_dim, D)`: queries, then keys, then values.
    pub(super) qkv: Linear,
    /// Gains over `head_dim` of the query and the key heads.
    pub(super) qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// `(D, H head_dim)`.
    pub(super) output: Linear,
    pub(super) mlp_norm: Vec<f32>,
    /// `(2F, D)`: gates and ups.
    pub(super) gate_up: SwiGlu,
    /// `(D, F)`.
    pub(super) down: Linear,
}

impl Weights {
    /// Reads and packs all weights.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        compute: Compute,
        pool: &mut Pool,
    ) -> Result<Self, ModelError> {
        let mut reader = Reader { checkpoint, config, compute, pool };
        let (v, d) = (config.vocab_size, config.hidden_size);
        let layers = (0..config.num_layers).map(|i| reader.layer(i)).collect::<Result<_, _>>()?;
        let norm = reader.vector("model.norm.weight", d)?;
        let embedding = |reader: &mut Reader<'_>| {
            reader.linear(d, &[Part::new("model.embed_tokens.weight", v)])
        };
        let (embedding, head) = if config.tie_word_embeddings {
            (None, embedding(&mut reader)?)
        } else {
            let head = reader.linear(d, &[Part::new("lm_head.weight", v)])?;
            (Some(embedding(&mut reader)?), head)
        };
        Ok(Self { embedding, layers, norm, head })
    }

    /// The embedding of a token, shape `(D,)`.
    pub(super) fn embed(&self, token: usize, row: &mut [f32]) {
        self.embedding.as_ref().unwrap_or(&self.head).read_output(token, row);
    }

    /// The formats of the matrices that a forward streams, each once, layers first.
    pub(super) fn formats(&self) -> Vec<Format> {
        let mut formats = Vec::new();
        for (format, _) in self.matrices() {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        formats
    }

    /// Bytes of the matrices that one forward streams: all but an untied embedding.
    pub(super) fn bytes(&self) -> usize {
        self.matrices().map(|(_, bytes)| bytes).sum()
    }

    /// Format and bytes of each matrix that one forward streams.
    fn matrices(&self) -> impl Iterator<Item = (Format, usize)> {
        let of = |linear: &Linear| (linear.format(), linear.bytes());
        let layer = move |l: &Layer| {
            [of(&l.qkv), of(&l.output), (l.gate_up.format(), l.gate_up.bytes()), of(&l.down)]
        };
        self.layers.iter().flat_map(layer).chain([of(&self.head)])
    }
}

/// While a matrix is packed, rows this far behind stop counting as memory in use.
const BEHIND: usize = 2048;

/// One tensor of a packed matrix.
struct Part {
    name: String,
    outputs: usize,
    /// Head dimension, if the rows may be stored with interleaved rotary pairs.
    rotary: Option<usize>,
}

impl Part {
    fn new(name: impl Into<String>, outputs: usize) -> Self {
        Self { name: name.into(), outputs, rotary: None }
    }
}

struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    compute: Compute,
    pool: &'a mut Pool,
}

impl<'a> Reader<'a> {
    fn layer(&mut self, index: usize) -> Result<Layer, ModelError> {
        let c = self.config;
        let (d, f, hd) = (c.hidden_size, c.intermediate_size, c.head_dim);
        let (q, kv) = (c.num_heads * hd, c.num_kv_heads * hd);
        let name = |what: &str| format!("model.layers.{index}.{what}");
        let qkv = |what: &str| {
            let part = |p: &str, outputs, rotary| Part {
                name: name(&format!("self_attn.{p}_proj.{what}")),
                outputs,
                rotary,
            };
            [part("q", q, Some(hd)), part("k", kv, Some(hd)), part("v", kv, None)]
        };
        let gate_up = |what: &str| {
            ["gate", "up"].map(|p| Part::new(name(&format!("mlp.{p}_proj.{what}")), f))
        };
        let one = |what: &str, outputs| [Part::new(name(what), outputs)];
        let bias = |reader: &Self, wanted: bool, parts: &[Part]| {
            wanted.then(|| reader.bias(parts)).transpose()
        };
        Ok(Layer {
            attention_norm: self.vector(&name("input_layernorm.weight"), d)?,
            qkv: self.linear(d, &qkv("weight"))?.with_bias(bias(self, c.qkv_bias, &qkv("bias"))?),
            qk_norm: if c.qk_norm {
                let gain = |p: &str| self.vector(&name(&format!("self_attn.{p}_norm.weight")), hd);
                Some((gain("q")?, gain("k")?))
            } else {
                None
            },
            output: self.linear(q, &one("self_attn.o_proj.weight", d))?.with_bias(bias(
                self,
                c.output_bias,
                &one("self_attn.o_proj.bias", d),
            )?),
            mlp_norm: self.vector(&name("post_attention_layernorm.weight"), d)?,
            gate_up: self.swiglu(d, f, &gate_up("weight"))?.with_bias(bias(
                self,
                c.mlp_bias,
                &gate_up("bias"),
            )?),
            down: self.linear(f, &one("mlp.down_proj.weight", d))?.with_bias(bias(
                self,
                c.mlp_bias,
                &one("mlp.down_proj.bias", d),
            )?),
        })
    }

    /// A matrix of the parts' outputs, one after another.
    fn linear(&mut self, inputs: usize, parts: &[Part]) -> Result<Linear, ModelError> {
        let outputs = parts.iter().map(|part| part.outputs).sum();
        self.packed(inputs, parts, |format, pool, source| {
            Linear::load(outputs, inputs, format, pool, source)
        })
    }

    /// Gate and up projections of `width` outputs each.
    fn swiglu(
        &mut self,
        inputs: usize,
        width: usize,
        parts: &[Part],
    ) -> Result<SwiGlu, ModelError> {
        self.packed(inputs, parts, |format, pool, source| {
            SwiGlu::load(width, inputs, format, pool, source)
        })
    }

    /// Lets `pack` make a layer of the parts' outputs, one after another.
    fn packed<T>(
        &mut self,
        inputs: usize,
        parts: &[Part],
        pack: impl FnOnce(Format, &mut Pool, &Source<'_>) -> T,
    ) -> Result<T, ModelError> {
        let tensors = parts
            .iter()
            .map(|part| self.tensor(&part.name, &[part.outputs, inputs]))
            .collect::<Result<Vec<_>, _>>()?;
        // The embedding and the head are the only matrices that do not belong to a layer.
        let is_head = parts.iter().all(|part| !part.name.contains(".layers."));
        let format = self.compute.format(&tensors, is_head);
        let layout = self.checkpoint.rotary_layout();
        let merge = self.checkpoint.merge();
        // The part that holds an output of the whole, which of its outputs that is, and the
        // row of the file.
        let find = |mut output: usize| {
            let mut part = 0;
            while output >= parts[part].outputs {
                output -= parts[part].outputs;
                part += 1;
            }
            (part, output, stored_row(output, parts[part].rotary, layout))
        };
        // What was read a while ago is no longer needed: the packed copy replaces it.
        let release = |tensor: &TensorView<'_>, stored: usize| {
            if stored.is_multiple_of(BEHIND) && stored >= 2 * BEHIND {
                self.checkpoint.release(tensor, stored - 2 * BEHIND..stored - BEHIND);
            }
        };
        let float = |output: usize, row: &mut [f32]| {
            let (part, own, stored) = find(output);
            release(&tensors[part], stored);
            tensors[part].read_f32(stored..stored + 1, row);
            merge.add_to_row(&parts[part].name, own, row);
        };
        let integers = |output: usize, row: Integers<'_>| {
            let (part, _, stored) = find(output);
            release(&tensors[part], stored);
            tensors[part].read_integers(stored, row);
        };
        let as_stored = tensors.iter().all(|tensor| tensor.has_integers(format))
            && !parts.iter().any(|part| merge.changes(&part.name));
        let source = match as_stored {
            true if tensors.iter().all(TensorView::is_symmetric) => Source::Symmetric(&integers),
            true => Source::Integers(&integers),
            false => Source::Float(&float),
        };
        let packed = pack(format, self.pool, &source);
        tensors.iter().for_each(|tensor| self.checkpoint.release(tensor, 0..tensor.rows()));
        Ok(packed)
    }

    /// The parts' vectors, one after another.
    fn bias(&self, parts: &[Part]) -> Result<Vec<f32>, ModelError> {
        let mut all = Vec::new();
        for part in parts {
            let stored = self.vector(&part.name, part.outputs)?;
            let layout = self.checkpoint.rotary_layout();
            all.extend((0..part.outputs).map(|i| stored[stored_row(i, part.rotary, layout)]));
        }
        Ok(all)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name, &[len])?;
        let mut values = vec![0.0; len];
        tensor.read_f32(0..tensor.rows(), &mut values);
        Ok(values)
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'a>, ModelError> {
        let bad = |what: String| ModelError::Tensor { name: name.to_string(), what };
        let tensor = self
            .checkpoint
            .tensor(name)
            .ok_or_else(|| bad(format!("expected shape {shape:?}, found no such tensor")))?;
        if tensor.shape != shape {
            let found = &tensor.shape;
            return Err(bad(format!("expected shape {shape:?}, found {found:?}")));
        }
        Ok(tensor)
    }
}

/// The row of the file that holds output `i` of a projection.
fn stored_row(i: usize, rotary: Option<usize>, layout: RotaryLayout) -> usize {
    rotary.map_or(i, |head_dim| layout.stored_row(i, head_dim))
}
