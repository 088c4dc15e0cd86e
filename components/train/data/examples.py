"""Which tokens a fine-tuning step sees: examples packed into windows, or one padded example in each.

Packed is the authors' way (`Data_sample/tokenize_dataset.py` in github.com/chaoyi-wu/Finetune_LLAMA): all examples in
one stream, each with its start and end token, cut into windows, without a mask between examples. They shuffle the
examples once and the windows in every epoch, drop what does not fill a window, and never predict a window's first
token. Here every epoch shuffles the examples, the last window is padded, and the last place of a window predicts the
first token of the next: every token but the stream's first is a target exactly once, so no answer is lost.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from components.train.data.corpus import Tokens, map_tokens, read_offsets
from components.train.data.fetch import local_file
from components.train.data.order import document_order
from components.train.data.sampler import IGNORED, Extent, Sampler, Windows
from components.train.data.shards import open_shards
from components.train.distributed import Layout
from components.train.launching.job import TrainJob
from components.train.settings import FinetuneSettings

_WIDTH_STEP = 64  # padded windows come in few widths, so that compiled code and memory are used again


def open_examples(job: TrainJob, layout: Layout) -> Sampler:
    """The examples of a fine-tuning job; every process calls it and waits until their shard is here and checked.

    Raises:
        InputError: The shard is missing or is not what the job says.
        StorageError: The store is down.
    """
    settings = job.settings
    if not isinstance(settings, FinetuneSettings):
        raise TypeError("only a fine-tuning job has examples")
    (shard,) = job.shards
    folder = job.scratch_folder / "examples"
    shards = open_shards(job, [shard], folder, layout)
    shards.start([shard])
    file = local_file(shard, folder)
    shards.arrivals.wait_for([file])
    sampler = PackedExamples if settings.packed else PaddedExamples
    return sampler(
        Examples.map(file, job.token_dtype),
        settings.context_length,
        job.padding_token_id,
        settings.loss_on,
        settings.seed,
    )


@dataclass(frozen=True)
class Examples:
    """Examples of a shard, by their number in it.

    Attributes:
        tokens: Ids of all examples, one after the other.
        starts: int64, first token of each example.
        prompts: int64, tokens of each example before its answer.
        lengths: int64, tokens of each example.
    """

    tokens: Tokens
    starts: NDArray[np.int64]
    prompts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def map(cls, file: Path, dtype: str) -> "Examples":
        """Map the `.bin` file; in the `.idx` beside it every example is two documents, prompt and answer."""
        offsets = read_offsets(file)
        return cls(
            tokens=map_tokens(file, np.dtype(dtype)),
            starts=offsets[:-1:2],
            prompts=offsets[1::2] - offsets[:-1:2],
            lengths=offsets[2::2] - offsets[:-1:2],
        )

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)


@dataclass(frozen=True)
class _Epoch:
    """The examples in the order of an epoch, as one stream.

    Attributes:
        number: Of the epoch.
        order: Numbers of the examples.
        ends: Place in the stream behind each of them.
        answers: Answer tokens in the stream before each of them, and in all of it.
    """

    number: int
    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    answers: NDArray[np.int64]


class _ExampleSampler:
    """What both ways share; `loss_on` says which tokens count as targets: all, or those of answers and their end."""

    def __init__(
        self, examples: Examples, context: int, padding_id: int, loss_on: Literal["all", "answer"], seed: int
    ) -> None:
        """Take the examples, the tokens in a window, the id that fills windows up, the targets and the run's seed."""
        self.examples = examples
        self.context = context
        self.padding_id = padding_id
        self.answers_only = loss_on == "answer"
        self.seed = seed
        self._last: _Epoch | None = None

    def _epoch(self, number: int) -> _Epoch:
        epoch = self._last
        if epoch is None or epoch.number != number:
            order = document_order(self.seed, number, len(self.examples))
            lengths = self.examples.lengths[order]
            answers = np.concatenate([[0], np.cumsum(lengths - self.examples.prompts[order])])
            epoch = self._last = _Epoch(number, order, np.cumsum(lengths), answers)
        return epoch

    def _windows(self, examples: NDArray[np.int64], places: NDArray[np.int64], inside: NDArray[np.bool_]) -> Windows:
        """Lay out what is read, one place more than a window is wide: each token's target is the one behind it.

        Args:
            examples: Numbers of examples; shape (windows, width + 1), or one that stretches to it.
            places: Places in them; same shape.
            inside: False where there is nothing left to read; same shape.
        """
        read = self.examples.tokens[self.examples.starts[examples] + places].astype(np.int64)
        counts = inside & (places >= self.examples.prompts[examples]) if self.answers_only else inside
        return Windows(
            tokens=np.where(inside[:, :-1], read[:, :-1], self.padding_id),
            targets=np.where(counts[:, 1:], read[:, 1:], IGNORED),
        )


