"""Training questions to a token shard of examples.

An example is the model's start token, the prompt, the answer and the end token, as the authors join them
(`Data_sample/tokenize_dataset.py` in github.com/chaoyi-wu/Finetune_LLAMA). The shard has the form of the corpus's: ids
in `.bin`, int64 offsets in `.idx`. An example takes two of its documents, the prompt with the start token and the
answer with the end token, so that both files' hashes also cover where each answer begins.
"""

import logging
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.manifest import Manifest, Shard
from components.common.progress import track
from components.common.shards import finished_shard, write_shard
from components.train.finetuning.formats import FORMAT_VERSION, Example, to_example
from components.train.finetuning.selection import TEST_QUESTION, Selection, select_questions
from components.train.finetuning.tokenizer import ModelTokenizer, load_tokenizer
from components.train.settings import FinetuneSettings

log = logging.getLogger(__name__)

EXAMPLES_VERSION = 1  # raise it when the same questions give other examples
TOO_LONG = "too_long"
_BATCH = 1000
_SHARD = "train"

Pieces = tuple[list[int], list[int]]
"""Ids of a prompt and of its answer, control tokens included."""


def write_examples(benchmarks: Manifest, model_uri: str, settings: FinetuneSettings, output_root: str) -> Shard:
    """Encode the training questions of a recipe's tasks, or return at once if that is done already.

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
    selection = select_questions(benchmarks, settings)
    prompts_and_answers, shortened, too_long = _encode_all(selection, tokenizer, settings.context_length)
    if not prompts_and_answers:
        raise InputError(f"No question fits into {settings.context_length} tokens; raise finetune.context_length.")
    if too_long:
        log.warning("%d questions do not fit into %d tokens and are left out", too_long, settings.context_length)
    ids, offsets = _flat(prompts_and_answers, tokenizer.dtype)
    stats = {
        "tokens": len(ids),
        "index_sha256": sha256_bytes(offsets.tobytes()),
        "dtype": tokenizer.dtype,
        "vocabulary_size": tokenizer.vocabulary_size,
        "dropped": {TEST_QUESTION: selection.dropped.total(), TOO_LONG: too_long},
        "shortened": shortened,
        "counts": dict(selection.chosen),
    }
    files = {".bin": ids.tobytes(), ".idx": offsets.tobytes()}
    shard = write_shard(prefix, _SHARD, files, len(prompts_and_answers), stats)
    log.info("%d examples of %s: %d tokens", shard.rows, ", ".join(sorted(settings.tasks)), len(ids))
    return shard


def _mark(benchmarks: Manifest, tokenizer: ModelTokenizer, settings: FinetuneSettings) -> str:
    chosen = [sorted(settings.tasks), settings.fraction, settings.context_length]
    vocabulary = [tokenizer.sha256, tokenizer.start, tokenizer.end]
    return fingerprint("examples", benchmarks.fingerprint, vocabulary, chosen, FORMAT_VERSION, EXAMPLES_VERSION)


def _encode_all(selection: Selection, tokenizer: ModelTokenizer, context: int) -> tuple[list[Pieces], int, int]:
    """Return the examples that fit, how many of them were shortened, and how many do not fit."""
    room = context - tokenizer.control_tokens
    found: list[Pieces] = []
    fates: Counter[str] = Counter()
    for batch in track(_batches(selection), -(-len(selection.questions) // _BATCH), "Encoding questions", "batches"):
        encodings = tokenizer.model.encode_batch([example.text for example in batch], add_special_tokens=False)
        for example, encoding in zip(batch, encodings, strict=True):
            if len(encoding.ids) <= room:
                found.append(_pieces(example, encoding, tokenizer))
            elif shorter := _shorten(example, encoding, tokenizer, room):
                found.append(shorter)
                fates["shortened"] += 1
            else:
                fates[TOO_LONG] += 1
    return found, fates["shortened"], fates[TOO_LONG]


def _batches(selection: Selection) -> Iterator[list[Example]]:
    for start in range(0, len(selection.questions), _BATCH):
        yield [to_example(task, question) for task, question in selection.questions[start : start + _BATCH]]


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


def _flat(examples: list[Pieces], dtype: str) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    pieces = [piece for example in examples for piece in example]
    offsets = np.cumsum([0, *(len(piece) for piece in pieces)]).astype("<i8")
    ids = np.fromiter((token for piece in pieces for token in piece), np.dtype(dtype).newbyteorder("<"), offsets[-1])
    return ids, offsets
