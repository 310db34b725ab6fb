"""What a busy neighbour costs: forwards of cllm alone, and beside one endless loop.

    python3 benchmarks/busy.py [--rounds 5] [--threads 2]

The two take turns, and the medians of all rounds are compared. The loop runs in a session
of its own, as another user's program would: Linux then gives it as much of a core as all
threads of cllm together. A program whose threads wait for each other by spinning becomes
tens of times slower; sharing two cores among three threads explains 1.5. The last line of
standard output is one JSON document.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys

from cllm import Cllm

# The most that a forward beside a busy neighbour may take, in units of one alone.
MOST = 2.5


@contextlib.contextmanager
def neighbour():
    """A process that never waits."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cllm", default="target/release/cllm", help="the program")
    parser.add_argument("--model", default="default")
    parser.add_argument("--compute", default="auto", help="one format")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", default="1,16", help="row counts, separated by commas")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=30, help="forwards of a row count and round")
    arguments = parser.parse_args()
    rows = [int(n) for n in arguments.rows.split(",")]

    cllm = Cllm(arguments.cllm, arguments.model, arguments.compute, arguments.threads)
    samples = {name: {n: [] for n in rows} for name in ("alone", "busy")}
    for turn in range(arguments.rounds):
        for name, company in (("alone", contextlib.nullcontext), ("busy", neighbour)):
            with company():
                found, _ = cllm.forward(arguments.context, 1, rows, "all", arguments.repeat)
            for n in rows:
                samples[name][n].append(found[n]["median_ms"])
        print(f"  round {turn + 1} of {arguments.rounds}", file=sys.stderr)

    m = cllm.machine
    print(f"{m['cpu']}, {m['os']}, {m['cores']} cores, {m['threads']} threads, {m['isa']}\n")
    print("| rows | alone, ms | busy, ms | busy / alone |\n|--:|--:|--:|--:|")
    results = []
    for n in rows:
        alone, busy = (statistics.median(samples[name][n]) for name in ("alone", "busy"))
        results.append({"rows": n, "alone_ms": alone, "busy_ms": busy, "ratio": busy / alone,
                        "met": busy / alone <= MOST})
        print(f"| {n} | {alone:.2f} | {busy:.2f} | {busy / alone:.2f} |")
    met = all(result["met"] for result in results)
    worst = max(result["ratio"] for result in results)
    print(f"\n- {'met' if met else 'MISSED'}: {worst:.2f}, at most {MOST}")
    settings = {**vars(arguments), "rows": rows}
    print(json.dumps({"machine": m, "settings": settings, "samples": samples,
                      "most": MOST, "results": results}))


if __name__ == "__main__":
    main()
