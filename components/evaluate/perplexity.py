"""Perplexity on the articles that training never saw."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest, Shard
from components.evaluate.engine import Engine
from components.evaluate.token_bytes import token_bytes


class ArticleLoss(BaseModel):
    """The loss on one article: `nll` is the sum, in nats, over its predicted `tokens`, which stand for so many `bytes`.

    Models with other tokenizers cut an article into other tokens, but not into other bytes (of UTF-8).
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tokens: int
    bytes: int
    nll: float


@dataclass(frozen=True)
class HeldOutLoss:
    """The losses of all articles, and a hash of exactly the tokens they were computed on."""

    articles: list[ArticleLoss]
    skipped: int
    content_hash: str


def held_out_loss(
    engine: Engine, corpus: Manifest, context_length: int, max_articles: int | None = None
) -> HeldOutLoss:
    """Compute the loss on the validation split.

    Each article is cut into consecutive windows of ``context_length`` tokens that do not overlap; the last one may be
    shorter. As in training there is no token before a window, so its first token is given and not predicted.
    A one-token rest has nothing to predict.

    Args:
        engine: A causal language model with the corpus's vocabulary.
        corpus: Manifest of the tokenised corpus.
        context_length: Tokens per window.
        max_articles: Take only so many, from the start of the split (its articles were chosen by a hash of their id).

    Raises:
        InputError: The split is empty or was made for another model.
        PipelineError: The loss is not finite.
    """
    if context_length > engine.positions:
        raise InputError(
            f"context_length is {context_length} but the model has {engine.positions} positions; lower it."
        )
    documents = list(islice(validation_documents(corpus), max_articles))
    usable = [(identifier, tokens) for identifier, tokens in documents if len(tokens) > 1]
    if len(usable) < 2:
        raise InputError(
            f"The validation split of corpus {corpus.fingerprint} has {len(usable)} usable articles and a confidence "
            "interval needs two; raise the validation fraction of the recipe, or download more articles."
        )
    _check_vocabulary(usable, engine.vocabulary, corpus)
    sizes = token_bytes(engine.tokenizer, engine.vocabulary)
    windows = [_windows(tokens, context_length) for _, tokens in usable]
    losses = iter(engine.window_losses([window.tolist() for article in windows for window in article]))
    articles = [
        ArticleLoss(
            id=identifier,
            tokens=sum(len(window) - 1 for window in article),
            bytes=int(sum(sizes[window[1:]].sum() for window in article)),
            nll=sum(next(losses) for _ in article),
        )
        for (identifier, _), article in zip(usable, windows, strict=True)
    ]
    _check_finite(articles)
    return HeldOutLoss(articles, len(documents) - len(usable), _content_hash(usable, context_length))


def validation_documents(corpus: Manifest) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield (article id, token ids) of the validation split, in the order of its shards.

    Raises:
        InputError: There is no validation split, or a shard is not what the manifest says.
    """
    names = corpus.extra.get("splits", {}).get("validation", {}).get("shards", [])
    if not names:
        raise InputError(
            f"Corpus {corpus.fingerprint} has no validation articles, so perplexity cannot be measured; "
            "raise the validation fraction of the recipe, or download more articles."
        )
    dtype = np.dtype(corpus.extra["dtype"]).newbyteorder("<")
    for name in names:
        yield from _shard_documents(corpus.shard(name), dtype)


def _shard_documents(shard: Shard, dtype: np.dtype) -> Iterator[tuple[str, NDArray[np.int64]]]:
    base = shard.uri.removesuffix(".bin")
    with storage.local_copy(shard.uri) as path:
        if sha256_file(path) != shard.sha256:
            raise InputError(f"{shard.uri} is not the file that its manifest names; delete it and rerun preprocessing.")
        tokens = np.fromfile(path, dtype=dtype).astype(np.int64)
    offsets = np.frombuffer(storage.read(base + ".idx"), dtype="<i8")
    identifiers = _identifiers(shard, base, len(offsets) - 1)
    if len(identifiers) != len(offsets) - 1 or offsets[-1] != len(tokens):
        raise InputError(f"The index of {shard.uri} does not fit its tokens; delete both and rerun preprocessing.")
    for position, identifier in enumerate(identifiers):
        yield identifier, tokens[offsets[position] : offsets[position + 1]]


def _identifiers(shard: Shard, base: str, documents: int) -> list[str]:
    if storage.exists(base + ".ids.json"):
        return [str(identifier) for identifier in json.loads(storage.read(base + ".ids.json"))]
    listed = shard.stats.get("ids")
    return [str(i) for i in listed] if listed else [f"{shard.name}:{position}" for position in range(documents)]


def _windows(tokens: NDArray[np.int64], context_length: int) -> list[NDArray[np.int64]]:
    return [tokens[start : start + context_length] for start in range(0, len(tokens) - 1, context_length)]


def _check_vocabulary(documents: Sequence[tuple[str, NDArray[np.int64]]], size: int, corpus: Manifest) -> None:
    for identifier, tokens in documents:
        if tokens.max() >= size:
            raise InputError(
                f"Article {identifier} of corpus {corpus.fingerprint} has token {tokens.max()} but the model has only "
                f"{size}: the corpus was made with another tokenizer; rerun preprocessing with this model's."
            )


def _check_finite(articles: Sequence[ArticleLoss]) -> None:
    for article in articles:
        if not np.isfinite(article.nll):
            raise PipelineError(
                f"The loss on article {article.id} is {article.nll}; the model's weights are broken: look at the loss "
                "of its training."
            )


def _content_hash(documents: Sequence[tuple[str, NDArray[np.int64]]], context_length: int) -> str:
    digest = hashlib.sha256(str(context_length).encode())
    for identifier, tokens in documents:
        digest.update(f"\n{identifier} {len(tokens)}\n".encode())
        digest.update(tokens.astype("<i8").tobytes())
    return digest.hexdigest()
