"""Tiny random models of every supported architecture and weight type, with their logits.

    pip install -r goldens/requirements.txt
    python goldens/models.py

writes ``goldens/models/``: HF folders and GGUF files, for each model ``NAME.logits``, and
one ``index.json`` that lists them. What is compared with is always computed from the file
as it was written, read back by another path than the writer's: transformers for a folder,
gguf-py's dequantisation for a GGUF file. README.md describes the formats.
"""

import json
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.utils.logging import disable_progress_bar

import byte_tokenizer
import gguf_files
import reference
from networks import (
    FULL,
    K_SIZE,
    LEGACY,
    LINEAR,
    LLAMA3,
    PLAIN_ROPE,
    SLIDING,
    WINDOW,
    llama,
    mistral,
    qwen2,
    qwen3,
    smollm3,
)

TARGET = Path(__file__).parent / "models"

@dataclass(frozen=True)
class Golden:
    """One model to write."""

    name: str
    config: PreTrainedConfig
    mistakes: list[dict] = field(default_factory=list)
    """Misreadings of the configuration, as changed fields. Each must change the logits:
    a golden that passes without the feature it is there for tests nothing."""


@dataclass(frozen=True)
class Folder(Golden):
    """An HF folder."""

    dtype: torch.dtype = torch.float32
    hub_style: bool = False
    """Whether config.json is spelt as most files on the hub are (``rope_theta`` and
    ``rope_scaling``, no ``layer_types``) or as transformers 5 writes it."""
    raw: dict = field(default_factory=dict)
    """Fields of config.json that transformers would not write this way."""
    shard_size: str = "1GB"

    def write(self, rng: np.random.Generator) -> torch.nn.Module:
        """Writes the folder and returns what transformers reads from it."""
        path = TARGET / self.name
        path.mkdir()
        model = reference.random_network(self.config, seed_of(self.name)).to(self.dtype)
        model.save_pretrained(path, max_shard_size=self.shard_size)
        byte_tokenizer.write_tokenizer_json(path)
        config = json.loads((path / "config.json").read_text())
        config = (hub_spelling(config) if self.hub_style else config) | self.raw
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        return AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager"
        ).eval()


@dataclass(frozen=True)
class GgufFile(Golden):
    """A GGUF file."""

    types: dict[str, Type] = field(default_factory=dict)
    file_type: LlamaFileType = LlamaFileType.MOSTLY_F16

    def write(self, rng: np.random.Generator) -> torch.nn.Module:
        """Writes the file and returns the network of its dequantised weights."""
        path = TARGET / self.name
        arch = {"mistral": "llama"}.get(self.config.model_type, self.config.model_type)
        random = reference.random_network(self.config, seed_of(self.name))
        gguf_files.write(path, random, arch, self.types, self.file_type, rng)
        model = reference.build(self.config)
        gguf_files.load(model, gguf_files.read_tensors(path))
        return model


def hub_spelling(config: dict) -> dict:
    """``config`` as transformers 4 and the models of its time write it."""
    config = {key: value for key, value in config.items() if key != "layer_types"}
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    if rope["rope_type"] == "linear":
        rope["type"] = rope.pop("rope_type")
    config["torch_dtype"] = config.pop("dtype")
    return config


def seed_of(name: str) -> int:
    """A seed of its own for every model, so that one more changes none of the others."""
    return zlib.crc32(name.encode())


MULTI_HEAD = dict(num_key_value_heads=4, tie_word_embeddings=False)
BIASES = dict(attention_bias=True, mlp_bias=True)
UNSCALED = {"rope_parameters": PLAIN_ROPE}
WIDE = dict(head_dim=16)

