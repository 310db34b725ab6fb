"""cllm and llama.cpp side by side: one forward of n rows, prefill, AR decoding.

    peers/bin/python benchmarks/forward_table.py --pairs w4,w8,bf16 [--rounds 5]

Run it with the Python that `install_peers.sh` prints. In each round both programs run a
few forwards of every shape, one after the other, and the program that begins changes from
round to round; the table has the medians of all rounds, so that a machine that becomes
slower becomes slower for both. `--pairs` names arithmetic of cllm; the peer's file is of
the type that `workloads.toml` gives it. The last line of standard output is one JSON
document.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tomllib

from cllm import Cllm, cache_folder, default_model
from peer import Peer

HERE = pathlib.Path(__file__).resolve().parent


class Samples(dict):
    """Measurements by name, such as "cllm:16"."""

    def add(self, name, values):
        self.setdefault(name, []).extend(values)

    def median(self, name):
        return statistics.median(self[name]) if self.get(name) else None


def common_prefix(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def model_of_type(kind, default, cache):
    """The default model's matrices as `kind`; made once, kept in the cache folder."""
    if f".{kind}." in default.name:
        return default
    path = cache / f"{default.stem.rsplit('.', 1)[0]}.{kind}.gguf"
    if not path.exists():
        print(f"making {path}", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, str(HERE / "requantize.py"), str(default), str(path), "--type", kind],
            check=True,
        )
    return path


