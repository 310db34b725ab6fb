"""Decoders of cllm, llama.cpp and transformers side by side, on prompts of four tasks.

    peers/bin/python benchmarks/decode_table.py --data FOLDER [--tasks gsm8k,spider] [--limit 20]

FOLDER holds gsm8k/test.jsonl, spider/dev.jsonl with tables.json, humaneval/HumanEval.jsonl and
mt_bench/question.jsonl, each where it is there. The base model answers all of them, the
teacher and the consistency model (`--adapters`) those of their own task. For every task and
model all programs read the same GGUF file, the same prompt tokens, and end at the same stop
tokens or limit; they take turns, `--turn` prompts at a time, and who begins changes. cllm
is started for every turn, so that earlier answers, of which `auto` makes use, are those of a turn.

Speed is of the decode phase: tokens after the first, over their time. transformers cannot
tell the phases apart, so it answers each prompt with one token as well, and that time is
taken off. `accepted` is tokens per forward after the prompt's; `equal` the share of answers
whose tokens are those of the same program's AR.

The table and a JSON document of all sums go to standard output, and with `--record` to
`benchmarks/record/DATE/decode-TASKS.md`.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile

from cllm import cache_folder, default_model
from peer import Peer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent

TASKS = {
    "gsm8k": {"file": "gsm8k/test.jsonl", "tables": None, "tokens": 256},
    "spider": {"file": "spider/dev.jsonl", "tables": "spider/tables.json", "tokens": 128},
    "humaneval": {"file": "humaneval/HumanEval.jsonl", "tables": None, "tokens": 256},
    "mt_bench": {"file": "mt_bench/question.jsonl", "tables": None, "tokens": 256},
}
MODELS = ["base", "teacher", "cllm"]
DECODERS = "ar,auto,jacobi:8,jacobi-pool:8,lookahead,prompt-lookup"
# Drafts of the peers' prompt lookup: their packages' usual numbers.
LOOKUP = {"draft": 10, "ngram": 2}


def run(command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def commit():
    """The commit that is measured, with a mark if the tree differs from it."""
    return run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude=*"]).strip()


class Sums(dict):
    """Decode tokens, seconds, forwards and equal answers by (program, decoder)."""

    def add(self, key, tokens, seconds, forwards, equal, prompts):
        old = self.get(key, (0, 0.0, 0, 0.0, 0))
        self[key] = tuple(a + b for a, b in zip(old, (tokens, seconds, forwards, equal, prompts)))


def cllm(options, path, sums):
    """The chunk's prompts with every decoder."""
    out = run([
        options.cllm, "bench", "decode", "--prompts", path, "--decoders", options.decoders,
        "--max-new-tokens", options.tokens, "--model", options.model, "--threads",
        options.threads, "--json",
    ])
    report = json.loads(out.splitlines()[-1])
    for r in report["results"]:
        sums.add(("cllm", r["decoder"]), r["tokens"], r["seconds"], r["forwards"],
                 r["exact"] * r["prompts"], r["prompts"])
    return report["machine"]


def llama_cpp(peer, options, prompts, sums):
    for prompt in prompts:
        common = {"prompt": prompt, "max_new_tokens": options.tokens, "stop": options.stop}
        ar = peer.ask(op="generate", **common)
        fast = peer.ask(op="generate", **common, **LOOKUP)
        for name, answer in (("ar", ar), ("prompt-lookup", fast)):
            tokens = len(answer["tokens"]) - 1
            sums.add(("llama.cpp", name), tokens, answer["decode_ms"] / 1e3,
                     answer["forwards"], answer["tokens"] == ar["tokens"], 1)


def transformers(peer, options, prompts, sums):
    for prompt in prompts:
        common = {"prompt": prompt, "stop": options.stop}
        first = peer.ask(op="generate", **common, max_new_tokens=1)["seconds"]
        common["max_new_tokens"] = options.tokens
        ar = peer.ask(op="generate", **common)
        fast = peer.ask(op="generate", **common, **LOOKUP)
        for name, answer in (("ar", ar), ("prompt-lookup", fast)):
            tokens = len(answer["tokens"]) - 1
            # It does not tell how many forwards drafts took.
            sums.add(("transformers", name), tokens, answer["seconds"] - first,
                     tokens if name == "ar" else 0, answer["tokens"] == ar["tokens"], 1)


