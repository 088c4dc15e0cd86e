"""Training questions and instructions to a token shard of examples.

An example is the model's start token, the prompt, the answer and the end token, as the authors join them
(`Data_sample/tokenize_dataset.py` in github.com/chaoyi-wu/Finetune_LLAMA). The shard has the form of the corpus's: ids
in `.bin`, int64 offsets in `.idx`. An example takes two of its documents, the prompt with the start token and the
answer with the end token, so that both files' hashes also cover where each answer begins.
"""

import logging
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.instruction_set import instruction_shard
from components.common.manifest import Manifest, Shard
from components.common.progress import track
from components.common.prompts import AUTHORS_VERSION, INSTRUCT_VERSION, Example
from components.common.shards import finished_shard, write_shard
from components.train.finetuning.selection import TEST_QUESTION, Selection, select
from components.train.settings import INSTRUCT, FinetuneSettings
from components.train.tokenizer import ModelTokenizer, load_tokenizer

log = logging.getLogger(__name__)

EXAMPLES_VERSION = 1  # raise it when the same questions give other examples
TOO_LONG = "too_long"
_SHORTENED = "shortened"
_BATCH = 1000
_SHARD = "train"

Pieces = tuple[list[int], list[int]]
"""Ids of a prompt and of its answer, control tokens included."""


@dataclass
class _Encoded:
    """The examples that fit; four bytes a token, since an instruction set may have hundreds of millions."""

    ids: "array[int]" = field(default_factory=lambda: array("I"))
    offsets: "array[int]" = field(default_factory=lambda: array("q", [0]))
    fates: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        return len(self.offsets) // 2

    def add(self, pieces: Pieces) -> None:
        for piece in pieces:
            self.ids.extend(piece)
            self.offsets.append(len(self.ids))


def write_examples(benchmarks: Manifest, model_uri: str, settings: FinetuneSettings, output_root: str) -> Shard:
    """Encode the questions and instructions of a recipe's section, or return at once if that is done already.

    Args:
        benchmarks: Manifest of kind `benchmarks`.
        model_uri: Folder of the model; its tokenizer is used. Models with one tokenizer share the examples.
        settings: Tasks, fraction and context length.
        output_root: The shard goes to `<output_root>/examples/<fingerprint>/`.

    Returns:
        The shard; its rows are examples. `stats` holds what a job needs (`tokens`, `index_sha256`, `dtype`,
        `vocabulary_size`), `dropped` by reason, `shortened` (examples whose context lost its start) and `counts` of
        questions per task.

    Raises:
        InputError: The questions or the tokenizer cannot be used, or no question is left.
        StorageError: The store cannot be read or written.
    """
    tokenizer = load_tokenizer(model_uri)
    prefix = storage.join(output_root, "examples", _mark(benchmarks, tokenizer, settings))
    shard = finished_shard(prefix, _SHARD)
    if shard and storage.exists(storage.join(prefix, f"{_SHARD}.idx")):
        log.info("The examples are there already: %s", prefix)
        return shard
    selection = select(benchmarks, settings)
    encoded = _encode_all(selection, tokenizer, settings.context_length)
    too_long = encoded.fates[TOO_LONG]
    if not encoded.rows:
        raise InputError(f"No example fits into {settings.context_length} tokens; raise finetune.context_length.")
    if too_long:
        log.warning("%d examples do not fit into %d tokens and are left out", too_long, settings.context_length)
    ids, offsets = _flat(encoded, tokenizer.dtype)
    stats = {
        "tokens": len(ids),
        "index_sha256": sha256_bytes(offsets.tobytes()),
        "dtype": tokenizer.dtype,
        "vocabulary_size": tokenizer.vocabulary_size,
        "dropped": {TEST_QUESTION: selection.dropped.total(), TOO_LONG: too_long},
        "shortened": encoded.fates[_SHORTENED],
        "counts": dict(selection.chosen),
    }
    files = {".bin": ids.tobytes(), ".idx": offsets.tobytes()}
    shard = write_shard(prefix, _SHARD, files, encoded.rows, stats)
    log.info("%d examples of %s: %d tokens", shard.rows, ", ".join(selection.chosen), len(ids))
    return shard


def text_versions(benchmarks: Manifest, settings: FinetuneSettings) -> list[int | str]:
    """Return what decides, beside settings and questions, which text a model is fine-tuned on.

    Raises:
        InputError: The settings want instructions and the manifest has none.
    """
    if settings.objective != INSTRUCT:
        return [EXAMPLES_VERSION, AUTHORS_VERSION]
    return [EXAMPLES_VERSION, INSTRUCT_VERSION, instruction_shard(benchmarks).sha256]


def _mark(benchmarks: Manifest, tokenizer: ModelTokenizer, settings: FinetuneSettings) -> str:
    chosen = [sorted(settings.tasks), settings.fraction, settings.context_length]
    vocabulary = [tokenizer.sha256, tokenizer.start, tokenizer.end]
    return fingerprint("examples", benchmarks.fingerprint, vocabulary, chosen, *text_versions(benchmarks, settings))


def _encode_all(selection: Selection, tokenizer: ModelTokenizer, context: int) -> _Encoded:
    room = context - tokenizer.control_tokens
    encoded = _Encoded()
    for batch in track(_batches(selection), -(-len(selection) // _BATCH), "Encoding examples", "batches"):
        encodings = tokenizer.model.encode_batch([example.text for example in batch], add_special_tokens=False)
        for example, encoding in zip(batch, encodings, strict=True):
            if len(encoding.ids) <= room:
                encoded.add(_pieces(example, encoding, tokenizer))
            elif shorter := _shorten(example, encoding, tokenizer, room):
                encoded.add(shorter)
                encoded.fates[_SHORTENED] += 1
            else:
                encoded.fates[TOO_LONG] += 1
    return encoded


def _batches(selection: Selection) -> Iterator[list[Example]]:
    examples = selection.examples()
    while batch := list(islice(examples, _BATCH)):
        yield batch


def _pieces(example: Example, encoding: Encoding, tokenizer: ModelTokenizer) -> Pieces:
    """Split the ids where the answer begins; a token that covers both belongs to the answer."""
    border = len(example.prompt)
    answers = sum(1 for _, end in encoding.offsets if end > border)
    first = len(encoding.ids) - answers
    start = [] if tokenizer.start is None else [tokenizer.start]
    return [*start, *encoding.ids[:first]], [*encoding.ids[first:], tokenizer.end]


def _shorten(example: Example, encoding: Encoding, tokenizer: ModelTokenizer, room: int) -> Pieces | None:
    """Cut the context's start until the example fits; None where even without a context it does not.

    Its start, because an abstract's results stand last, and because that is what a model loses in the evaluation.
    """
    while len(encoding.ids) > room:
        if not example.context:
            return None
        ends = [end for _, end in encoding.offsets if end > len(example.before)]
        excess = len(encoding.ids) - room
        example = example.without_start(max(1, ends[excess - 1] - len(example.before)))
        encoding = tokenizer.model.encode(example.text, add_special_tokens=False)
    return _pieces(example, encoding, tokenizer)


def _flat(encoded: _Encoded, dtype: str) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    ids = np.frombuffer(encoded.ids, np.uintc).astype(np.dtype(dtype).newbyteorder("<"))
    return ids, np.frombuffer(encoded.offsets, np.longlong).astype("<i8")