class PackedExamples(_ExampleSampler):
    """Windows cut from the stream of all examples."""

    @property
    def windows_per_epoch(self) -> int:
        """So many have a target for every token but the stream's first."""
        return -(-(int(self.examples.lengths.sum()) - 1) // self.context)

    def extent(self, epoch: int, first: int, last: int) -> Extent:
        """What the windows at positions `first` .. `last - 1` of an epoch take."""
        stream = self._epoch(epoch)
        start, end, all_tokens = first * self.context, last * self.context, int(stream.ends[-1])
        counted = self._counted(stream, np.array([start + 1, min(end + 1, all_tokens)]))
        return Extent(self.context, targets=int(counted[1] - counted[0]), padding=max(end - all_tokens, 0))

    def draw(self, epoch: int, positions: NDArray[np.int64], width: int) -> Windows:
        """The windows at these positions of an epoch; `width` is the context."""
        stream = self._epoch(epoch)
        wanted = positions[:, None] * self.context + np.arange(width + 1)
        places = np.minimum(wanted, stream.ends[-1] - 1)
        slots = np.searchsorted(stream.ends, places, side="right")
        examples = stream.order[slots]
        begins = stream.ends[slots] - self.examples.lengths[examples]
        return self._windows(examples, places - begins, wanted < stream.ends[-1])

    def _counted(self, stream: _Epoch, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens of the stream before each place count as targets."""
        if not self.answers_only:
            return places
        slots = np.searchsorted(stream.ends, places, side="right")  # examples that end before the place
        last = np.minimum(slots, len(stream.order) - 1)
        example = stream.order[last]
        answer = stream.ends[last] - self.examples.lengths[example] + self.examples.prompts[example]
        begun = np.where(slots == last, np.maximum(places - answer, 0), 0)  # nothing begins behind the last example
        return stream.answers[slots] + begun


class PaddedExamples(_ExampleSampler):
    """One example in each window; a step's windows are as wide as its longest example needs."""

    @property
    def windows_per_epoch(self) -> int:
        """One of every example."""
        return len(self.examples)

    def extent(self, epoch: int, first: int, last: int) -> Extent:
        """What the windows at positions `first` .. `last - 1` of an epoch take; all processes share their width."""
        examples = self._epoch(epoch).order[first:last]
        lengths, prompts = self.examples.lengths[examples], self.examples.prompts[examples]
        width = min(-(-int(lengths.max()) // _WIDTH_STEP) * _WIDTH_STEP, self.context)
        # A prompt is never empty, so every token of an answer is a target; of all tokens the first one is not.
        targets = lengths - prompts if self.answers_only else lengths - 1
        return Extent(width, targets=int(targets.sum()), padding=len(lengths) * width - int(lengths.sum()))

    def draw(self, epoch: int, positions: NDArray[np.int64], width: int) -> Windows:
        """The windows at these positions of an epoch, as wide as the extent of their step says."""
        examples = self._epoch(epoch).order[positions][:, None]
        lengths = self.examples.lengths[examples]
        columns = np.arange(width + 1)[None, :]
        return self._windows(examples, np.minimum(columns, lengths - 1), columns < lengths)
