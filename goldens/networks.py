"""The configurations the golden models are made of: as small as each feature allows."""

from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config

import byte_tokenizer

SMALL = dict(
    vocab_size=byte_tokenizer.VOCAB_SIZE,
    bos_token_id=byte_tokenizer.BOS,
    eos_token_id=byte_tokenizer.EOS,
    pad_token_id=None,
    hidden_size=32,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)
"""The feed-forward width is a multiple of no vector length, for the sake of the tails."""
LEGACY = SMALL | dict(hidden_size=64, intermediate_size=64)
"""Multiples of 32, the block of Q4_0 to Q8_0."""
K_SIZE = SMALL | dict(
    hidden_size=256,
    intermediate_size=256,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)
"""Multiples of 256, the block of the K-quants. The output projection has 64 columns, which
llama.cpp then stores in the nearest type with smaller blocks."""

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # With heads of 16: one frequency kept, two between, five divided.
    "original_max_position_embeddings": 64,
}
WINDOW = 8
FULL, SLIDING = "full_attention", "sliding_attention"


def llama(size: dict = SMALL, **changes) -> LlamaConfig:
    """A Llama with rope unscaled unless ``changes`` say otherwise."""
    return LlamaConfig(**size | dict(rope_parameters=PLAIN_ROPE) | changes)


def mistral(window: int | None) -> MistralConfig:
    """A Mistral."""
    return MistralConfig(**SMALL, sliding_window=window, rope_parameters=PLAIN_ROPE, head_dim=8)


def qwen2(size: dict = SMALL, **changes) -> Qwen2Config:
    """A Qwen2, with the base its models use."""
    return Qwen2Config(**size | dict(rope_parameters=PLAIN_ROPE | {"rope_theta": 1e6}) | changes)


def qwen3(**changes) -> Qwen3Config:
    """A Qwen3, whose heads are wider than the stream divided by their number."""
    rope = PLAIN_ROPE | {"rope_theta": 1e6}
    return Qwen3Config(**SMALL | dict(head_dim=12, rope_parameters=rope) | changes)


def smollm3(layers: int, interval: int) -> SmolLM3Config:
    """A SmolLM3 that leaves out the rotation in every ``interval``-th layer."""
    return SmolLM3Config(
        **SMALL | dict(num_hidden_layers=layers),
        no_rope_layer_interval=interval,
        rope_parameters=PLAIN_ROPE | {"rope_theta": 2e6},
    )
