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
# shards: a quarter of GSM8K's questions; half of Spider's in the first of its two runs.
case $task in
  gsm8k) questions=test tables=() longest=256 shards=4 ;;
  spider) questions=dev tables=(--tables "$data/tables.json") longest=128 shards=2 ;;
  *) usage ;;
esac
training=(--adapter-dtype bfloat16 --resume --eval-holdout 64)

"$CLLM" sft --config "$here/teacher.yaml" --data "$data/train.jsonl" "${tables[@]}" \
  --output-dir "$out/teacher" "${training[@]}"
collect() { # FOLDER SHARDS: the first of so many
  "$CLLM" collect --data "$data/train.jsonl" "${tables[@]}" --adapter "$out/teacher/adapter" \
    --out "$1" --block 16 --max-new-tokens "$longest" --num-shards "$2" --shard 0 \
    --prompts-in-flight 48 --rows-per-forward 512
}
collect "$out/trajectories" "$shards"
consistency() { # SETTINGS TRAJECTORIES FROM TO
  "$CLLM" train --config "$here/$1.yaml" --trajectories "$out/$2" --adapter "$out/$3/adapter" \
    --collected-with "$out/teacher/adapter" --output-dir "$out/$4" "${training[@]}"
}
case $task in
  gsm8k) consistency consistency trajectories teacher cllm ;;
  spider)
    consistency consistency trajectories teacher first
    # All questions; the parts that are there are not made again.
    mkdir -p "$out/all-trajectories"
    for part in "$out"/trajectories/part-*; do
      [ -e "$out/all-trajectories/${part##*/}" ] || ln "$part" "$out/all-trajectories"
    done
    collect "$out/all-trajectories" 1
    consistency second all-trajectories first cllm
    ;;
esac
for model in teacher cllm; do
  "$CLLM" eval "$task" --data "$data/$questions.jsonl" "${tables[@]}" \
    --adapter "$out/$model/adapter" --check --decoder jacobi:8 --max-new-tokens "$longest" \
    --out "$out/$model.jsonl"
done
