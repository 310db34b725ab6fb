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


def copy_metadata(reader, writer, file_type):
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        if field.name == gguf.Keys.General.FILE_TYPE:
            writer.add_file_type(file_type)
            continue
        kind = field.types[0]
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=items)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--type", default="Q8_0", help="of the matrices")
    arguments = parser.parse_args()
    kind = gguf.GGMLQuantizationType[arguments.type]
    file_type = getattr(gguf.LlamaFileType, f"MOSTLY_{arguments.type}", None)
    if file_type is None:
        file_type = gguf.LlamaFileType.ALL_F32

    reader = gguf.GGUFReader(arguments.source)
    architecture = reader.get_field(gguf.Keys.General.ARCHITECTURE).contents()
    # Complete or not there at all.
    partial = arguments.target + ".partial"
    writer = gguf.GGUFWriter(partial, architecture)
    copy_metadata(reader, writer, file_type)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, values)
        else:
            data = quantize(values, kind)
            native = kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
            writer.add_tensor(tensor.name, data, raw_dtype=None if native else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, arguments.target)


if __name__ == "__main__":
    main()
