#!/bin/sh
# Installs what cllm is measured against: llama.cpp, built for this machine's CPU, in a
# Python environment of its own. Nobody needs it to use cllm.
#
#   benchmarks/install_peers.sh [FOLDER]
#
# FOLDER is ${XDG_CACHE_HOME:-~/.cache}/cllm-bench unless given. Needs Python 3.11 or later
# with venv, a C++ compiler, and ten to twenty minutes on two cores. Prints the path of the
# environment's Python as its last line. Running it again does nothing that is done.
set -eu

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cllm-bench}
python=${CLLM_PYTHON:-python3}
venv=$folder/peers

mkdir -p "$folder"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    cmake==4.4.4 ninja==1.13.2 scikit-build-core==1.1.2

# From its source package, so that the compiler may use everything this CPU has. A wheel
# would be built for the least of CPUs, and a comparison with it would be worth nothing.
# --no-cache-dir: a wheel built on another machine must not be taken from pip's cache.
# But not AMX: with it this version ends in a segmentation fault at the default model's first
# forward, seen on a Xeon.
flags=
if grep -q amx_int8 /proc/cpuinfo 2>/dev/null; then
    flags="-mno-amx-int8 -mno-amx-bf16 -mno-amx-tile"
    echo "llama.cpp is built without AMX, with which it crashes" >&2
fi
PATH=$venv/bin:$PATH CFLAGS=$flags CXXFLAGS=$flags \
CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DCMAKE_BUILD_TYPE=Release" \
CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)} \
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-cache-dir \
    --no-binary llama-cpp-python llama-cpp-python==0.3.36 gguf==0.18.0 numpy==2.4.6 >&2

# transformers for `decode_table.py`, with PyTorch for CPUs.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch transformers accelerate sentencepiece >&2

"$venv/bin/python" -c 'import llama_cpp, sys; print(llama_cpp.llama_print_system_info().decode(), file=sys.stderr)'
echo "$venv/bin/python"
