"""Is sampled text drawn from the model's own distribution? Chi-square over many seeds.

    python benchmarks/sampling.py [--draws 2000] [--decoder jacobi:8] [--top-k 12]

For each of a few prompts `cllm generate -n DRAWS` answers with TOKENS tokens, each answer with
noise of its own. The first token of every answer is counted, and the third, where the two before
it are the most frequent pair: that one came out of a forward that guessed. Expected are the
probabilities that the model itself reports (`--logprobs`), among the `--top-k` that may be drawn.
Prints a line a test: cells, chi-square, and the probability of a larger one if all is well. That
should be anywhere between 0 and 1, and rarely near 0.
"""

import argparse
import collections
import json
import math
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPTS = ["Once upon a time", "The best thing about", "def main():\n    x ="]
TOKENS = 3


def beyond(chi, freedom):
    """Wilson and Hilferty's approximation of the upper tail of chi-square."""
    if freedom < 1:
        return None
    z = ((chi / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return round(0.5 * math.erfc(z / math.sqrt(2)), 3)


def test(counts, logprobs, temperature):
    """Chi-square of counts by token against the most likely tokens' log-probabilities."""
    weights = {t["id"]: math.exp(t["logprob"] / temperature) for t in logprobs}
    total, draws = sum(weights.values()), sum(counts.values())
    strangers = sum(n for token, n in counts.items() if token not in weights)
    expected = sorted(((draws * w / total, counts[t]) for t, w in weights.items()), reverse=True)
    # Cells with few expected draws are put together.
    cells, rest = [c for c in expected if c[0] >= 5], [c for c in expected if c[0] < 5]
    if rest:
        cells.append((sum(c[0] for c in rest), sum(c[1] for c in rest)))
    chi = sum((found - want) ** 2 / want for want, found in cells)
    return {"draws": draws, "cells": len(cells), "chi_square": round(chi, 2),
            "p": beyond(chi, len(cells) - 1), "not_in_top_k": strangers}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--decoder", default="jacobi:8")
    parser.add_argument("--top-k", type=int, default=12)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cllm", type=pathlib.Path, default=ROOT / "target/release/cllm")
    options = parser.parse_args()
    for prompt in PROMPTS:
        done = subprocess.run(
            [options.cllm, "generate", "--raw", "-p", prompt, "-n", str(options.draws),
             "--max-new-tokens", str(TOKENS), "--temperature", str(options.temperature),
             "--top-k", str(options.top_k), "--decoder", options.decoder,
             "--seed", str(options.seed), "--logprobs", str(options.top_k), "--json"],
            capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        answers = [a for a in answers if len(a["tokens"]) == TOKENS]
        begins = collections.Counter(tuple(a["tokens"][:2]) for a in answers)
        pair = begins.most_common(1)[0][0]
        for place, chosen in ((0, answers), (2, [a for a in answers if tuple(a["tokens"][:2]) == pair])):
            counts = collections.Counter(a["tokens"][place] for a in chosen)
            result = test(counts, chosen[0]["logprobs"][place]["top_logprobs"], options.temperature)
            print(json.dumps({"prompt": prompt, "token": place + 1, **result}), flush=True)


if __name__ == "__main__":
    main()
