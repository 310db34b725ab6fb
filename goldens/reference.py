"""Random networks, and what transformers says they compute.

Everything is float32, eager attention, one thread: the plainest arithmetic there is.
"""

import copy
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

PROMPT = 24
"""Tokens of the prompt: three of the sliding windows used here."""
STEPS = 3
"""The last positions of the prompt, which are also decoded one by one with the cache."""
NEW_TOKENS = 16
"""Tokens of the greedy continuation."""


@dataclass(frozen=True)
class Expected:
    """What a network computes for one prompt."""

    tokens: list[int]
    """The prompt."""
    logits: torch.Tensor
    """One forward over the whole prompt, (PROMPT, vocabulary)."""
    steps: torch.Tensor
    """The last STEPS positions, decoded one by one, (STEPS, vocabulary)."""
    greedy: list[int]
    """The continuation of the prompt."""
    margin: float
    """The smallest distance, over the continuation, of the best logit from the second."""


def deterministic() -> None:
    """One thread and no gradients; call it first."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """A network without weights worth mentioning, in float32 with eager attention."""
    return AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def random_network(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A network whose weights make every part count.

    The usual 0.02 would give uniform attention and equal logits, and hide any mistake.
    Here a projection keeps the size of its input (std ``gain / sqrt(fan in)``), queries
    and keys are larger so that attention is peaked, the branches outweigh the embedding
    so that the residual stream is not a copy of the input, and norms and biases are far
    from their neutral values.
    """
    model = build(config)
    rng = torch.Generator().manual_seed(seed)
    gains = {"q_proj": 1.6, "k_proj": 1.6, "o_proj": 3.0, "down_proj": 5.0}
    for name, weight in sorted(model.named_parameters()):
        values = torch.randn(weight.shape, generator=rng)
        owner = name.split(".")[-2]
        if owner.endswith("norm"):
            values = 1.0 + 0.3 * values
        elif name.endswith(".bias"):
            values *= 0.5
        elif owner == "embed_tokens":
            values *= 0.5
        else:
            values *= gains.get(owner, 1.0) / weight.shape[1] ** 0.5
            values *= 4.0 if owner == "lm_head" else 1.0
        weight.copy_(values)
    return model


def run(model: PreTrainedModel, seed: int) -> Expected:
    """What ``model`` computes for the first random prompt, counted from ``seed``, whose
    greedy continuation is worth comparing: no token hangs by a rounding error, and it is
    not one token over and over."""
    for attempt in range(100):
        expected = decode(model, seed + attempt)
        decisive = expected.margin > 0.01 * expected.logits.std().item()
        if decisive and len(set(expected.greedy)) > NEW_TOKENS // 2:
            return expected
    raise ValueError("no prompt has a decisive and varied continuation")


def decode(model: PreTrainedModel, seed: int) -> Expected:
    """Prefill, decoding by steps and greedy continuation of one random prompt. The steps
    go through transformers' cache; that they agree with the prefill is checked here."""
    rng = torch.Generator().manual_seed(seed)
    prompt = torch.randint(model.config.vocab_size, (1, PROMPT), generator=rng)
    logits = model(prompt).logits[0]

    output = model(prompt[:, :-STEPS], use_cache=True)
    steps = []
    for i in range(PROMPT - STEPS, PROMPT):
        output = model(prompt[:, i : i + 1], past_key_values=output.past_key_values)
        steps.append(output.logits[0, -1])
    steps = torch.stack(steps)
    drift = ((steps - logits[-STEPS:]).abs().max() / logits.std()).item()
    assert drift < 1e-5, f"steps differ from the prefill by {drift} of the logits' deviation"

    greedy, margin = [], float("inf")
    for _ in range(NEW_TOKENS):
        best, second = output.logits[0, -1].topk(2).values.tolist()
        margin = min(margin, best - second)
        token = output.logits[:, -1].argmax(-1, keepdim=True)
        greedy.append(token.item())
        output = model(token, past_key_values=output.past_key_values)
    return Expected(prompt[0].tolist(), logits, steps, greedy, margin)


def mistaken(model: PreTrainedModel, mistake: dict, expected: Expected) -> float:
    """How far the logits move, in units of their own standard deviation, when the
    configuration is misread in the way ``mistake`` says."""
    config = copy.deepcopy(model.config)
    for key, value in mistake.items():
        setattr(config, key, value)
    other = build(config)
    other.load_state_dict(model.state_dict(), strict=False)
    moved = other(torch.tensor([expected.tokens])).logits[0] - expected.logits
    return (moved.abs().max() / expected.logits.std()).item()
