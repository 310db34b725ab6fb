"""Writes a GGUF file of a larger Llama with random weights, to see how times grow.

    random_model.py TEMPLATE.gguf OUT.gguf --type Q4_1 [--layers 16 --hidden 2048 ...]

Tokenizer and other metadata come from the template. The default shape is that of a
Llama of one billion weights with the template's vocabulary. Weights are normal with
standard deviation 0.02, each matrix quantised by gguf-py; what such a model says is noise.
"""

import argparse
import os

import gguf
import numpy as np
from gguf.quants import quantize

from requantize import copy_metadata, file_type_of, raw_dtype


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("template")
    parser.add_argument("target")
    parser.add_argument("--type", default="Q4_1", help="of the matrices")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--intermediate", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    d, f = arguments.hidden, arguments.intermediate
    head = d // arguments.heads
    kv = head * arguments.kv_heads

    kind = gguf.GGMLQuantizationType[arguments.type]
    reader = gguf.GGUFReader(arguments.template)
    vocab = len(reader.get_field(gguf.Keys.Tokenizer.LIST).data)
    partial = arguments.target + ".partial"
    writer = gguf.GGUFWriter(partial, "llama")
    copy_metadata(reader, writer, {
        "general.file_type": file_type_of(kind),
        "general.name": "random weights",
        "llama.block_count": arguments.layers,
        "llama.embedding_length": d,
        "llama.feed_forward_length": f,
        "llama.attention.head_count": arguments.heads,
        "llama.attention.head_count_kv": arguments.kv_heads,
        "llama.rope.dimension_count": head,
    })
    random = np.random.default_rng(arguments.seed)

    def matrix(name, outputs, inputs):
        values = 0.02 * random.standard_normal((outputs, inputs), dtype=np.float32)
        writer.add_tensor(name, quantize(values, kind), raw_dtype=raw_dtype(kind))

    def gain(name):
        writer.add_tensor(name, np.ones(d, dtype=np.float32))

    matrix("token_embd.weight", vocab, d)
    gain("output_norm.weight")
    for layer in range(arguments.layers):
        prefix = f"blk.{layer}"
        gain(f"{prefix}.attn_norm.weight")
        matrix(f"{prefix}.attn_q.weight", d, d)
        matrix(f"{prefix}.attn_k.weight", kv, d)
        matrix(f"{prefix}.attn_v.weight", kv, d)
        matrix(f"{prefix}.attn_output.weight", d, d)
        gain(f"{prefix}.ffn_norm.weight")
        matrix(f"{prefix}.ffn_gate.weight", f, d)
        matrix(f"{prefix}.ffn_up.weight", f, d)
        matrix(f"{prefix}.ffn_down.weight", d, f)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, arguments.target)


if __name__ == "__main__":
    main()
