"""Held-out windows: the same ones each time, for the perplexity of the model on its way."""

from collections.abc import Sequence
from typing import overload

from components.train.data.batches import StepBatch, lay_out
from components.train.data.packed import PackedSampler
from components.train.data.sampler import Sampler
from components.train.data.shards import open_shards
from components.train.data.windows import WindowSampler
from components.train.distributed import Layout
from components.train.launching.job import TrainJob
from components.train.settings import TrainSettings

_SEED = 0  # not the run's: runs that differ in their seed are measured by the same windows


def validation_batches(job: TrainJob, size: int, layout: Layout) -> Sequence[StepBatch]:
    """Choose held-out windows and fetch the shards they lie in, in the background; every process calls it.

    They are the first of a shuffle that depends on nothing but the held-out documents: windows as in the paper, or with
    packed sampling a stretch of the packed stream. Padding never counts.

    Args:
        job: The run.
        size: Windows in a micro-batch.
        layout: The processes.

    Returns:
        The windows in batches of the global batch size. They are drawn when they are asked for, which all processes do
        together; the first time that waits until the shards are on every node. None if there are no held-out documents,
        or none are asked for.

    Raises:
        InputError: The shards cannot be used.
        StorageError: The store is down.
    """
    settings = job.settings
    if not isinstance(settings, TrainSettings) or not job.validation or settings.validation_windows == 0:
        return ()
    shards = open_shards(job, job.validation, job.scratch_folder / "validation", layout)
    corpus = shards.corpus(job.validation)
    context, padding = settings.context_length, job.padding_token_id
    sampler = (
        PackedSampler(corpus, context, job.end_token_id, padding, _SEED)
        if settings.sampling == "packed"
        else WindowSampler(corpus, context, padding, mask_padding=True, seed=_SEED)
    )
    windows = min(settings.validation_windows, sampler.windows_per_epoch)
    shards.start([job.validation[shard] for shard in sampler.shards(0, 0, windows)])
    return _HeldOut(sampler, windows, settings.global_batch_size, size, layout)


class _HeldOut(Sequence[StepBatch]):
    def __init__(self, sampler: Sampler, windows: int, batch: int, size: int, layout: Layout) -> None:
        self._sampler = sampler
        self._ranges = [(first, min(first + batch, windows)) for first in range(0, windows, batch)]
        self._size = size
        self._layout = layout

    def __len__(self) -> int:
        return len(self._ranges)

    @overload
    def __getitem__(self, index: int) -> StepBatch: ...

    @overload
    def __getitem__(self, index: slice) -> list[StepBatch]: ...

    def __getitem__(self, index: int | slice) -> StepBatch | list[StepBatch]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        first, last = self._ranges[index]
        batch = lay_out(self._sampler, 0, first, last, self._size, self._layout.rank, self._layout.world)
        if batch.waits:
            self._layout.wait_for_all()
        return batch
