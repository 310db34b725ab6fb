#!/usr/bin/env bash
# From a task's training questions to the two adapters of the default model, and their scores:
#
#   recipes/run.sh gsm8k DATA OUT     DATA/train.jsonl, test.jsonl
#   recipes/run.sh spider DATA OUT    DATA/train.jsonl, dev.jsonl, tables.json
#
# Hours on two cores; run again, every stage goes on where it was stopped. CLLM names the
# program if it is not on the PATH.
set -euo pipefail
usage() { echo "usage: $0 gsm8k|spider DATA OUT" >&2; exit 2; }
[ $# = 3 ] || usage
here=$(dirname "$0")/$1 task=$1 data=$2 out=$3
: "${CLLM:=cllm}"
# shards: a quarter of GSM8K's questions, half of Spider's.
case $task in
  gsm8k) questions=test tables=() longest=256 shards=4 ;;
  spider) questions=dev tables=(--tables "$data/tables.json") longest=128 shards=2 ;;
  *) usage ;;
esac
training=(--adapter-dtype bfloat16 --resume --eval-holdout 64)

"$CLLM" sft --config "$here/teacher.yaml" --data "$data/train.jsonl" "${tables[@]}" \
  --output-dir "$out/teacher" "${training[@]}"
"$CLLM" collect --data "$data/train.jsonl" "${tables[@]}" --adapter "$out/teacher/adapter" \
  --out "$out/trajectories" --block 16 --max-new-tokens "$longest" \
  --num-shards "$shards" --shard 0 --prompts-in-flight 48 --rows-per-forward 512
"$CLLM" train --config "$here/consistency.yaml" --trajectories "$out/trajectories" \
  --adapter "$out/teacher/adapter" --output-dir "$out/cllm" "${training[@]}"
for model in teacher cllm; do
  "$CLLM" eval "$task" --data "$data/$questions.jsonl" "${tables[@]}" \
    --adapter "$out/$model/adapter" --check --decoder jacobi:8 --max-new-tokens "$longest" \
    --out "$out/$model.jsonl"
done
