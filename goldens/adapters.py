"""LoRA adapters saved by PEFT for some of the golden models, with the logits PEFT computes.

    pip install -r goldens/requirements.txt
    python goldens/adapters.py

writes ``goldens/adapters/``; run ``models.py`` first. README.md describes the files. The
logits come from PEFT's own forward, ``x W + scale (x A) B``, and the script checks that
merging (``merge_and_unload``) gives the same, and that leaving the adapter out does not.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

import gguf_files
import models
import reference

TARGET = Path(__file__).parent / "adapters"


@dataclass(frozen=True)
class Adapter:
    """One adapter to write."""

    name: str
    base: str
    """A golden model."""
    config: LoraConfig
    dtype: torch.dtype = torch.float32


def lora(**settings) -> LoraConfig:
    """A configuration for inference."""
    return LoraConfig(task_type="CAUSAL_LM", **settings)


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS = [
    Adapter("all-linear", "llama-f32", lora(r=4, lora_alpha=8, target_modules="all-linear")),
    Adapter("head", "llama-f32", lora(r=2, lora_alpha=2, target_modules=["lm_head", "down_proj"])),
    # A file whose query and key rows are reordered.
    Adapter(
        "patterns",
        "llama.F16.gguf",
        lora(
            r=3,
            lora_alpha=6,
            target_modules=ATTENTION,
            rank_pattern={"layers.1.self_attn.q_proj": 5},
            alpha_pattern={"k_proj": 9},
        ),
        torch.float16,
    ),
    # A quantised one, and a network with norms on its heads.
    Adapter("quantised", "llama.Q4_1.gguf", lora(r=4, lora_alpha=8, target_modules=ATTENTION)),
    Adapter(
        "rslora",
        "qwen3-f32",
        lora(r=4, lora_alpha=3, use_rslora=True, target_modules=r".*\.1\..*(q|up)_proj"),
        torch.bfloat16,
    ),
]


def base_model(name: str) -> PreTrainedModel:
    """The golden model, in float32."""
    path = models.TARGET / name
    if path.is_dir():
        return AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    golden = next(golden for golden in models.GGUF_FILES if golden.name == name)
    model = reference.build(golden.config)
    gguf_files.load(model, gguf_files.read_tensors(path))
    return model


def randomise(model: PeftModel, seed: int) -> None:
    """A and B such that the update is as large as the weight: PEFT starts with B = 0."""
    rng = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if ".lora_A." in name:
            weight.copy_(torch.randn(weight.shape, generator=rng) / weight.shape[1] ** 0.5)
        elif ".lora_B." in name:
            weight.copy_(torch.randn(weight.shape, generator=rng) / weight.shape[1] ** 0.5)


def write_adapter(adapter: Adapter) -> dict:
    """Writes one adapter with its logits; returns its entry in the index."""
    folder = TARGET / adapter.name
    model = get_peft_model(base_model(adapter.base), adapter.config)
    randomise(model, models.seed_of(adapter.name))
    # Left to itself PEFT also saves the LM head if that has an adapter.
    model.to(adapter.dtype).save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = adapter.base
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")

    base = base_model(adapter.base)
    rng = torch.Generator().manual_seed(models.seed_of(adapter.name) + 1)
    tokens = torch.randint(base.config.vocab_size, (1, reference.PROMPT), generator=rng)
    plain = base(tokens).logits[0]
    adapted = PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=True).eval()
    logits = adapted(tokens).logits[0]
    merged = adapted.merge_and_unload()(tokens).logits[0]
    scale = logits.std()
    assert ((merged - logits).abs().max() / scale).item() < 1e-4
    moved = ((plain - logits).abs().max() / scale).item()
    assert moved > 0.3, f"{adapter.name} moves the logits by {moved} only"
    (TARGET / f"{adapter.name}.logits").write_bytes(logits.numpy().astype("<f4").tobytes())
    print(f"{adapter.name:12} on {adapter.base:16} moves the logits by {moved:.2f}")
    return {"name": adapter.name, "base": adapter.base, "tokens": tokens[0].tolist()}


def main() -> None:
    """Writes ``goldens/adapters/`` anew."""
    reference.deterministic()
    disable_progress_bar()
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    entries = [write_adapter(adapter) for adapter in ADAPTERS]
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
    (TARGET / "index.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