def table(sums):
    base = speed(sums.get(("llama.cpp", "ar")))
    lines = [
        "| program | decoder | tokens/s | over own AR | over llama.cpp's AR | accepted | equal "
        "| prompts |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (program, decoder), value in sums.items():
        tokens, _, forwards, equal, prompts = value
        own = speed(sums.get((program, "ar")))
        ratio = lambda of: f"{speed(value) / of:.2f}" if of else "-"
        accepted = f"{tokens / forwards:.2f}" if forwards else "-"
        lines.append(
            f"| {program} | {decoder} | {speed(value):.1f} | {ratio(own)} | {ratio(base)} "
            f"| {accepted} | {equal / prompts:.3f} | {prompts} |"
        )
    return "\n".join(lines)


def speed(value):
    return value[0] / value[1] if value and value[1] > 0 else 0.0


def files(options):
    """(model name, GGUF file) for each task: made once, kept in the cache."""
    for task in options.tasks:
        if "base" in options.models:
            yield task, "base", default_model(options.cllm)
        for kind in ("teacher", "cllm"):
            adapter = options.adapters / f"{task}-{kind}"
            if kind not in options.models or not adapter.is_dir():
                continue
            stamp = int((adapter / "adapter_model.safetensors").stat().st_mtime)
            path = cache_folder() / f"{task}-{kind}-{stamp}.Q8_0.gguf"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                run([options.cllm, "merge", "--adapter", adapter, "--out", path, "--type", "q8_0"])
            yield task, kind, path


def task_prompts(options, task, model):
    """The tokens of each of the task's prompts."""
    about = TASKS[task]
    command = [options.cllm, "prompts", "--data", options.data / about["file"],
               "--limit", options.limit, "--model", model]
    if about["tables"]:
        command += ["--tables", options.data / about["tables"]]
    return [json.loads(line)["prompt_tokens"] for line in run(command).splitlines()]


def write_prompts(prompts, file):
    """Prompts as `cllm` reads them."""
    file.writelines(json.dumps({"prompt_tokens": p}) + "\n" for p in prompts)
    file.flush()


def measure(options, task, kind, model):
    options.model = model
    options.tokens = options.max_new_tokens or TASKS[task]["tokens"]
    prompts = task_prompts(options, task, model)
    inspected = json.loads(run([options.cllm, "inspect", "--model", model, "--json"]))
    options.stop = [token["id"] for token in inspected["stop_tokens"]]
    positions = max(map(len, prompts)) + options.tokens + LOOKUP["draft"] + 8
    llama = Peer("llama.cpp", HERE / "peer_llama_cpp.py", model, "--threads", options.threads,
                 "--positions", positions, "--sequences", 1)
    torch = None
    if not options.no_transformers:
        torch = Peer("transformers", HERE / "peer_transformers.py", model,
                     "--threads", options.threads)
    sums, machine = Sums(), None
    for turn, at in enumerate(range(0, len(prompts), options.turn)):
        chunk = prompts[at:at + options.turn]
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            write_prompts(chunk, file)

            def ours():
                nonlocal machine
                machine = cllm(options, file.name, sums)

            turns = [ours, lambda: llama_cpp(llama, options, chunk, sums)]
            if torch and turn % options.transformers_every == 0:
                turns.append(lambda: transformers(torch, options, chunk, sums))
            for i in range(len(turns)):
                turns[(i + turn) % len(turns)]()
        print(f"{task}, {kind}: {at + len(chunk)} of {len(prompts)} prompts", file=sys.stderr)
    llama.close()
    if torch:
        torch.close()
    ordered = Sums(sorted(sums.items(), key=lambda item: ["cllm", "llama.cpp", "transformers"]
                          .index(item[0][0])))
    return ordered, machine


def record(options, commit, machine, text, document):
    """The JSON document of what there is; with `--record` it and the tables in their file."""
    today = datetime.date.today().isoformat()
    head = {"date": today, "commit": commit, "machine": machine, "limit": options.limit,
            "turn": options.turn}
    line = json.dumps({**head, "results": document})
    if options.record:
        folder = HERE / "record" / today
        folder.mkdir(parents=True, exist_ok=True)
        some = [] if options.models == MODELS else options.models
        path = folder / f"decode-{'-'.join(options.tasks + some)}.md"
        title = f"# {today}, commit {commit}\n\n{json.dumps(machine)}\n"
        path.write_text(title + "\n".join(text) + f"\n\n```json\n{line}\n```\n")
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--models", default=",".join(MODELS), help="of each task")
    parser.add_argument("--adapters", type=pathlib.Path, default=ROOT / "adapters")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--turn", type=int, default=12, metavar="N",
                        help="prompts that a program answers before it is the next one's turn")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--decoders", default=DECODERS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cllm", type=pathlib.Path, default=ROOT / "target/release/cllm")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--transformers-every", type=int, default=1, metavar="N",
                        help="transformers, the slowest, answers every N-th few prompts only")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    options.tasks = options.tasks.split(",")
    options.models = options.models.split(",")
    for model in options.models:
        if model not in MODELS:
            sys.exit(f"--models: no `{model}`; expected {', '.join(MODELS)}")
    for task in options.tasks:
        if task not in TASKS:
            sys.exit(f"--tasks: no task `{task}`; expected {', '.join(TASKS)}")
    there = [t for t in options.tasks if (options.data / TASKS[t]["file"]).is_file()]
    if not there:
        sys.exit(f"{options.data}: none of {', '.join(TASKS[t]['file'] for t in options.tasks)}")
    options.tasks = there

    measured = commit()
    text, document, machine = [], [], None
    for task, kind, model in files(options):
        sums, machine = measure(options, task, kind, model)
        part = f"\n## {task}, {kind} ({model.name})\n\n{table(sums)}"
        print(part, flush=True)
        text.append(part)
        document.append({
            "task": task, "model": kind, "file": model.name, "prompts": options.limit,
            "sums": [{"program": p, "decoder": d, "tokens": v[0], "seconds": v[1],
                      "forwards": v[2], "equal": v[3], "prompts": v[4]}
                     for (p, d), v in sums.items()],
        })
        # After every table, so that a stopped run keeps those it has made.
        line = record(options, measured, machine, text, document)
    print(line)


if __name__ == "__main__":
    main()
