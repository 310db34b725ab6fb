"""How the time of a forward grows: with rows, the model, the context and sequences.

    peers/bin/python benchmarks/growth.py [--quick] [--formats w4,w8]

cllm alone. Three questions, one table:

  model      n rows on the default model and on a Llama of a billion random weights
  context    n rows of the default model behind caches of several lengths
  sequences  several sequences of the default model, each of four rows

T(1) is one row of one sequence, of the same model and format and behind the same cache.
The larger model is made once and kept in the cache folder; that needs gguf and NumPy,
which the Python that `install_peers.sh` prints has. The last line of standard output is
one JSON document.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

from cllm import Cllm, cache_folder, default_model

HERE = pathlib.Path(__file__).resolve().parent

# Rows of each sequence where there are several.
ROWS_OF_SEQUENCES = 4

HEADING = ["model", "format", "context", "sequences", "rows", "ms", "ms/row", "T(n)/T(1)",
           "roofline", "bound"]


class Growth:
    """The measurements, each taken once."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.results, self.notes = [], []
        self.machine = None

    def measure(self, model, context, sequences, rows):
        """Measures in every format what has not been measured yet."""
        name, path = model
        for compute in self.arguments.formats:
            known = {key(r) for r in self.results}
            missing = [n for n in rows if (name, compute, context, sequences, n) not in known]
            if not missing:
                continue
            print(f"  {name} {compute}: context {context}, {sequences} sequence(s), "
                  f"rows {missing}", file=sys.stderr)
            cllm = Cllm(self.arguments.cllm, path, compute, self.arguments.threads)
            found, settings = cllm.forward(context, sequences, missing, "all",
                                           self.arguments.repeat)
            self.machine = cllm.machine
            ceilings = {k: v for k, v in settings.items() if k.endswith("_per_second")}
            for n in missing:
                self.results.append({
                    **found[n], "model": name, "format": compute, "context": context,
                    "sequences": sequences, "ceilings": ceilings,
                })

    def relative(self):
        """Adds T(n)/T(1) to each result: cllm's own knows only the rows of one run."""
        ones = {key(r): r["median_ms"] for r in self.results}
        for r in self.results:
            one = ones.get((r["model"], r["format"], r["context"], 1, 1))
            r["relative"] = r["median_ms"] / one if one else None

    def lines(self):
        yield "| " + " | ".join(HEADING) + " |"
        yield "|---|---|" + "--:|" * 7 + "---|"
        for r in self.results:
            relative = "-" if r["relative"] is None else f"{r['relative']:.2f}"
            cells = [r["model"], r["format"], r["context"], r["sequences"], r["rows"],
                     f"{r['median_ms']:.2f}", f"{r['ms_per_row']:.2f}", relative,
                     f"{100 * r['roofline']:.0f} %", r["bound"]]
            yield "| " + " | ".join(map(str, cells)) + " |"
        yield from ([""] + [f"- {note}" for note in self.notes] if self.notes else [])


def key(result):
    return tuple(result[k] for k in ("model", "format", "context", "sequences", "rows"))


def positions_of(program, model):
    done = subprocess.run([program, "inspect", "--json", "--model", str(model)],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{program} inspect {model} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["context_length"]


def fitting(contexts, rows, positions):
    """Contexts cut to what leaves room for the rows, and a note for each that was."""
    room = positions - max(rows)
    if room < 0:
        sys.exit(f"--rows {max(rows)}: the model has only {positions} positions")
    notes = [f"context {c} and {max(rows)} rows do not fit the model's {positions} positions: "
             f"measured at {room}" for c in contexts if c > room]
    return list(dict.fromkeys(min(c, room) for c in contexts)), notes


def large_model(template, cache):
    """A Llama of a billion random weights; made once."""
    path = cache / "llama-1b-random.Q4_1.gguf"
    if not path.exists():
        print(f"making {path}: some minutes", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        made = subprocess.run([sys.executable, str(HERE / "random_model.py"), str(template),
                               str(path), "--type", "Q4_1"])
        if made.returncode != 0:
            sys.exit("the larger model could not be made: run this with the Python that "
                     "install_peers.sh prints, or name a file with --large")
    return path


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cllm", default="target/release/cllm", help="the program")
    parser.add_argument("--cache", type=pathlib.Path, default=cache_folder(),
                        help="folder for the larger model")
    parser.add_argument("--quick", action="store_true",
                        help="rows 1,4,16 and 5 repetitions, instead of all and 20")
    parser.add_argument("--formats", type=lambda text: text.split(","), default=["w4", "w8"])
    parser.add_argument("--rows", type=numbers, help="row counts")
    parser.add_argument("--repeat", type=int, help="forwards of a shape; the median counts")
    parser.add_argument("--context", type=int, default=256, help="where contexts do not vary")
    parser.add_argument("--contexts", type=numbers, default=[256, 2048, 8192])
    parser.add_argument("--sequences", type=numbers, default=[1, 4, 16])
    parser.add_argument("--large", type=pathlib.Path,
                        help="a GGUF file instead of the random model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if arguments.rows is None:
        arguments.rows = [1, 4, 16] if arguments.quick else [1, 2, 4, 8, 16, 32]
    if arguments.repeat is None:
        arguments.repeat = 5 if arguments.quick else 20
    rows = arguments.rows

    template = default_model(arguments.cllm)
    small = ("default", template)
    large = ("1B" if arguments.large is None else arguments.large.stem,
             arguments.large or large_model(template, arguments.cache))
    growth = Growth(arguments)
    for model in (small, large):
        (context,), notes = fitting([arguments.context], rows,
                                    positions_of(arguments.cllm, model[1]))
        growth.notes += [f"{model[0]}: {note}" for note in notes]
        growth.measure(model, context, 1, rows)
    positions = positions_of(arguments.cllm, template)
    contexts, notes = fitting(arguments.contexts, rows, positions)
    growth.notes += [f"default: {note}" for note in notes]
    for context in contexts:
        growth.measure(small, context, 1, rows)
    (context,), _ = fitting([arguments.context], [*rows, ROWS_OF_SEQUENCES], positions)
    growth.measure(small, context, 1, [1])
    for sequences in arguments.sequences:
        growth.measure(small, context, sequences, [ROWS_OF_SEQUENCES])
    growth.relative()

    m = growth.machine
    print(f"{m['cpu']}, {m['os']}, {m['cores']} cores, {m['threads']} threads, {m['isa']}\n")
    print("\n".join(growth.lines()))
    settings = {**vars(arguments), "cache": str(arguments.cache),
                "large": str(large[1]), "cllm": str(arguments.cllm)}
    print(json.dumps({"machine": m, "settings": settings, "notes": growth.notes,
                      "results": growth.results}))


if __name__ == "__main__":
    main()
