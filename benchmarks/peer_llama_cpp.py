"""llama.cpp as a peer to measure against: a process that speaks JSON lines.

One request a line on standard input, one answer a line on standard output, so that a
caller can let it take turns with cllm in one run and both meet the same machine.

    {"op": "forward", "context": C, "rows": N, "argmax": "all" | "last", "repeat": K}
        -> {"ms": [K times]}
    {"op": "generate", "prompt": TEXT or [TOKENS], "max_new_tokens": N, "stop": [TOKENS]}
     and "draft": K, "ngram": N for prompt lookup
        -> {"prompt_tokens": [...], "tokens": [...], "prefill_ms": T, "decode_ms": T,
            "forwards": F}

An answer that is {"error": ...} ends nothing. The first line, before any request, says
what was loaded. With --sequences S every forward has S sequences of N rows each.

What is timed is `llama_decode` until the logits are there: the batch is filled before,
and no argmax is taken, though cllm's times hold one. llama.cpp's settings are
`llama-bench`'s: batch 2048, micro-batch 512, f16 cache, flash attention as it chooses.
"""

import argparse
import ctypes
import json
import math
import sys
import time

import llama_cpp as ll
import numpy as np


@ll.llama_log_callback
def log(level, text, _):
    """Errors only (level 4); the rest is chatter."""
    if level == 4:
        sys.stderr.write(text.decode(errors="replace"))


class Peer:
    """A model with one context, and the number of cached tokens all its sequences have."""

    def __init__(self, path, threads, positions, sequences):
        ll.llama_log_set(log, ctypes.c_void_p(0))
        ll.llama_backend_init()
        self.model = ll.llama_model_load_from_file(
            path.encode(), ll.llama_model_default_params()
        )
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = ll.llama_context_default_params()
        params.n_ctx = positions * sequences
        params.n_batch, params.n_ubatch = 2048, 512
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"llama.cpp cannot make a context of {params.n_ctx} positions")
        self.vocab = ll.llama_model_get_vocab(self.model)
        self.vocab_size = ll.llama_vocab_n_tokens(self.vocab)
        self.memory = ll.llama_get_memory(self.context)
        self.batch = ll.llama_batch_init(params.n_batch, 0, 1)
        self.positions, self.sequences, self.cached = positions, sequences, 0

    def fill(self, rows, argmax):
        """Puts `rows`, as (sequence, position, token, last), into the batch."""
        self.batch.n_tokens = len(rows)
        for i, (sequence, position, token, last) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = argmax == "all" or (argmax == "last" and last)

    def decode(self):
        """Runs the batch; milliseconds."""
        started = time.perf_counter()
        code = ll.llama_decode(self.context, self.batch)
        ll.llama_synchronize(self.context)
        elapsed = time.perf_counter() - started
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        return 1e3 * elapsed

    def logits(self, row):
        pointer = ll.llama_get_logits_ith(self.context, row)
        return np.ctypeslib.as_array(pointer, (self.vocab_size,))

    def truncate(self, length):
        for sequence in range(self.sequences):
            if not ll.llama_memory_seq_rm(self.memory, sequence, length, -1):
                raise RuntimeError(f"cannot drop the cache from {length} on")

    def token(self, sequence, position):
        # The same spread over the vocabulary as in `cllm bench forward`.
        return (7919 * position + 104729 * sequence) % self.vocab_size

    def causal(self, sequence, first, count):
        for i in range(count):
            position = first + i
            yield sequence, position, self.token(sequence, position), i + 1 == count

    def set_context(self, length):
        """Every sequence's cache holds `length` tokens."""
        if length == self.cached:
            return
        self.truncate(0)
        for sequence in range(self.sequences):
            for first in range(0, length, 512):
                rows = list(self.causal(sequence, first, min(512, length - first)))
                self.fill(rows, "last")
                self.decode()
        self.cached = length

    def forward(self, context, rows, argmax, repeat):
        self.set_context(context)
        block = [row for s in range(self.sequences) for row in self.causal(s, context, rows)]
        self.fill(block, argmax)
        times = []
        for turn in range(repeat + 1):
            elapsed = self.decode()
            if turn == 0:
                asked = [i for i in range(len(block)) if self.batch.logits[i]]
                if not all(math.isfinite(self.logits(i).max()) for i in asked):
                    raise RuntimeError("the logits are not finite")
            else:
                times.append(elapsed)
            self.truncate(context)
        return {"ms": times}

    def tokenize(self, text):
        data = text.encode()
        tokens = (ll.llama_token * (len(data) + 8))()
        count = ll.llama_tokenize(self.vocab, data, len(data), tokens, len(tokens), True, True)
        if count <= 0:
            raise RuntimeError("the prompt cannot be tokenized, or is empty")
        return list(tokens[:count])

    def start(self, prompt):
        """Reads a prompt: its tokens, the first token after it, milliseconds."""
        tokens = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        self.cached = -1
        self.truncate(0)
        last = len(tokens) - 1
        self.fill([(0, i, token, i == last) for i, token in enumerate(tokens)], "last")
        prefill = self.decode()
        return tokens, int(self.logits(last).argmax()), prefill

    def ends(self, token, stop):
        return token in stop if stop else ll.llama_vocab_is_eog(self.vocab, token)

    def generate(self, prompt, max_new_tokens, stop=(), draft=0, ngram=2):
        """Greedy decoding; with `draft` above 0, of drafts by the package's own prompt lookup,
        verified as its high-level class does, on the low-level calls."""
        drafter = None
        if draft > 0:
            from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

            drafter = LlamaPromptLookupDecoding(max_ngram_size=ngram, num_pred_tokens=draft)
        tokens, first, prefill = self.start(prompt)
        answer, forwards = [first], 0
        started = time.perf_counter()
        while len(answer) < max_new_tokens and not self.ends(answer[-1], stop):
            guesses = []
            if drafter:
                text = np.asarray(tokens + answer, dtype=np.intc)
                room = max_new_tokens - len(answer) - 1
                guesses = [int(token) for token in drafter(text)][:room]
            at = len(tokens) + len(answer) - 1
            rows = [(0, at + i, token, True) for i, token in enumerate([answer[-1], *guesses])]
            self.fill(rows, "all")
            self.decode()
            forwards += 1
            for i in range(len(rows)):
                answer.append(int(self.logits(i).argmax()))
                if self.ends(answer[-1], stop) or i == len(guesses) or guesses[i] != answer[-1]:
                    break
            if guesses:
                self.truncate(len(tokens) + len(answer) - 1)
        elapsed = 1e3 * (time.perf_counter() - started)
        return {
            "prompt_tokens": tokens,
            "tokens": answer,
            "prefill_ms": prefill,
            "decode_ms": elapsed,
            "forwards": forwards,
        }


def main():
    parser = argparse.ArgumentParser(description="llama.cpp behind JSON lines")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--positions", type=int, default=1024, help="of each sequence")
    parser.add_argument("--sequences", type=int, default=1)
    arguments = parser.parse_args()
    peer = Peer(arguments.model, arguments.threads, arguments.positions, arguments.sequences)

    def say(answer):
        print(json.dumps(answer), flush=True)

    say({
        "peer": f"llama.cpp of llama-cpp-python {ll.__version__}",
        "system": ll.llama_print_system_info().decode().strip(),
        "threads": arguments.threads,
    })
    operations = {"forward": peer.forward, "generate": peer.generate}
    for line in sys.stdin:
        try:
            request = json.loads(line)
            say(operations[request.pop("op")](**request))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
