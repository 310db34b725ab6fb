"""Losses and gradients of training, as PyTorch computes them.

    pip install -r goldens/requirements.txt
    python goldens/training.py

writes ``goldens/training/``: for each case ``NAME.json`` (texts, weights, losses) and
``NAME.safetensors`` (the gradient of every trainable tensor; with LoRA also its values,
prefixed ``value.``, and after three optimizer steps, prefixed ``stepped.``). The models are those of ``goldens/models``.

This is the definition of the objectives, not of their fast form: each text is a plain
causal forward of its own, nothing is packed, no mask is made. Positions and blocks count
from the answer's first token; the state of a block follows the prompt and the settled text
before the block, or with noisy history the states of the blocks before it.
"""

import json
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
TARGET = HERE / "training"

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Case:
    """One example of training."""

    name: str
    model: str
    objective: str = "global"
    """``ar`` alone, or with a consistency loss: ``global`` or ``local``."""
    noisy_history: bool = False
    lora: list[str] | None = None
    """Adapted projections; None trains all weights."""
    r: int = 3
    alpha: float = 5.0
    dropout: float = 0.0
    """Of LoRA's inputs; for ``ar``, whose one text has the rows of the packed forward."""
    block: int = 5
    blocks: int = 3
    prompt_length: int = 7
    ar_weight: float = 0.6
    consistency_weight: float = 1.7


CASES = [
    Case("ar-full", "llama-f32", "ar"),
    Case("global-full", "llama-tied-shards-f32"),
    Case("local-full", "qwen2-f32", "local"),
    Case("history-full", "mistral-window-f32", noisy_history=True),
    Case("global-qwen3", "qwen3-f32"),
    Case("global-smollm3", "smollm3-f32"),
    Case("ar-lora", "llama-llama3-f32", "ar", lora=["q_proj", "v_proj"]),
    Case("global-lora", "llama-f32", lora=LINEAR),
    Case("local-lora", "qwen2-f32", "local", lora=LINEAR),
    Case("history-lora", "llama-bias-f32", noisy_history=True, lora=["o_proj", "down_proj"]),
    Case("dropout-lora", "llama-f32", "ar", lora=LINEAR, dropout=0.3),
]


def mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's, on unsigned numbers of 64 bits that wrap around."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hashed(seed: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """`cllm_decode::counter::hash`."""
    return mix(mix(seed + np.uint64(0x9E3779B97F4A7C15)) ^ counter)


def dropout_mask(shape: tuple[int, int], p: float, layer: int) -> torch.Tensor:
    """What cllm's trainer draws for a layer in its first forward with seed 0: element i is dropped
    if the upper 24 bits of its hash, as a fraction, are below p."""
    key = hashed(np.zeros(1, np.uint64), np.full(1, layer, np.uint64))
    bits = hashed(key, np.arange(shape[0] * shape[1], dtype=np.uint64)) >> np.uint64(40)
    kept = bits.astype(np.float32) / np.float32(1 << 24) >= np.float32(p)
    return torch.from_numpy(kept.reshape(shape)).float() / (1.0 - p)


