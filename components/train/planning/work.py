"""How much there is to compute: windows, tokens, steps, operations."""

import math
from dataclasses import dataclass

from components.train.data.schedule import Plan
from components.train.measuring.flops import flops_per_token
from components.train.planning.published import PAPER
from components.train.planning.shape import ModelShape
from components.train.settings import TrainSettings


@dataclass(frozen=True)
class Work:
    """What a run has to do.

    Attributes:
        documents: In the corpus.
        plan: The course of the run.
        flops_per_token: Of forward and backward pass.
    """

    documents: int
    plan: Plan
    flops_per_token: float

    @property
    def tokens(self) -> int:
        """In all windows of all epochs, padding included."""
        return self.plan.windows * self.plan.settings.context_length * self.plan.settings.epochs

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.tokens * self.flops_per_token

    def seconds(self, flops_per_second: float) -> float:
        """How long it takes at a rate that all GPUs reach together."""
        return self.flops / flops_per_second


def work_of(shape: ModelShape, settings: TrainSettings, documents: int, tokens: int | None = None) -> Work:
    """What a run on a corpus has to do.

    Args:
        shape: The model.
        settings: Context, batch, epochs, sampling.
        documents: To train on.
        tokens: Of all documents, which only packed sampling asks for; none takes the paper's corpus's mean.
    """
    windows = documents
    if settings.sampling == "packed":
        total = tokens if tokens is not None else round(documents * PAPER.corpus_tokens / PAPER.documents)
        windows = math.ceil((total + documents) / settings.context_length)  # an end token before each document
    elif settings.sampling == "mixed":
        first = settings.mixture[settings.corpora[0]]  # it gives one window a document
        windows = round(documents * sum(settings.mixture.values()) / first)
    per_token = flops_per_token(
        shape.multiplied_parameters, 0, shape.layers, shape.query_width, settings.context_length
    )
    return Work(documents, Plan(windows, settings), per_token)
