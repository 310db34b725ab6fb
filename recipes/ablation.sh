#!/usr/bin/env bash
# What each setting of consistency training does, on Spider, all else equal and short: the table in
# docs/results.md.
#
#   recipes/ablation.sh DATA OUT     DATA/train.jsonl, dev.jsonl, tables.json
#
# Every line trains 100 steps from the teacher, whose adapter is merged into the model so that ranks can
# differ, and answers the first 120 questions of dev. Some 45 minutes on two cores; run again, it goes
# on where it was stopped. CLLM names the program if it is not on the PATH.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 DATA OUT" >&2; exit 2; }
here=$(dirname "$0")/spider data=$1 out=$2 tables="$1/tables.json"
: "${CLLM:=cllm}"
mkdir -p "$out"
teacher=(-m "$out/teacher" --compute w8)
[ -e "$out/teacher" ] ||
  "$CLLM" merge --adapter "$here/../../adapters/spider-teacher" --type f32 --out "$out/teacher"
"$CLLM" collect "${teacher[@]}" --data "$data/train.jsonl" --tables "$tables" \
  --out "$out/trajectories" --num-shards 6 --shard 0 --block 16 --max-new-tokens 128 \
  --prompts-in-flight 48 --rows-per-forward 512

score() { # NAME MODEL...
  [ -s "$out/$1.json" ] && return
  "$CLLM" eval spider "${@:2}" --data "$data/dev.jsonl" --tables "$tables" --limit 120 \
    --max-new-tokens 128 --decoder jacobi:8 --json >"$out/$1.json.part"
  mv "$out/$1.json.part" "$out/$1.json"
}
line() { # NAME SETTINGS...
  "$CLLM" train "${teacher[@]}" --config "$here/ablation.yaml" --trajectories "$out/trajectories" \
    --output-dir "$out/$1" --resume "${@:2}"
}
lora() { line "$@" && score "$1" "${teacher[@]}" --adapter "$out/$1/adapter"; }

score before "${teacher[@]}"
lora reference
# Full training; then its difference from the teacher at rank 32 and 128.
line full --finetuning-type full --learning-rate 1e-4
score full -m "$out/full/model" --compute w8
for rank in 32 128; do
  [ -e "$out/full-$rank" ] ||
    "$CLLM" extract -m "$out/teacher" --trained "$out/full/model" --lora-r $rank --out "$out/full-$rank"
  score full-$rank "${teacher[@]}" --adapter "$out/full-$rank"
done
lora rank-8 --lora-r 8 --lora-alpha 16
lora rank-128 --lora-r 128 --lora-alpha 256
lora ar-weight-0.5 --ar-weight 0.5
lora ar-weight-8 --ar-weight 8
lora progressive --noise-schedule progressive
lora noisy-history --noise-history noisy
lora local --consistency local
lora one-copy --noisy-copies 1