FOLDERS = [
    Folder("llama-f32", llama(**MULTI_HEAD), hub_style=True),
    Folder("llama-f16", llama(), dtype=torch.float16),
    Folder("llama-bf16", llama(), dtype=torch.bfloat16, hub_style=True),
    Folder("llama-tied-shards-f32", llama(), shard_size="30KB"),
    Folder("llama-bias-f32", llama(**BIASES), [{"attention_bias": False}, {"mlp_bias": False}]),
    Folder("llama-head-dim-f32", llama(head_dim=12)),
    Folder("llama-llama3-f32", llama(**WIDE, rope_parameters=LLAMA3), [UNSCALED]),
    Folder("llama-linear-f32", llama(rope_parameters=LINEAR), [UNSCALED], hub_style=True),
    Folder(
        "mistral-window-f32",
        mistral(WINDOW),
        [{"sliding_window": None}, {"sliding_window": WINDOW + 1}],
        hub_style=True,
    ),
    # The window's size is there but switched off, as in the published Qwen2.5.
    Folder(
        "qwen2-f32",
        qwen2(),
        [{"rope_parameters": PLAIN_ROPE}],
        raw={"use_sliding_window": False, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    Folder(
        "qwen2-window-f32",
        qwen2(
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=WINDOW,
            max_window_layers=1,
        ),
        [{"layer_types": [FULL] * 3}, {"layer_types": [SLIDING] * 3}],
        hub_style=True,
    ),
    Folder("qwen3-f32", qwen3()),
    Folder(
        "qwen3-layer-types-bf16",
        qwen3(use_sliding_window=True, sliding_window=WINDOW, layer_types=[SLIDING, FULL]),
        [{"layer_types": [FULL, FULL]}, {"layer_types": [FULL, SLIDING]}],
        dtype=torch.bfloat16,
    ),
    Folder(
        "smollm3-f32",
        smollm3(layers=3, interval=2),
        [{"no_rope_layers": [1, 1, 1]}, {"no_rope_layers": [0, 1, 0]}],
        hub_style=True,
    ),
]


def simple(config: PreTrainedConfig, name: str, kind: Type, *mistakes: dict) -> GgufFile:
    """A file whose matrices are all of one type."""
    file_type = "ALL_F32" if kind == Type.F32 else f"MOSTLY_{kind.name}"
    return GgufFile(
        f"{name}.{kind.name}.gguf",
        config,
        list(mistakes),
        types={"*": kind},
        file_type=LlamaFileType[file_type],
    )


GGUF_FILES = [
    simple(llama(**MULTI_HEAD), "llama", Type.F32),
    simple(llama(), "llama", Type.F16),
    simple(llama(), "llama", Type.BF16),
    simple(llama(LEGACY), "llama", Type.Q5_0),
    simple(llama(LEGACY), "llama", Type.Q5_1),
    simple(llama(LEGACY), "llama", Type.Q8_0),
    GgufFile(
        "llama.Q4_0.gguf",
        llama(LEGACY, tie_word_embeddings=False),
        types={"*": Type.Q4_0, "output": Type.Q8_0},
        file_type=LlamaFileType.MOSTLY_Q4_0,
    ),
    GgufFile(
        "llama.Q4_1.gguf",
        llama(LEGACY),
        types={"*": Type.Q4_1, "token_embd": Type.Q8_0},
        file_type=LlamaFileType.MOSTLY_Q4_1,
    ),
    GgufFile(
        "llama.Q4_K_M.gguf",
        llama(K_SIZE),
        types={
            "*": Type.Q4_K,
            "attn_output": Type.Q5_0,
            "token_embd": Type.Q6_K,
            "attn_v": Type.Q6_K,
            "ffn_down": Type.Q6_K,
        },
        file_type=LlamaFileType.MOSTLY_Q4_K_M,
    ),
    GgufFile(
        "llama.Q5_K_S.gguf",
        llama(K_SIZE),
        types={"*": Type.Q5_K, "attn_output": Type.Q5_1, "token_embd": Type.Q4_K},
        file_type=LlamaFileType.MOSTLY_Q5_K_S,
    ),
    simple(llama(**BIASES), "llama-bias", Type.F16, {"attention_bias": False}),
    simple(llama(**WIDE, rope_parameters=LLAMA3), "llama-llama3", Type.F16, UNSCALED),
    simple(llama(rope_parameters=LINEAR), "llama-linear", Type.F16, UNSCALED),
    # llama.cpp's converter drops Mistral's window, so the file means full attention.
    simple(mistral(None), "mistral", Type.F16),
    simple(qwen2(LEGACY), "qwen2", Type.Q8_0),
    simple(qwen3(), "qwen3", Type.F16),
    simple(smollm3(layers=4, interval=4), "smollm3", Type.F16, {"no_rope_layers": [1] * 4}),
]


def write_golden(golden: Folder | GgufFile) -> dict:
    """Writes one model with its logits; returns its entry in the index."""
    model = golden.write(np.random.default_rng(seed_of(golden.name)))
    expected = reference.run(model, seed_of(golden.name) + 1)
    for mistake in golden.mistakes:
        moved = reference.mistaken(model, mistake, expected)
        assert moved > 0.05, f"{golden.name}: {mistake} moves the logits by {moved} only"
    logits = torch.cat([expected.logits, expected.steps]).numpy().astype("<f4")
    (TARGET / f"{golden.name}.logits").write_bytes(logits.tobytes())
    scale = float(logits.std())
    print(f"{golden.name:24} logits {scale:5.2f}  margin {expected.margin:.4f}  {expected.greedy}")
    return {
        "name": golden.name,
        "vocab": logits.shape[1],
        "tokens": expected.tokens,
        "steps": reference.STEPS,
        "greedy": expected.greedy,
        "margin": round(expected.margin, 5),
    }


def main() -> None:
    """Writes ``goldens/models/`` anew."""
    reference.deterministic()
    disable_progress_bar()
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    entries = [write_golden(golden) for golden in FOLDERS + GGUF_FILES]
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
    (TARGET / "index.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
