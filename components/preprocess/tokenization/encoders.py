"""Text to token ids by the fastest library whose ids are those of the reference.

The reference is `tokenizers`. `fastokens` is several times faster and young, so its ids are compared with the
reference's on texts of the very shard before it is trusted with the rest.
"""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import fastokens
import numpy as np
from tokenizers import Tokenizer

from components.common.errors import InputError

log = logging.getLogger(__name__)

FAST = "fastokens"
REFERENCE = "tokenizers"

Ids = tuple[np.ndarray, np.ndarray]
"""All ids of a batch (uint32) one text after the other, and the offsets of its texts (int64, texts + 1)."""
Encode = Callable[[Sequence[str]], Ids]

# What trips tokenizers up: control tokens in the text, spaces of all kinds, long words, marks, other scripts, emoji.
_HARD_TEXTS = [
    "",
    " ",
    "a",
    "\n\n  two  spaces\tand a tab \u00a0\u2009\u200b",
    "<s> </s> <unk> [INST] <|endoftext|> \u2581already marked",
    "e\u0301 \u03b2-catenin \u2264 5 \u00b5m \u00b1 0.05% \u4e2d\u6587 \ud55c\uad6d\uc5b4 \U0001d465 \U0001f9ec",
    "ACGT" * 300,
    "don't DON'T (p<0.001) 1234567890 10.1371/journal.pone.0000001",
]


def load_reference(tokenizer: Path) -> Tokenizer:
    """Load `tokenizer.json` of a model folder.

    Control tokens written out in a text (`</s>`) are encoded as ordinary characters: an article must not end itself.

    Raises:
        InputError: The file is missing or no tokenizer.
    """
    path = tokenizer / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"The base model has no {path.name} (looked in {tokenizer}); give another model.")
    try:
        reference = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise InputError(f"{path} is no tokenizer ({error}); download the base model again.") from error
    reference.encode_special_tokens = True
    reference.no_truncation()
    reference.no_padding()
    return reference


def choose_encoder(
    tokenizer: Path, probe: Sequence[str], fastest: bool = True, model: Tokenizer | None = None
) -> tuple[str, Encode]:
    """Return the name and the function of the fastest encoder that is proven equal to the reference.

    Args:
        tokenizer: Folder with `tokenizer.json`.
        probe: Texts to prove it on, besides a few hard ones.
        fastest: False takes the reference without a look at the others.
        model: What `load_reference` returned for that folder, where it is at hand.
    """
    model = model or load_reference(tokenizer)
    reference = _reference_encoder(model)
    if not fastest:
        return REFERENCE, reference
    try:
        fast = _fast_encoder(tokenizer, model, reference)
        difference = _difference(fast, reference, [*_HARD_TEXTS, *probe])
    except Exception as error:  # noqa: BLE001 - whatever it is, the reference does the same work
        difference = f"it fails with {type(error).__name__}: {error}"
    if difference:
        log.warning("fastokens is not used: %s. Encoding with tokenizers, which is slower.", difference)
        return REFERENCE, reference
    return FAST, fast


def _fast_encoder(tokenizer: Path, model: Tokenizer, reference: Encode) -> Encode:
    fast = fastokens.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    fast.no_truncation()
    special = [token.content for token in model.get_added_tokens_decoder().values() if token.special]
    # One search for all of them: it looks for what they begin with, which is several times faster than one for each.
    control_token = re.compile("|".join(map(re.escape, special)) or "(?!)").search

    def encode(texts: Sequence[str]) -> Ids:
        # fastokens 0.3 makes a written-out control token the token itself even when told not to (split_special_tokens).
        if any(map(control_token, texts)):
            return reference(texts)
        ids, offsets = fast.encode_batch_flat(list(texts), add_special_tokens=False)
        return np.frombuffer(ids, dtype="<u4"), np.frombuffer(offsets, dtype="<u8").astype(np.int64)

    return encode


def _reference_encoder(model: Tokenizer) -> Encode:
    def encode(texts: Sequence[str]) -> Ids:
        encoded = [encoding.ids for encoding in model.encode_batch_fast(list(texts), add_special_tokens=False)]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids in encoded], out=offsets[1:])
        flat = np.fromiter((token for ids in encoded for token in ids), dtype=np.uint32, count=offsets[-1])
        return flat, offsets

    return encode


def _difference(fast: Encode, reference: Encode, texts: Sequence[str]) -> str:
    """Say where two encoders differ; empty if they do not. One text at a time: each takes the path of its own."""
    for number, text in enumerate(texts):
        found, expected = fast([text])[0], reference([text])[0]
        if not np.array_equal(found, expected):
            return f"its ids of text {number} of the probe differ ({len(found)} instead of {len(expected)} ids)"
    return ""