class Lora(torch.nn.Module):
    """A frozen projection and its low-rank update (Hu et al. 2021)."""

    def __init__(self, base: torch.nn.Linear, case: Case, rng: torch.Generator, layer: int):
        super().__init__()
        self.dropout, self.layer = case.dropout, layer
        self.base, self.scale = base, case.alpha / case.r
        self.lora_A = torch.nn.Parameter(torch.randn(case.r, base.in_features, generator=rng) * 0.2)
        self.lora_B = torch.nn.Parameter(torch.randn(base.out_features, case.r, generator=rng) * 0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        if self.dropout > 0:
            x = x * dropout_mask(x.shape[-2:], self.dropout, self.layer)
        return y + self.scale * (x @ self.lora_A.T) @ self.lora_B.T


def adapt(model: torch.nn.Module, case: Case, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Freezes the model, adds LoRA, and returns what is trained by PEFT's names."""
    model.requires_grad_(False)
    trained, layer = {}, 0
    for name, module in list(model.named_modules()):
        owner, _, leaf = name.rpartition(".")
        # cllm counts the linear layers of all blocks, from 1, in this order.
        layer += leaf in LINEAR
        if leaf in case.lora:
            lora = Lora(module, case, rng, layer)
            setattr(model.get_submodule(owner), leaf, lora)
            for which in ("lora_A", "lora_B"):
                trained[f"base_model.model.{name}.{which}.weight"] = getattr(lora, which)
    return trained


def consistency(case: Case, logits, prompt, answer, states, later) -> torch.Tensor:
    """The mean KL divergence over the counted positions of all blocks."""
    n, terms = case.block, []
    clean = logits(prompt + answer)
    for b, state in enumerate(states):
        settled = answer[b * n : (b + 1) * n]
        wrong = next(i for i in range(n) if state[i] != settled[i])
        if case.noisy_history:
            before = [t for s in states[:b] for t in s]
        else:
            before = answer[: b * n]
        start = len(prompt) + b * n
        student = logits(prompt + before + state)
        if case.objective == "local":
            teacher = logits(prompt + before + later[b])
        else:
            teacher = clean
        for i in range(wrong + 1, n):
            p = F.log_softmax(teacher[start + i - 1].detach(), -1)
            q = F.log_softmax(student[start + i - 1], -1)
            terms.append(F.kl_div(q, p, log_target=True, reduction="sum"))
    return torch.stack(terms).mean()


STEPS = [(0.02, 1.0), (0.03, 0.5), (0.01, 100.0)]
"""Learning rate and largest gradient norm of three optimizer steps."""


def stepped(trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters after steps of AdamW with clipping, on the same gradient each time."""
    gradients = [p.grad.clone() for p in trained.values()]
    optimizer = torch.optim.AdamW(trained.values(), betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for lr, norm in STEPS:
        for p, gradient in zip(trained.values(), gradients):
            p.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(trained.values(), norm)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    return {name: p.detach().clone() for name, p in trained.items()}


def write(case: Case) -> None:
    rng = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))
    model = AutoModelForCausalLM.from_pretrained(
        HERE / "models" / case.model, dtype=torch.float32, attn_implementation="eager"
    )
    lora = case.lora is not None
    trained = adapt(model, case, rng) if lora else dict(model.named_parameters())

    def tokens(count: int) -> list[int]:
        return torch.randint(0, 257, (count,), generator=rng).tolist()

    def logits(text: list[int]) -> torch.Tensor:
        return model(torch.tensor([text])).logits[0]

    n = case.block
    prompt, answer = tokens(case.prompt_length), tokens(n * case.blocks)
    # A state keeps some of the settled tokens, and is wrong somewhere before its last
    # position; the state after it has one more of them right.
    states, later = [], []
    for b in range(case.blocks):
        settled = answer[b * n : (b + 1) * n]
        kept = torch.rand(n, generator=rng) < 0.4
        kept[b % (n - 2)] = False
        state = [t if k else (t + 1) % 257 for t, k in zip(settled, kept)]
        wrong = next(i for i in range(n) if state[i] != settled[i])
        states.append(state)
        later.append(state[:wrong] + [settled[wrong]] + tokens(n - wrong - 1))

    text = logits(prompt + answer)[len(prompt) - 1 : -1]
    ar = case.ar_weight * F.cross_entropy(text, torch.tensor(answer))
    loss, rows = ar, torch.zeros(())
    if case.objective != "ar":
        rows = consistency(case, logits, prompt, answer, states, later) * case.consistency_weight
        loss = ar + rows
    loss.backward()

    out = {name: p.grad.clone() for name, p in trained.items()}
    assert all(g is not None and g.abs().max() > 0 for g in out.values())
    if lora:
        out |= {f"value.{name}": p.detach().clone() for name, p in trained.items()}
        out |= {f"stepped.{name}": p for name, p in stepped(trained).items()}
    save_file(out, TARGET / f"{case.name}.safetensors")
    facts = asdict(case) | dict(
        prompt=prompt,
        answer=answer,
        states=states,
        later=later,
        ar_loss=ar.item(),
        consistency_loss=rows.item(),
    )
    (TARGET / f"{case.name}.json").write_text(json.dumps(facts) + "\n")
    print(f"{case.name}: AR {ar.item():.4f}, consistency {rows.item():.4f}, {len(trained)} tensors")


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    for case in CASES:
        write(case)


if __name__ == "__main__":
    main()
