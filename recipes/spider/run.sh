#!/usr/bin/env bash
# From Spider's train.jsonl to the two adapters of the default model, one after the other:
#
#   recipes/spider/run.sh DATA OUT       DATA/train.jsonl, DATA/dev.jsonl, DATA/tables.json
#
# About two and a half hours on two cores. Every stage goes on where it was stopped.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 DATA OUT" >&2; exit 2; }
here=$(dirname "$0") data=$1 out=$2
: "${CLLM:=cllm}"
bf16=(--adapter-dtype bfloat16 --resume --eval-holdout 64)
tables=(--tables "$data/tables.json")

"$CLLM" sft --config "$here/teacher.yaml" --data "$data/train.jsonl" "${tables[@]}" \
  --output-dir "$out/teacher" "${bf16[@]}"
# Half of the questions: collecting costs as much as training on what it gives.
"$CLLM" collect --data "$data/train.jsonl" "${tables[@]}" --adapter "$out/teacher/adapter" \
  --out "$out/trajectories" --block 16 --max-new-tokens 128 --num-shards 2 --shard 0 \
  --prompts-in-flight 48 --rows-per-forward 512
"$CLLM" train --config "$here/consistency.yaml" --trajectories "$out/trajectories" \
  --adapter "$out/teacher/adapter" --output-dir "$out/cllm" "${bf16[@]}"
for model in teacher cllm; do
  "$CLLM" eval spider --data "$data/dev.jsonl" "${tables[@]}" --adapter "$out/$model/adapter" \
    --check --decoder jacobi:8 --max-new-tokens 128 --out "$out/$model.jsonl"
done
