"""The tokenizer of every golden model: one token per byte, one merged pair (an empty list
of merges cannot be written to GGUF) and fifteen special tokens.

It only has to be there, complete and consistent, so that a whole model can be loaded; the
tokenizers themselves have their own goldens.
"""

from pathlib import Path

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

MERGE = ("t", "h")
SPECIAL = ["<|bos|>", "<|eos|>"] + [f"<|special_{i}|>" for i in range(13)]
BOS, EOS = 257, 258
VOCAB_SIZE = 257 + len(SPECIAL)


def normal_tokens() -> list[str]:
    """GPT-2's printable stand-in for each byte, by byte value, and the merged pair:
    printable characters of Latin-1 stand for themselves, the others for the code points
    from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    stand_ins = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    return stand_ins + ["".join(MERGE)]


def write_tokenizer_json(folder: Path) -> None:
    """``tokenizer.json`` as the tokenizers library writes it."""
    vocab = {token: i for i, token in enumerate(normal_tokens())}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[MERGE]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def write_gguf(writer: gguf.GGUFWriter) -> None:
    """The same tokenizer as GGUF tables."""
    tokens = normal_tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + SPECIAL)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([normal] * len(tokens) + [control] * len(SPECIAL))
    writer.add_token_merges([" ".join(MERGE)])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(False)
