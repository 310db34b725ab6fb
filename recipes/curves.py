"""Training curves as a picture, from the log.jsonl files of `cllm sft` and `cllm train`.

    pip install matplotlib
    python recipes/curves.py OUT.svg TITLE=RUN/log.jsonl [TITLE=RUN/log.jsonl ...]

One column a run: training losses (pale: each step; dark: mean of 25), held-out loss, and
below it the mean acceptance length on held-out prompts.
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MEAN_OF = 25
LOSSES = [("consistency_loss", "consistency", "tab:blue"), ("ar_loss", "AR", "tab:orange")]


def read(path):
    """The lines of training steps and those of evaluations."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [x for x in lines if "loss" in x], [x for x in lines if "eval_loss" in x]


def smooth(values):
    """The mean of the last MEAN_OF values at each."""
    means = []
    for i in range(len(values)):
        last = values[max(0, i + 1 - MEAN_OF) : i + 1]
        means.append(sum(last) / len(last))
    return means


def draw_losses(axes, steps, evaluations):
    for key, name, colour in LOSSES:
        points = [(x["step"], x[key]) for x in steps if x.get(key) is not None]
        if any(value for _, value in points):
            at, values = zip(*points)
            axes.plot(at, values, color=colour, alpha=0.2, linewidth=0.6)
            axes.plot(at, smooth(values), color=colour, label=f"{name}, training")
        held_out = [(x["step"], x.get(f"eval_{key}")) for x in evaluations]
        if any(value for _, value in held_out):
            axes.plot(*zip(*held_out), "o", color=colour, markersize=3, label=f"{name}, held out")
    axes.set_yscale("log")
    axes.set_ylabel("loss, nats a scored row")
    axes.legend(fontsize=7)


def draw_acceptance(axes, evaluations):
    points = [(x["step"], x.get("eval_mean_acceptance_length")) for x in evaluations]
    points = [point for point in points if point[1] is not None]
    if points:
        axes.plot(*zip(*points), "o-", color="tab:green", markersize=3)
    axes.set_ylim(bottom=1)
    axes.set_ylabel("mean acceptance length")
    axes.set_xlabel("optimizer step")


def main():
    if len(sys.argv) < 3 or not all("=" in run for run in sys.argv[2:]):
        print(__doc__, file=sys.stderr)
        return 2
    runs = [argument.split("=", 1) for argument in sys.argv[2:]]
    size = (4.2 * len(runs), 5.6)
    figure, columns = plt.subplots(2, len(runs), figsize=size, sharex="col", squeeze=False)
    for (title, path), above, below in zip(runs, *columns):
        steps, evaluations = read(path)
        above.set_title(title, fontsize=10)
        draw_losses(above, steps, evaluations)
        draw_acceptance(below, evaluations)
    figure.tight_layout()
    # A fixed salt and no date: the same logs give the same file.
    plt.rcParams["svg.hashsalt"] = "cllm"
    figure.savefig(sys.argv[1], metadata={"Date": None} if sys.argv[1].endswith(".svg") else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
