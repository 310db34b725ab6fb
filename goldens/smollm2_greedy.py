"""Greedy answers of the default model according to transformers.

    python goldens/smollm2_greedy.py SmolLM2-135M-Instruct.Q4_1.gguf

The GGUF file is dequantised by gguf-py into a float32 ``LlamaForCausalLM``, so that both
sides compute with the same numbers and differ in rounding only. For every line of
``prompts.jsonl`` the chat template is applied (a line with ``prompt`` goes in as it is)
and 64 tokens are decoded greedily with the KV cache, going on after EOS: what counts here
is the network, and it is to be compared at as many positions as possible.

``smollm2_greedy.json`` holds for every prompt the text and ids that went in, the ids that
came out, and at each step the margin: how far the best logit was above the second best.
A disagreement at a margin near the rounding error is a tie that fell the other way; at a
large margin it is a bug.
"""

import argparse
import hashlib
import json
from pathlib import Path

import gguf
import torch
import transformers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import gguf_files

HERE = Path(__file__).parent
NEW_TOKENS = 64


def load_network(path: Path) -> LlamaForCausalLM:
    """The network of the file, in float32, with its weights checked one by one."""
    reader = gguf.GGUFReader(path)

    def parameter(key: str):
        return reader.get_field(f"llama.{key}").contents()

    tensors = gguf_files.read_tensors(path)
    config = LlamaConfig(
        vocab_size=parameter("vocab_size"),
        hidden_size=parameter("embedding_length"),
        intermediate_size=parameter("feed_forward_length"),
        num_hidden_layers=parameter("block_count"),
        num_attention_heads=parameter("attention.head_count"),
        num_key_value_heads=parameter("attention.head_count_kv"),
        max_position_embeddings=parameter("context_length"),
        rms_norm_eps=parameter("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": parameter("rope.freq_base")},
        tie_word_embeddings="lm_head.weight" not in tensors,
    )
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    gguf_files.load(model, tensors)
    return model.eval()


@torch.no_grad()
def greedy(model: LlamaForCausalLM, ids: list[int]) -> tuple[list[int], list[float]]:
    """Token ids and margins of `NEW_TOKENS` greedy steps after ``ids``."""
    rows, cache = torch.tensor([ids]), None
    tokens, margins = [], []
    for _ in range(NEW_TOKENS):
        output = model(rows, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        best, second = output.logits[0, -1].topk(2).values.tolist()
        rows = output.logits[:, -1].argmax(-1, keepdim=True)
        tokens.append(rows.item())
        margins.append(round(best - second, 4))
    return tokens, margins


def main() -> None:
    """Writes ``smollm2_greedy.json`` beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("model", type=Path, help="the default model's .gguf file")
    path = arguments.parse_args().model
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    model = load_network(path)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    answers = []
    for line in (HERE / "prompts.jsonl").read_text().splitlines():
        prompt = json.loads(line)
        text = prompt.get("prompt") or tokenizer.apply_chat_template(
            prompt["messages"], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens, margins = greedy(model, ids)
        answers.append({"text": text, "ids": ids, "greedy": tokens, "margins": margins})
        print(f"{len(answers):2}  {tokenizer.decode(tokens)!r}", flush=True)
    header = {
        "model": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    lines = ",\n  ".join(json.dumps(answer) for answer in answers)
    target = HERE / "smollm2_greedy.json"
    target.write_text(json.dumps(header)[:-1] + ', "answers": [\n  ' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
