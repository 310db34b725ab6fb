"""What the decoder `auto` chooses, and what it gains or costs, against every fixed choice.

    python3 benchmarks/auto_table.py --data FOLDER [--tasks gsm8k,spider] [--limit 12] [--record]

FOLDER is as for `decode_table.py`: the same tasks, prompts and models, but cllm alone. For every
task and model one run answers each prompt with AR, with `auto`, with Jacobi windows of several
widths and with prompt lookup; `best fixed` is the fastest of those other than `auto`. `auto`
looks in the answers to the prompts before, too; `alone` is without. The base
model has two lines more: at temperature 1.5, text that hardly repeats, but guesses are drawn
with the noise of their position, as the text is; and with a repetition penalty, under which
text cannot repeat itself, and no end before the limit: hostile to all guessing. Then the rows that `auto` gave a forward,
by position in the answer.

The tables go to standard output, and with `--record` to `benchmarks/record/DATE/auto-TASKS.md`.
"""

import argparse
import datetime
import json
import pathlib
import sys
import tempfile

from decode_table import HERE, MODELS, ROOT, TASKS, commit, files, run, task_prompts, write_prompts

AUTO = ["auto", "auto:history=0"]
FIXED = ["jacobi:2", "jacobi:4", "jacobi:8", "jacobi:12", "jacobi:16", "prompt-lookup"]
# What is said of a line, and the flags that make it so.
GREEDY = ("greedy", [])
# The tokens that end an answer of the default model.
ENDLESS = [flag for token in (0, 2) for flag in ("--logit-bias", f"{token}=-100")]
SETTINGS = {
    "base": [GREEDY, ("temperature 1.5", ["--temperature", 1.5]),
             ("repetition penalty 1.5", ["--repetition-penalty", 1.5, *ENDLESS])],
    "teacher": [GREEDY],
    "cllm": [GREEDY],
}


def speeds(options, task, model, path, flags):
    """Results by decoder, and the machine."""
    out = run([
        options.cllm, "bench", "decode", "--prompts", path, "--model", model,
        "--decoders", ",".join(["ar", *AUTO, *FIXED]), *flags,
        "--max-new-tokens", TASKS[task]["tokens"], "--threads", options.threads, "--json",
    ])
    report = json.loads(out.splitlines()[-1])
    return {r["decoder"]: r for r in report["results"]}, report["machine"]


def line(task, kind, setting, results):
    fixed = {name: r["speedup"] for name, r in results.items() if name not in AUTO}
    best = max(fixed, key=fixed.get)
    auto, alone = (results[name] for name in AUTO)
    exact = min(r["exact"] for r in results.values())
    return (f"| {task} | {kind} | {setting} | {results['ar']['tokens_per_second']:.0f} "
            f"| {auto['speedup']:.2f} | {alone['speedup']:.2f} "
            f"| {auto['mean_acceptance_length']:.2f} "
            f"| {auto['rows'] / auto['forwards']:.1f} | {best} {fixed[best]:.2f} "
            f"| {auto['speedup'] / fixed[best]:.2f} | {exact:.3f} |")


def rows(options, task, model, path):
    """(from, rows of a forward, tokens settled) by position in the answer."""
    out = run([
        options.cllm, "analyze", "--data", path, "--model", model, "--variant", "it",
        "--decoder", "auto", "--max-new-tokens", TASKS[task]["tokens"],
        "--threads", options.threads, "--json",
    ])
    model = json.loads(out.splitlines()[-1])["models"][0]
    return [(p["from"], p["mean_rows"], p["mean_acceptance_length"])
            for p in model["acceptance_by_position"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--adapters", type=pathlib.Path, default=ROOT / "adapters")
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cllm", type=pathlib.Path, default=ROOT / "target/release/cllm")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    options.tasks = options.tasks.split(",")
    options.models = MODELS
    for task in options.tasks:
        if task not in TASKS or not (options.data / TASKS[task]["file"]).is_file():
            sys.exit(f"--tasks: no task `{task}` in {options.data}; expected {', '.join(TASKS)}")

    table = ["| prompts | model | text | AR tokens/s | auto over AR | alone | accepted | rows "
             "| best fixed, over AR | auto over it | exact |",
             "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    choices, document, machine, measured = [], [], None, commit()
    for task, kind, model in files(options):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            write_prompts(task_prompts(options, task, model), file)
            path = file.name
            for setting, flags in SETTINGS[kind]:
                results, machine = speeds(options, task, model, path, flags)
                table.append(line(task, kind, setting, results))
                print(table[-1], file=sys.stderr)
                document.append({"task": task, "model": kind, "text": setting,
                                 "results": list(results.values())})
            places = rows(options, task, model, path)
        cells = ", ".join(f"{at}: {n:.1f} ({m:.2f})" for at, n, m in places)
        choices.append(f"- {task}, {kind}: {cells}")
    today = datetime.date.today().isoformat()
    text = "\n".join([
        f"# {today}, commit {measured}, {options.limit} prompts", "", json.dumps(machine), "",
        *table, "", "Rows of a forward (tokens it settles), by position in the answer:", "",
        *choices, "", "```json", json.dumps(document), "```", "",
    ])
    print(text)
    if options.record:
        path = HERE / "record" / today / f"auto-{'-'.join(options.tasks)}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
