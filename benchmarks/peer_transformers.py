"""transformers as a peer to measure against: a process that speaks JSON lines.

    {"op": "generate", "prompt": [TOKENS], "max_new_tokens": N, "stop": [TOKENS]}
     and "draft": K, "ngram": N for prompt lookup
        -> {"tokens": [...], "seconds": T}

It reads the same GGUF file, which transformers turns into f32 weights: that is what it does
on a CPU. Times hold the prompt's forward; the caller measures that with one new token and
takes it off. The first line, before any request, says what was loaded.
"""

import argparse
import json
import pathlib
import sys
import time

import torch
import transformers


class Peer:
    def __init__(self, path, threads):
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        path = pathlib.Path(path)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=torch.float32
        ).eval()

    def generate(self, prompt, max_new_tokens, stop, draft=0, ngram=2):
        ids = torch.tensor([prompt])
        lookup = {"prompt_lookup_num_tokens": draft, "max_matching_ngram_size": ngram}
        started = time.perf_counter()
        with torch.inference_mode():
            out = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=max_new_tokens, eos_token_id=list(stop), pad_token_id=stop[0],
                **(lookup if draft else {}),
            )
        seconds = time.perf_counter() - started
        return {"tokens": out[0, len(prompt):].tolist(), "seconds": seconds}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    peer = Peer(arguments.model, arguments.threads)

    def say(answer):
        print(json.dumps(answer), flush=True)

    say({"version": transformers.__version__, "torch": torch.__version__})
    for line in sys.stdin:
        try:
            request = json.loads(line)
            say({"generate": peer.generate}[request.pop("op")](**request))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
