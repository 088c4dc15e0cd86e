"""Perplexity on the articles that training never saw."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch.nn import functional
from transformers import PreTrainedModel

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest, Shard
from components.common.progress import track

_IGNORED = -100  # cross_entropy's ignore_index: padding


class ArticleLoss(BaseModel):
    """The loss on one article: ``nll`` is the sum, in nats, over its ``tokens`` predicted tokens."""

    model_config = ConfigDict(frozen=True)

    id: str
    tokens: int
    nll: float


@dataclass(frozen=True)
class HeldOutLoss:
    """The losses of all articles, and a hash of exactly the tokens they were computed on."""

    articles: list[ArticleLoss]
    skipped: int
    content_hash: str


def held_out_loss(
    model: PreTrainedModel, corpus: Manifest, context_length: int, batch_size: int, max_articles: int | None = None
) -> HeldOutLoss:
    """Compute the loss on the validation split.

    Each article is cut into consecutive windows of ``context_length`` tokens that do not overlap; the last one may be
    shorter. As in training there is no token before a window, so its first token is given and not predicted.
    A one-token rest has nothing to predict.

    Args:
        model: A causal language model with the corpus's vocabulary.
        corpus: Manifest of the tokenised corpus.
        context_length: Tokens per window.
        batch_size: Windows per forward pass.
        max_articles: Take only so many, from the start of the split (its articles were chosen by a hash of their id).

    Raises:
        InputError: The split is empty or was made for another model.
        PipelineError: The loss is not finite.
    """
    longest = getattr(model.config, "max_position_embeddings", context_length)
    if context_length > longest:
        raise InputError(f"context_length is {context_length} but the model has {longest} positions; lower it.")
    documents = list(islice(validation_documents(corpus), max_articles))
    usable = [(identifier, tokens) for identifier, tokens in documents if len(tokens) > 1]
    if len(usable) < 2:
        raise InputError(
            f"The validation split of corpus {corpus.fingerprint} has {len(usable)} usable articles and a confidence "
            "interval needs two; raise the validation fraction of the recipe, or download more articles."
        )
    _check_vocabulary(usable, model, corpus)
    windows = _windows([tokens for _, tokens in usable], context_length)
    sums: defaultdict[int, float] = defaultdict(float)
    counts: defaultdict[int, int] = defaultdict(int)
    batches = [windows[start : start + batch_size] for start in range(0, len(windows), batch_size)]
    for batch in track(batches, total=len(batches), label="Held-out loss", unit="batches"):
        for window, loss in zip(batch, _window_losses(model, batch), strict=True):
            sums[window.article] += loss
            counts[window.article] += len(window.tokens) - 1
    articles = [ArticleLoss(id=name, tokens=counts[i], nll=sums[i]) for i, (name, _) in enumerate(usable)]
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


@dataclass(frozen=True)
class _Window:
    article: int
    tokens: NDArray[np.int64]


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


def _windows(documents: Sequence[NDArray[np.int64]], context_length: int) -> list[_Window]:
    """Cut documents into windows, longest first: batches are padded little and too large a one fails at once."""
    windows = [
        _Window(article, tokens[start : start + context_length])
        for article, tokens in enumerate(documents)
        for start in range(0, len(tokens) - 1, context_length)
    ]
    return sorted(windows, key=lambda window: -len(window.tokens))


def _window_losses(model: PreTrainedModel, windows: Sequence[_Window]) -> list[float]:
    """Sum of the negative log-likelihoods (nats) of each window's tokens after the first."""
    longest = len(windows[0].tokens)
    inputs = torch.zeros(len(windows), longest, dtype=torch.long)
    targets = torch.full((len(windows), longest), _IGNORED)
    for row, window in enumerate(windows):
        tokens = torch.from_numpy(window.tokens)
        inputs[row, : len(tokens)] = tokens
        targets[row, : len(tokens) - 1] = tokens[1:]
    with torch.inference_mode():
        logits = model(input_ids=inputs.to(model.device), use_cache=False).logits.float()
        losses = functional.cross_entropy(
            logits.flatten(0, 1), targets.to(model.device).flatten(), ignore_index=_IGNORED, reduction="none"
        )
    # Summed in float64 on the host, so that the order of windows does not show in the result.
    return [float(row.sum()) for row in losses.view(len(windows), longest).double().cpu()]


def _check_vocabulary(
    documents: Sequence[tuple[str, NDArray[np.int64]]], model: PreTrainedModel, corpus: Manifest
) -> None:
    size = model.get_input_embeddings().num_embeddings
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
