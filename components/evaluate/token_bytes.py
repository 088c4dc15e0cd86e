"""How many bytes of text each token stands for: what a loss per byte divides by.

A token's bytes do not follow from decoding it alone (a leading space is dropped there, and a token may be part of a
character), but from how the tokenizer writes it: byte-level ones write one character for each byte; those of LLaMA's
kind write a space as U+2581 and a lone byte as ``<0x0A>``.
"""

import json
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from components.common.errors import InputError

_LONE_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"


def token_bytes(tokenizer: PreTrainedTokenizerBase, size: int) -> NDArray[np.int64]:
    """Return the bytes of UTF-8 that each token stands for; special tokens stand for none.

    Args:
        tokenizer: Byte-level (GPT-2, Qwen2, GPT-NeoX) or of LLaMA's kind.
        size: Of the model's vocabulary, which may be larger than the tokenizer's.

    Raises:
        InputError: The tokenizer is of another kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.dumps(json.loads(backend.to_str())["decoder"], ensure_ascii=False) if backend is not None else ""
    if "ByteLevel" not in decoder and _SPACE not in decoder:
        raise InputError(
            "This tokenizer is neither byte-level nor of LLaMA's kind, so bytes of text cannot be counted."
        )
    marks, sizes = set(tokenizer.all_special_tokens), np.zeros(size, dtype=np.int64)
    for token, number in tokenizer.get_vocab().items():
        if number < size and token not in marks:
            sizes[number] = len(token) if "ByteLevel" in decoder else _written_bytes(token)
    return sizes


def decoded_bytes(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> int:
    """Return the bytes of the text that tokens decode to: for checking the above on whole articles."""
    return len(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).encode())


def _written_bytes(token: str) -> int:
    return 1 if _LONE_BYTE.fullmatch(token) else len(token.replace(_SPACE, " ").encode())
