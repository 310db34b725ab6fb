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
# shards: a quarter of GSM8K's questions; half of Spider's in the first of its three runs.
case $task in
  gsm8k) questions=test tables=() longest=256 shards=4 ;;
  spider) questions=dev tables=(--tables "$data/tables.json") longest=128 shards=2 ;;
  *) usage ;;
esac
training=(--adapter-dtype bfloat16 --resume --eval-holdout 64)

"$CLLM" sft --config "$here/teacher.yaml" --data "$data/train.jsonl" "${tables[@]}" \
  --output-dir "$out/teacher" "${training[@]}"
collect() { # FOLDER MODEL SHARDS BLOCK ..: the first of so many
  "$CLLM" collect --data "$data/train.jsonl" "${tables[@]}" --adapter "$out/$2/adapter" \
    --out "$1" --block "$4" --max-new-tokens "$longest" --num-shards "$3" --shard 0 \
    --prompts-in-flight 48 --rows-per-forward 512 "${@:5}"
}
collect "$out/trajectories" teacher "$shards" 16
consistency() { # SETTINGS TRAJECTORIES OF FROM TO
  "$CLLM" train --config "$here/$1.yaml" --trajectories "$out/$2" --adapter "$out/$4/adapter" \
    --collected-with "$out/$3/adapter" --output-dir "$out/$5" "${training[@]}"
}
case $task in
  gsm8k) consistency consistency trajectories teacher teacher cllm ;;
  spider)
    consistency consistency trajectories teacher teacher first
    # All questions; the parts that are there are not made again.
    mkdir -p "$out/all-trajectories"
    for part in "$out"/trajectories/part-*; do
      [ -e "$out/all-trajectories/${part##*/}" ] || ln "$part" "$out/all-trajectories"
    done
    collect "$out/all-trajectories" teacher 1 16
    consistency second all-trajectories teacher first second
    # What that model's own decoder goes through.
    collect "$out/windows" second 1 8 --states window
    consistency windows windows second second cllm
    ;;
esac
for model in teacher cllm; do
  "$CLLM" eval "$task" --data "$data/$questions.jsonl" "${tables[@]}" \
    --adapter "$out/$model/adapter" --check --decoder jacobi:8 --max-new-tokens "$longest" \
    --out "$out/$model.jsonl"
done
