//! Weights as transformers has them: f32, under Hugging Face names, rows in Hugging Face's
//! order, whatever file they come from. For training, merging and writing; the network
//! itself packs rows as it reads them and never holds a plain copy.

use super::{Checkpoint, RotaryLayout};
use crate::config::ModelConfig;
use crate::error::ModelError;

impl ModelConfig {
    /// Name and shape of every tensor of the network, in the order of the forward: the
    /// embedding, the layers, the last norm, and `lm_head.weight` unless it is tied.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, f, hd) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let (q, kv) = (self.num_heads * hd, self.num_kv_heads * hd);
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, d])];
        for layer in 0..self.num_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let mut vector = |part: &str, len| all.push((name(part), vec![len]));
            vector("input_layernorm.weight", d);
            if self.qk_norm {
                vector("self_attn.q_norm.weight", hd);
                vector("self_attn.k_norm.weight", hd);
            }
            vector("post_attention_layernorm.weight", d);
            for (part, outputs, inputs, bias) in [
                ("self_attn.q_proj", q, d, self.qkv_bias),
                ("self_attn.k_proj", kv, d, self.qkv_bias),
                ("self_attn.v_proj", kv, d, self.qkv_bias),
                ("self_attn.o_proj", d, q, self.output_bias),
                ("mlp.gate_proj", f, d, self.mlp_bias),
                ("mlp.up_proj", f, d, self.mlp_bias),
                ("mlp.down_proj", d, f, self.mlp_bias),
            ] {
                all.push((name(&format!("{part}.weight")), vec![outputs, inputs]));
                if bias {
                    all.push((name(&format!("{part}.bias")), vec![outputs]));
                }
            }
        }
        all.push(("model.norm.weight".to_owned(), vec![d]));
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".to_owned(), vec![self.vocab_size, d]));
        }
        all
    }

    /// The shape of a tensor of [`ModelConfig::tensors`].
    pub fn shape_of(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors().into_iter().find(|(other, _)| other == name).map(|(_, shape)| shape)
    }
}

impl Checkpoint {
    /// Puts trained values, row-major in Hugging Face's order of rows, in place of a tensor's,
    /// for [`Checkpoint::tensor_f32`] and what writes models; adapters are not added to them.
    /// A network is not loaded from such a checkpoint: write it, and load what was written.
    ///
    /// # Errors
    /// No such tensor in the network, or not as many values as its shape has.
    pub fn replace(&mut self, name: &str, values: Vec<f32>) -> Result<(), ModelError> {
        let bad = |what: String| ModelError::Tensor { name: name.to_string(), what };
        let shape = self.config()?.shape_of(name);
        let shape =
            shape.ok_or_else(|| bad("the network has no tensor of this name".to_string()))?;
        if values.len() != shape.iter().product::<usize>() {
            return Err(bad(format!("expected shape {shape:?}, found {} values", values.len())));
        }
        self.replaced.insert(name.to_owned(), values);
        Ok(())
    }

    /// Whether any tensor was [replaced](Checkpoint::replace).
    pub(crate) fn is_replaced(&self) -> bool {
        !self.replaced.is_empty()
    }

    /// A whole tensor in f32, row-major, by its Hugging Face name
    /// (`model.layers.0.self_attn.q_proj.weight`), in Hugging Face's order of rows: those
    /// of a GGUF file's query and key projections are put back in order, and
    /// [adapters](Checkpoint::add_adapter) are merged in, unless it was
    /// [replaced](Checkpoint::replace). `config` is this checkpoint's own;
    /// the names and shapes it promises are [`ModelConfig::tensors`].
    ///
    /// # Errors
    /// No such tensor in the network (a tied `lm_head.weight` is `model.embed_tokens.weight`)
    /// or in the file, or another shape than the configuration's.
    pub fn tensor_f32(&self, config: &ModelConfig, name: &str) -> Result<Vec<f32>, ModelError> {
        let bad = |what: String| ModelError::Tensor { name: name.to_string(), what };
        let shape = config
            .shape_of(name)
            .ok_or_else(|| bad("the network has no tensor of this name".to_string()))?;
        if let Some(values) = self.replaced.get(name) {
            return Ok(values.clone());
        }
        let tensor = self
            .tensor(name)
            .ok_or_else(|| bad(format!("expected shape {shape:?}, found no such tensor")))?;
        if tensor.shape != shape {
            let found = &tensor.shape;
            return Err(bad(format!("expected shape {shape:?}, found {found:?}")));
        }
        let mut stored = vec![0.0; shape.iter().product()];
        tensor.read_f32(0..tensor.rows(), &mut stored);
        self.release(&tensor, 0..tensor.rows());
        let layout = self.rotary_layout();
        let row_len = stored.len() / shape[0];
        let mut values = stored;
        if layout == RotaryLayout::Interleaved && is_rotary(name) {
            let stored = values;
            values = Vec::with_capacity(stored.len());
            for i in 0..shape[0] {
                let at = layout.stored_row(i, config.head_dim) * row_len;
                values.extend_from_slice(&stored[at..at + row_len]);
            }
        }
        if self.merge().changes(name) {
            for (row, values) in values.chunks_exact_mut(row_len).enumerate() {
                self.merge().add_to_row(name, row, values);
            }
        }
        Ok(values)
    }
}

/// Whether a tensor's rows are pairs that the rotary embedding turns.
pub(crate) fn is_rotary(name: &str) -> bool {
    name.contains(".self_attn.q_proj.") || name.contains(".self_attn.k_proj.")
}
