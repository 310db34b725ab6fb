"""Writes goldens/blocks/: random blocks of every tensor type and their values in f32.

    python goldens/blocks.py

For a type T: `T.blocks` holds the stored bytes, `T.f32` the little-endian f32 that the
`gguf` package (llama.cpp's own, and bit-exact to ggml's reference) makes of them. Needs
numpy and gguf. Deterministic: running it again changes nothing.
"""

from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

OUT = Path(__file__).parent / "blocks"

# Bytes of a block that hold an f16 scale or minimum.
HALVES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}

# Scales that real files have beside ordinary ones: zero, minus zero, subnormal, the
# largest, one.
SPECIAL = np.array([0.0, -0.0, 6e-8, 65504.0, 1.0], dtype=np.float16)


def blocks(kind: Type, rng: np.random.Generator) -> np.ndarray:
    """Random bytes, but scales that are finite."""
    length, size = GGML_QUANT_SIZES[kind]
    count = max(8, 256 // length)
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES.get(kind, []):
        scales = rng.normal(0, 0.05, count).astype(np.float16)
        scales[: len(SPECIAL)] = rng.permutation(SPECIAL)
        data[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    if kind not in HALVES:
        plain = {Type.F32: np.uint32, Type.F16: np.uint16, Type.BF16: np.uint16}[kind]
        bits = data.view(plain)
        # No NaN: which of its bits survive a conversion is nobody's contract.
        exponent = {Type.F32: 0x7F800000, Type.F16: 0x7C00, Type.BF16: 0x7F80}[kind]
        bits[(bits & exponent) == exponent] &= plain(~exponent & np.iinfo(plain).max)
    return data


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for kind in [Type.F32, Type.F16, Type.BF16, *HALVES]:
        rng = np.random.default_rng(int(kind))
        data = blocks(kind, rng)
        values = dequantize(data.reshape(1, -1), kind).astype("<f4")
        (OUT / f"{kind.name}.blocks").write_bytes(data.tobytes())
        (OUT / f"{kind.name}.f32").write_bytes(values.tobytes())


if __name__ == "__main__":
    main()
