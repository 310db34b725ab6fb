"""GGUF files of Llama-family networks: written as llama.cpp's converter writes them, and
read back into the tensors of the transformers model.

Names, keys and conventions follow llama.cpp's ``convert_hf_to_gguf.py``:

* architecture ``llama`` (Llama, Mistral) and ``smollm3`` store the rows of the query and
  key projections, biases included, reordered within each head: row ``2 i + s`` of the
  file is row ``i + s * head_dim / 2`` of the checkpoint, because llama.cpp rotates
  neighbouring elements where transformers rotates halves. ``qwen2`` and ``qwen3`` keep
  the order.
* Llama 3's rope scaling is stored as one divisor per frequency in ``rope_freqs.weight``;
  linear scaling as metadata; a sliding window of ``llama`` not at all.
* Norms, biases and every other vector stay F32.

The reader shares no code with the writer beyond the table of names, so that a golden
rests on what is in the file and not on what we meant to write.
"""

import math
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import PreTrainedConfig, PreTrainedModel

import byte_tokenizer

PERMUTED = {"llama", "smollm3"}
"""GGUF architectures whose query and key rows are reordered."""

TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    """The transformers name of a GGUF tensor: ``blk.0.attn_q.bias`` is
    ``model.layers.0.self_attn.q_proj.bias``."""
    stem, suffix = name.rsplit(".", 1)
    if stem.startswith("blk."):
        _, layer, part = stem.split(".")
        return f"model.layers.{layer}.{BLOCK[part]}.{suffix}"
    return f"{TOP[stem]}.{suffix}"


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All weights of a GGUF file in float32, under the names and in the row order of
    transformers. ``rope_freqs.weight`` is not a weight of the checkpoint and left out.
    """
    reader = gguf.GGUFReader(path)
    arch = reader.get_field("general.architecture").contents()
    heads = {
        "attn_q": reader.get_field(f"{arch}.attention.head_count").contents(),
        "attn_k": reader.get_field(f"{arch}.attention.head_count_kv").contents(),
    }
    tensors = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = torch.from_numpy(values)
        part = tensor.name.split(".")[-2]
        if arch in PERMUTED and part in heads:
            # (H, head_dim / 2, 2, ...): neighbours become halves.
            halves = values.unflatten(0, (heads[part], -1, 2)).transpose(1, 2)
            values = halves.reshape(values.shape).contiguous()
        tensors[hf_name(tensor.name)] = values
    return tensors


def load(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> None:
    """Puts ``tensors`` into ``model``; every weight must be there, and nothing more. A
    tied LM head follows the embedding."""
    if model.config.tie_word_embeddings:
        tensors = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}
    model.load_state_dict(tensors, strict=True)


def write(
    path: Path,
    model: PreTrainedModel,
    arch: str,
    types: dict[str, Type],
    file_type: gguf.LlamaFileType,
    rng: np.random.Generator,
) -> None:
    """Writes ``model`` to ``path``. ``types`` maps a tensor's stem without its layer
    (``attn_q``) to its type; ``"*"`` stands for all others."""
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(path.stem)
    write_parameters(writer, config, file_type)
    byte_tokenizer.write_gguf(writer)
    scaling = rope_factors(config)
    if scaling is not None:
        writer.add_tensor("rope_freqs.weight", scaling)
    state = model.state_dict()
    for name in tensor_names(config.num_hidden_layers):
        if (key := hf_name(name)) not in state:
            continue
        if name == "output.weight" and config.tie_word_embeddings:
            continue
        values = state[key].float().numpy()
        part = name.split(".")[-2]
        if arch in PERMUTED and part in ("attn_q", "attn_k"):
            heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
            values = permute(values, heads)
        kind = types.get(part, types["*"]) if values.ndim == 2 else Type.F32
        writer.add_tensor(name, encode(values, kind, rng), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_parameters(
    writer: gguf.GGUFWriter, config: PreTrainedConfig, file_type: gguf.LlamaFileType
) -> None:
    """The metadata that describes the network."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if head_dim * config.num_attention_heads != config.hidden_size or config.model_type == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config.model_type in ("llama", "mistral", "smollm3"):
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_dim)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def tensor_names(layers: int) -> list[str]:
    """Every name a file may hold, in the order of llama.cpp's converter."""
    stems = ["token_embd"]
    stems += [f"blk.{layer}.{part}" for layer in range(layers) for part in BLOCK]
    stems += ["output_norm", "output"]
    return [f"{stem}.{suffix}" for stem in stems for suffix in ("weight", "bias")]


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Halves become neighbours: see the head of this file."""
    shape = (heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape))


def rope_factors(config: PreTrainedConfig) -> np.ndarray | None:
    """Llama 3's rope scaling as one divisor per frequency, or None for other models.

    A frequency whose wavelength is below ``original / high_freq_factor`` is kept, one
    above ``original / low_freq_factor`` is divided by ``factor``, between them the two
    are mixed linearly in ``original / wavelength``.
    """
    rope = config.rope_parameters
    if rope["rope_type"] != "llama3":
        return None
    original = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for i in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / config.head_dim)
        mix = min(max((original / wavelength - low) / (high - low), 0.0), 1.0)
        factors.append(1.0 / ((1.0 - mix) / rope["factor"] + mix))
    return np.array(factors, dtype=np.float32)


def encode(values: np.ndarray, kind: Type, rng: np.random.Generator) -> np.ndarray:
    """``values`` as a tensor of type ``kind``. gguf-py has no quantizer for the K-quants:
    there it is random blocks of the same standard deviation, which serve a random model
    just as well."""
    if kind == Type.F32:
        return values
    if kind == Type.F16:
        return values.astype(np.float16)
    if kind in K_QUANTS:
        blocks = K_QUANTS[kind](values.size // gguf.QK_K, float(values.std()), rng)
        return blocks.reshape(values.shape[0], -1)
    return gguf.quantize(values, kind)


def halves(values: np.ndarray) -> np.ndarray:
    """Float16 bytes of one value per block, shape (blocks, 2)."""
    return values.astype(np.float16).reshape(-1, 1).view(np.uint8)


def random_q45_k(blocks: int, std: float, rng: np.random.Generator, bits: int) -> np.ndarray:
    """Q4_K or Q5_K: ``w = d * scale * q - dmin * min`` with 6-bit scales and minima per
    32 weights. The minima are near the scales and ``dmin = d * middle of q``, which
    centres the weights on zero while no two fields hold the same number."""
    middle = (2**bits - 1) / 2
    spread = math.sqrt((4**bits - 1) / 12)  # of q, uniform over 0 .. 2^bits - 1
    scale = rng.integers(8, 64, (blocks, 8))
    minimum = np.clip(scale + rng.integers(-3, 4, (blocks, 8)), 0, 63)
    d = std / (39 * spread) * rng.uniform(0.7, 1.3, blocks)
    low, high = (scale[:, :4], minimum[:, :4]), (scale[:, 4:], minimum[:, 4:])
    packed = [
        low[0] | (high[0] >> 4) << 6,
        low[1] | (high[1] >> 4) << 6,
        (high[0] & 15) | (high[1] & 15) << 4,
    ]
    parts = [halves(d), halves(d * middle), *(part.astype(np.uint8) for part in packed)]
    # Q5_K: the fifth bits, then as in Q4_K the four lower ones.
    quants = (32 if bits == 5 else 0) + 128
    parts.append(rng.integers(0, 256, (blocks, quants), dtype=np.uint8))
    return np.concatenate(parts, axis=1)


def random_q6_k(blocks: int, std: float, rng: np.random.Generator) -> np.ndarray:
    """Q6_K: ``w = d * scale * q`` with q in -32 .. 31 and signed 8-bit scales per 16
    weights."""
    quants = rng.integers(0, 256, (blocks, 192), dtype=np.uint8)
    scale = rng.integers(-100, 101, (blocks, 16)).astype(np.int8)
    d = std / (58 * 18.5) * rng.uniform(0.7, 1.3, blocks)
    return np.concatenate([quants, scale.view(np.uint8), halves(d)], axis=1)


K_QUANTS = {
    Type.Q4_K: lambda blocks, std, rng: random_q45_k(blocks, std, rng, 4),
    Type.Q5_K: lambda blocks, std, rng: random_q45_k(blocks, std, rng, 5),
    Type.Q6_K: random_q6_k,
}
