#!/usr/bin/env bash
# From a task's training questions to the two adapters of the default model, and their scores:
#
#   recipes/run.sh gsm8k DATA OUT     DATA/train.jsonl, test.jsonl
#   recipes/run.sh spider DATA OUT    DATA/train.jsonl, dev.jsonl, tables.json
#
# Hours on two cores; run again, every stage goes on where it was stopped. CLLM names the
# program if it is not on the PATH. To see whether all of it runs, on a few hundred questions, in
# minutes and for nothing: CLLM_MAX_STEPS=2 CLLM_EVAL_STEPS=0 CLLM_EVAL_HOLDOUT=1.
set -euo pipefail
usage() { echo "usage: $0 gsm8k|spider DATA OUT" >&2; exit 2; }
[ $# = 3 ] || usage
here=$(dirname "$0")/$1 task=$1 data=$2 out=$3
: "${CLLM:=cllm}" "${CLLM_EVAL_HOLDOUT:=64}"
export CLLM_EVAL_HOLDOUT
# shards: a quarter of GSM8K's questions in the first of its five runs; half of Spider's in that of
# its four.
case $task in
  gsm8k) questions=test tables=() longest=256 shards=4 ;;
  spider) questions=dev tables=(--tables "$data/tables.json") longest=128 shards=2 ;;
  *) usage ;;
esac
training=(--adapter-dtype bfloat16 --resume)

"$CLLM" sft --config "$here/teacher.yaml" --data "$data/train.jsonl" "${tables[@]}" \
  --output-dir "$out/teacher" "${training[@]}"
collect() { # MODEL FOLDER SHARDS SHARD OPTIONS
  "$CLLM" collect --data "$data/train.jsonl" "${tables[@]}" --adapter "$out/$1/adapter" \
    --out "$2" --num-shards "$3" --shard "$4" "${@:5}" --max-new-tokens "$longest" \
    --prompts-in-flight 48 --rows-per-forward 512
}
collect teacher "$out/trajectories" "$shards" 0 --block 16
consistency() { # SETTINGS TRAJECTORIES MODEL_OF_THEM FROM TO
  "$CLLM" train --config "$here/$1.yaml" --trajectories "$out/$2" \
    --collected-with "$out/$3/adapter" --adapter "$out/$4/adapter" --output-dir "$out/$5" \
    "${training[@]}"
}
mean() { # MODEL SHARE OF SHARE OF
  [ -e "$out/$1" ] || "$CLLM" merge --format peft --type bf16 --weights "$2,$4" \
    --adapter "$out/$3/adapter" --adapter "$out/$5/adapter" --out "$out/$1/adapter"
}
case $task in
  gsm8k)
    consistency consistency trajectories teacher teacher first
    collect first "$out/windows" 2 1 --states window --block 8
    consistency windows windows first first second
    # The teacher's trajectories of another quarter; windows of the one that no run has had.
    collect teacher "$out/other-trajectories" 4 1 --block 16
    consistency third other-trajectories teacher second third
    collect third "$out/other-windows" 4 2 --states window --block 8
    consistency fourth other-windows third third fourth
    # And windows of the first run's quarter, as that model now goes through them.
    collect fourth "$out/last-windows" 4 0 --states window --block 8
    consistency fifth last-windows fourth fourth cllm
    ;;
  spider)
    consistency consistency trajectories teacher teacher first
    # The other half, then all questions; the parts that are there are not made again.
    collect teacher "$out/other-trajectories" 2 1 --block 16
    mkdir -p "$out/all-trajectories"
    for part in "$out"/trajectories/part-* "$out"/other-trajectories/part-*; do
      [ -e "$out/all-trajectories/${part##*/}" ] || ln "$part" "$out/all-trajectories"
    done
    collect teacher "$out/all-trajectories" 1 0 --block 16
    consistency second all-trajectories teacher first second
    consistency third other-trajectories teacher second third
    # A tenth of the teacher brings back most of what three runs have lost of the score. Windows of that
    # model, then; half of what comes of them and half of the third.
    mean mean 0.9 third 0.1 teacher
    collect mean "$out/windows" 2 0 --states window --block 8
    consistency fourth windows mean mean fourth
    mean cllm 0.5 fourth 0.5 third
    ;;
esac
for model in teacher cllm; do
  "$CLLM" eval "$task" --data "$data/$questions.jsonl" "${tables[@]}" \
    --adapter "$out/$model/adapter" --check --decoder auto --max-new-tokens "$longest" \
    --out "$out/$model.jsonl"
done
