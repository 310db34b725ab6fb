"""Writes a GGUF file again with its matrices in another type.

    requantize.py IN.gguf OUT.gguf --type Q8_0 | F16 | BF16 | F32 ...

The matrices are dequantised and quantised again by gguf-py; vectors and metadata stay as
they are. Nothing is gained in fidelity: it makes one model available in every type, so
that the speed of types can be compared.
"""

import argparse
import os

import gguf
import numpy as np
from gguf.quants import dequantize, quantize


def copy_metadata(reader, writer, changed):
    """All metadata of a file, with the values of `changed` in place of its own."""
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        kind = field.types[0]
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = changed.get(field.name, field.contents())
        writer.add_key_value(field.name, value, kind, sub_type=items)


def file_type_of(kind):
    """The value of `general.file_type` for files whose matrices are of one type."""
    mostly = getattr(gguf.LlamaFileType, f"MOSTLY_{kind.name}", gguf.LlamaFileType.ALL_F32)
    return int(mostly)


def raw_dtype(kind):
    """What `add_tensor` must be told: NumPy's own types speak for themselves."""
    native = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
    return None if kind in native else kind


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--type", default="Q8_0", help="of the matrices")
    arguments = parser.parse_args()
    kind = gguf.GGMLQuantizationType[arguments.type]
    reader = gguf.GGUFReader(arguments.source)
    architecture = reader.get_field(gguf.Keys.General.ARCHITECTURE).contents()
    # Complete or not there at all.
    partial = arguments.target + ".partial"
    writer = gguf.GGUFWriter(partial, architecture)
    copy_metadata(reader, writer, {gguf.Keys.General.FILE_TYPE: file_type_of(kind)})
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=raw_dtype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, arguments.target)


if __name__ == "__main__":
    main()
