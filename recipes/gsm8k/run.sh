#!/usr/bin/env bash
# From GSM8K's train.jsonl to the two adapters of the default model, one after the other:
#
#   recipes/gsm8k/run.sh DATA OUT        DATA/train.jsonl, DATA/test.jsonl
#
# About three hours on two cores. Every stage goes on where it was stopped.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 DATA OUT" >&2; exit 2; }
here=$(dirname "$0") data=$1 out=$2
: "${CLLM:=cllm}"
bf16=(--adapter-dtype bfloat16 --resume --eval-holdout 64)

"$CLLM" sft --config "$here/teacher.yaml" --data "$data/train.jsonl" \
  --output-dir "$out/teacher" "${bf16[@]}"
# A quarter of the questions: collecting costs as much as training on what it gives.
"$CLLM" collect --data "$data/train.jsonl" --adapter "$out/teacher/adapter" \
  --out "$out/trajectories" --block 16 --max-new-tokens 256 --num-shards 4 --shard 0 \
  --prompts-in-flight 48 --rows-per-forward 512
"$CLLM" train --config "$here/consistency.yaml" --trajectories "$out/trajectories" \
  --adapter "$out/teacher/adapter" --output-dir "$out/cllm" "${bf16[@]}"
for model in teacher cllm; do
  "$CLLM" eval gsm8k --data "$data/test.jsonl" --adapter "$out/$model/adapter" --check \
    --decoder jacobi:8 --max-new-tokens 256 --out "$out/$model.jsonl"
done
