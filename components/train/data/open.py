"""The sampler that a job's settings ask for."""

from collections.abc import Sequence

from components.common.errors import InputError
from components.train.data.mixed import MixedSampler
from components.train.data.order import DocumentOrder
from components.train.data.packed import PackedSampler
from components.train.data.sampler import Sampler
from components.train.data.shards import open_shards
from components.train.data.windows import WindowSampler
from components.train.distributed import Layout
from components.train.launching.job import TokenShard, TrainJob
from components.train.settings import FinetuneSettings, TrainSettings


def open_sampler(job: TrainJob, layout: Layout) -> Sampler:
    """Open what a job trains on; every process calls it, and gets the same errors.

    For pre-training the shards' indexes are brought here first; their tokens come in the background, in the order in
    which the first epoch needs them.

    Raises:
        InputError: The data cannot be used.
        StorageError: The store is down.
    """
    if isinstance(job.settings, FinetuneSettings):
        from components.train.data.examples import open_examples

        return open_examples(job, layout)
    return _open_corpora(job, job.settings, layout)


def _open_corpora(job: TrainJob, settings: TrainSettings, layout: Layout) -> Sampler:
    _check_ids(job, settings)
    shards = open_shards(job, job.shards, job.scratch_folder / "corpus", layout)
    corpora = [shards.corpus(source.shards) for source in job.sources]
    common = {
        "context": settings.context_length,
        "padding_id": job.padding_token_id,
        "seed": settings.seed,
        "first_epoch_shards": settings.first_epoch_shards,
    }
    sources = [source.shards for source in job.sources]
    if settings.sampling == "mixed":
        weights = [source.weight for source in job.sources]
        mixed = MixedSampler(corpora, weights, mask_padding=settings.mask_padding, **common)
        orders = [source.order for source in mixed.sources]
        shards.start(first_needed(sources, orders, mixed.shares))
        return mixed
    sampler = (
        PackedSampler(corpora[0], end_id=job.end_token_id, **common)
        if settings.sampling == "packed"
        else WindowSampler(corpora[0], mask_padding=settings.mask_padding, **common)
    )
    shards.start(first_needed(sources, [sampler.order], [len(corpora[0])]))
    return sampler


def first_needed(
    sources: Sequence[Sequence[TokenShard]], orders: Sequence[DocumentOrder], documents_per_epoch: Sequence[int]
) -> list[TokenShard]:
    """Shards in the order in which training needs them, block by block of each source's first epoch.

    Args:
        sources: The shards of each source.
        orders: Of each source.
        documents_per_epoch: How many documents of each source an epoch of the run takes.
    """
    blocks = [
        (start / per_epoch, number, block)
        for number, (order, per_epoch) in enumerate(zip(orders, documents_per_epoch, strict=True))
        for start, block in zip(order.block_starts(), order.blocks, strict=True)
    ]
    return [sources[number][shard] for _, number, block in sorted(blocks, key=lambda each: each[:2]) for shard in block]


def _check_ids(job: TrainJob, settings: TrainSettings) -> None:
    if settings.sampling != "mixed" and len(job.sources) != 1:
        raise InputError(f"Sampling {settings.sampling} takes one corpus, the job names {len(job.sources)}.")
    used = {"padding_token_id": job.padding_token_id}
    if settings.sampling == "packed":
        used["end_token_id"] = job.end_token_id
    for name, token in used.items():
        if token >= job.vocabulary_size:
            raise InputError(f"{name} is {token}, but the vocabulary ends at {job.vocabulary_size - 1}.")
