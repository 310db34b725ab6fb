"""The program `cllm` behind Python: its measurements as dictionaries."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile


class Cllm:
    """The program, started for every measurement: it loads in about a second."""

    def __init__(self, program, model, compute, threads):
        self.base = [str(program)]
        self.options = ["--model", str(model), "--threads", str(threads)]
        self.compute, self.machine = compute, None

    def bench(self, *arguments):
        command = [*self.base, "bench", *arguments, "--json", *self.options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        report = json.loads(done.stdout.splitlines()[-1])
        self.machine = report["machine"]
        return report

    def forward(self, context, sequences, rows, argmax, repeat):
        """Results by row count, and the settings, with the ceilings of that run."""
        report = self.bench(
            "forward", "--compute", self.compute, "--context", str(context),
            "--sequences", str(sequences), "--rows", ",".join(map(str, rows)),
            "--argmax", argmax, "--repeat", str(repeat),
        )
        return {r["rows"]: r for r in report["results"]}, report["settings"]

    def decode(self, prompt, max_new_tokens):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "prompts.jsonl"
            path.write_text(json.dumps({"prompt": prompt}) + "\n")
            report = self.bench(
                "decode", "--prompts", str(path), "--decoders", "ar",
                "--compute", self.compute, "--max-new-tokens", str(max_new_tokens),
            )
        return report["results"][0]["tokens_per_second"]

    def answer(self, prompt, max_new_tokens):
        command = [
            *self.base, "generate", "--raw", "--prompt", prompt, "--json",
            "--max-new-tokens", str(max_new_tokens), "--compute", self.compute, *self.options,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])["tokens"]


def default_model(program):
    pulled = subprocess.run([program, "pull"], capture_output=True, text=True)
    if pulled.returncode != 0:
        sys.exit(f"{program} pull failed:\n{pulled.stderr}")
    return pathlib.Path(pulled.stdout.strip().splitlines()[-1])


def cache_folder():
    """Where everything large lies."""
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return home / "cllm-bench"