def measure(cllm, peer, work, rounds, repeat):
    """All shapes of one pair, in turns."""
    context, rows = work["forward"]["context"], work["forward"]["rows"]
    sequences = work["forward"]["sequences"]
    prefill, decode = work["prefill"]["rows"], work["decode"]
    samples, work_of_rows, ceilings = Samples(), {}, []

    def one_cllm():
        found, settings = cllm.forward(context, sequences, rows, "all", repeat)
        ceilings.append(
            {name: settings[name] for name in ("memory_gb_per_second", "giga_operations_per_second")}
        )
        for n in rows:
            samples.add(f"cllm:{n}", [found[n]["median_ms"]])
            # Each against the ceilings of its own run.
            samples.add(f"roofline:{n}", [found[n]["roofline"]])
            work_of_rows[n] = found[n]
        if sequences > 1:
            return
        found, _ = cllm.forward(0, 1, [prefill], "last", max(1, repeat // 5))
        samples.add("cllm:prefill", [found[prefill]["median_ms"]])
        samples.add("cllm:ar", [cllm.decode(decode["prompt"], decode["max_new_tokens"])])

    def one_peer():
        for argmax, name in (("all", "peer"), ("last", "peer-last")):
            for n in rows:
                times = peer.ask(
                    op="forward", context=context, rows=n, argmax=argmax, repeat=repeat
                )["ms"]
                samples.add(f"{name}:{n}", [statistics.median(times)])
        if sequences > 1:
            return
        times = peer.ask(
            op="forward", context=0, rows=prefill, argmax="last", repeat=max(1, repeat // 5)
        )["ms"]
        samples.add("peer:prefill", [statistics.median(times)])
        answer = peer.ask(op="generate", **decode)
        speed = 1e3 * (len(answer["tokens"]) - 1) / answer["decode_ms"]
        samples.add("peer:ar", [speed])

    for turn in range(rounds):
        for step in (one_cllm, one_peer) if turn % 2 == 0 else (one_peer, one_cllm):
            step()
        print(f"  round {turn + 1} of {rounds}", file=sys.stderr)
    return samples, work_of_rows, ceilings


def number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def table(compute, kind, work, samples, work_of_rows):
    rows = work["forward"]["rows"]
    median = samples.median
    first = median(f"cllm:{rows[0]}")
    lines = [
        f"### cllm {compute} and llama.cpp {kind}, KV {work['forward']['context']}, "
        f"{work['forward']['sequences']} sequence(s)",
        "",
        "| rows | cllm ms | T(n)/T(1) | llama.cpp ms, all logits | last logits | "
        "cllm / llama.cpp | MB | GOP/s | roofline | bound |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for n in rows:
        mine, theirs = median(f"cllm:{n}"), median(f"peer:{n}")
        operations = work_of_rows[n]["giga_operations"]
        lines.append(
            f"| {n} | {number(mine)} | {number(mine / first)} | {number(theirs)} "
            f"| {number(median(f'peer-last:{n}'))} | {number(mine / theirs)} "
            f"| {number(work_of_rows[n]['megabytes'], 0)} | {number(1e3 * operations / mine, 0)} "
            f"| {100 * median(f'roofline:{n}'):.0f} % | {work_of_rows[n]['bound']} |"
        )
    prefill = work["prefill"]["rows"]
    mine, theirs = median("cllm:prefill"), median("peer:prefill")
    if mine is None:
        return [*lines, ""]
    lines += [
        "",
        f"- prefill of {prefill} rows: cllm {mine:.1f} ms ({1e3 * prefill / mine:.0f} tokens/s), "
        f"llama.cpp {theirs:.1f} ms ({1e3 * prefill / theirs:.0f} tokens/s): "
        f"{theirs / mine:.2f} times as fast",
        f"- AR decoding: cllm {median('cllm:ar'):.1f} tokens/s, llama.cpp "
        f"{median('peer:ar'):.1f} tokens/s: {median('cllm:ar') / median('peer:ar'):.2f} times",
    ]
    return lines


def judge(pair, targets, samples):
    """The targets of a pair with what was found."""
    found = []
    for target in targets:
        if target["pair"] != pair:
            continue
        of, by = samples.median(target["of"]), samples.median(target["by"])
        if of is None or by is None:
            continue
        ratio = of / by
        met = ratio <= target.get("most", ratio) and ratio >= target.get("least", ratio)
        found.append({**target, "found": ratio, "met": met})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cllm", default="target/release/cllm", help="the program")
    parser.add_argument("--cache", type=pathlib.Path, default=cache_folder(),
                        help="folder for the model in other types")
    parser.add_argument("--pairs", default="w4,w8,bf16", help="of workloads.toml")
    parser.add_argument("--compute", help="cllm's arithmetic, instead of the pairs' own; "
                                          "targets are then not judged")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=10, help="forwards of a shape and round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", type=pathlib.Path,
                        help="a GGUF file instead of the default model")
    parser.add_argument("--no-check", action="store_true",
                        help="measure even if greedy texts part at once, as random weights do")
    parser.add_argument("--context", type=int, help="cached tokens, instead of the workload's")
    parser.add_argument("--rows", help="row counts, instead of the workload's")
    parser.add_argument("--sequences", type=int, default=1,
                        help="sequences in a forward, each of that many rows")
    arguments = parser.parse_args()

    work = tomllib.loads((HERE / "workloads.toml").read_text())
    if arguments.context is not None:
        work["forward"]["context"] = arguments.context
    if arguments.rows is not None:
        work["forward"]["rows"] = [int(n) for n in arguments.rows.split(",")]
    work["forward"]["sequences"] = arguments.sequences
    for pair in arguments.pairs.split(","):
        if pair not in work["pairs"]:
            sys.exit(f"unknown pair {pair}: expected some of {', '.join(work['pairs'])}")
    default = arguments.model or default_model(arguments.cllm)
    prefill, decode = work["prefill"]["rows"], work["decode"]
    positions = max(work["forward"]["context"] + max(work["forward"]["rows"]), prefill,
                    decode["max_new_tokens"] + 64)
    # llama.cpp rounds up to this; more than the model was made for is no harm to it.
    positions = -(-positions // 256) * 256

    # The targets are for the workload as it is.
    changed = (arguments.compute or arguments.model or arguments.context is not None
               or arguments.rows or arguments.sequences > 1)
    document = {"machine": None, "workload": work, "rounds": arguments.rounds,
                "repeat": arguments.repeat, "pairs": []}
    for pair in arguments.pairs.split(","):
        kind = work["pairs"][pair]["type"]
        model = model_of_type(kind, default, arguments.cache)
        print(f"{pair}: {model.name}", file=sys.stderr)
        compute = arguments.compute or pair
        cllm = Cllm(arguments.cllm, model, compute, arguments.threads)
        peer = Peer("llama.cpp", HERE / "peer_llama_cpp.py", model, "--threads", arguments.threads,
                    "--positions", positions, "--sequences", arguments.sequences)
        # Time counts only if both are the same model: they quantise activations each in
        # its own way, so that texts part sooner or later, but not at once.
        mine = cllm.answer(decode["prompt"], decode["max_new_tokens"])
        theirs = peer.ask(op="generate", **decode)["tokens"]
        agreed = common_prefix(mine, theirs)
        if agreed < 4 and not arguments.no_check:
            sys.exit(f"{pair}: not the same model: {mine[:8]} and {theirs[:8]}")
        samples, work_of_rows, ceilings = measure(
            cllm, peer, work, arguments.rounds, arguments.repeat
        )
        if document["machine"] is None:
            document["machine"] = {**cllm.machine, "peer": peer.about["peer"],
                                   "peer_system": peer.about["system"]}
            m = document["machine"]
            print(f"{m['cpu']}, {m['os']}, {m['cores']} cores, {m['threads']} threads, "
                  f"{m['isa']}; {m['peer']}\n")
        peer.close()
        print("\n".join(table(compute, kind, work, samples, work_of_rows)))
        memory = max(c["memory_gb_per_second"] for c in ceilings)
        print(f"- the same {agreed} of {len(mine)} greedy tokens at first; "
              f"memory {memory:.1f} GB/s")
        judged = [] if changed else judge(pair, work["targets"], samples)
        for target in judged:
            bound = f"at most {target['most']}" if "most" in target else f"at least {target['least']}"
            print(f"- {'met' if target['met'] else 'MISSED'}: {target['name']}: "
                  f"{target['found']:.2f}, {bound}")
        print(flush=True)
        document["pairs"].append({
            "compute": compute, "type": kind, "samples": samples,
            "medians": {name: samples.median(name) for name in samples},
            "ceilings": ceilings, "equal_greedy_tokens": agreed, "targets": judged,
        })
    print(json.dumps(document))


if __name__ == "__main__":
    main()
