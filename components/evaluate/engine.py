"""What computes log-likelihoods: a model in this process, or a server."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from lm_eval.api.model import LM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.common.manifest import Manifest
from components.common.progress import track
from components.evaluate.forward import window_losses
from components.evaluate.memory import halving, tokens_at_once
from components.evaluate.models import loaded_model, loaded_tokenizer
from components.evaluate.scorer import Scorer
from components.evaluate.settings import EvaluateSettings


class Engine(Protocol):
    """What an evaluation asks.

    Attributes:
        lm: The model as lm-eval knows models; its ``truncated`` are the requests that lost the start of their prompt.
        tokenizer: The model's.
        vocabulary: How many tokens the model has.
        positions: The longest sequence that it takes.
    """

    lm: LM
    tokenizer: PreTrainedTokenizerBase
    vocabulary: int
    positions: int

    @property
    def halved(self) -> int:
        """Batches that did not fit into memory and went on in halves, so far."""

    def window_losses(self, windows: Sequence[Sequence[int]]) -> list[float]:
        """Return the sum of negative log-likelihoods (nats) of each window's tokens after the first."""


@contextlib.contextmanager
def open_engine(role: str, model: Manifest, settings: EvaluateSettings) -> Iterator[Engine]:
    """Give the engine that the settings name, with the model of a manifest.

    Args:
        role: What people call the model in the run, such as ``base``.
        model: Manifest of the model.
        settings: The recipe's evaluate section.

    Raises:
        InputError: Model, device or server cannot be used.
        StorageError: The model cannot be read.
    """
    if settings.engine.kind == "server":
        # Imported here: only clusters with such a server need its client.
        from components.evaluate.server import Server

        with loaded_tokenizer(model) as (tokenizer, config, folder):
            yield Server(role, tokenizer, config, folder, settings.engine)
        return
    with loaded_model(model, settings.device) as (network, tokenizer):
        yield Builtin(network, tokenizer, settings.batch_tokens, settings.batch_size)


class Builtin:
    """The model in this process."""

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Wrap a loaded model; for the arguments see :class:`Scorer`."""
        self.lm = Scorer(network, tokenizer, batch_tokens, batch_size)
        self.tokenizer = tokenizer
        self.vocabulary: int = network.get_input_embeddings().num_embeddings
        self.positions: int = self.lm.max_length
        self._network = network
        self._tokens, self._rows = batch_tokens or tokens_at_once(network), batch_size
        self._halved = 0

    @property
    def halved(self) -> int:
        """Batches that did not fit into memory."""
        return self._halved + self.lm.halved

    def window_losses(self, windows: Sequence[Sequence[int]]) -> list[float]:
        """Compute the losses in batches of windows of like length."""
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i]))
        batches, start = [], 0
        while start < len(order):
            count = max(1, self._tokens // len(windows[order[start]]))
            count = count if self._rows is None else min(count, self._rows)
            batches.append(order[start : start + count])
            start += count
        losses = [0.0] * len(windows)
        for batch in track(batches, total=len(batches), label="Held-out loss", unit="batches"):
            found = halving([windows[i] for i in batch], partial(window_losses, self._network), self._halve, "window")
            for i, loss in zip(batch, found, strict=True):
                losses[i] = loss
        return losses

    def _halve(self) -> None:
        self._halved += 1
