"""Which micro-batch fits into a GPU's memory, and at what price: nothing, logits in chunks, computing layers twice."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from components.common.errors import InputError
from components.train.planning.memory import Memory, Training, peak_memory, usable_bytes
from components.train.planning.node import Node
from components.train.planning.shape import ModelShape
from components.train.settings import TrainSettings

_CHUNK_TOKENS = 2048
# With fewer tokens in a pass a GPU waits for memory and for its neighbours more than it computes.
_ENOUGH_TOKENS = 2048


@dataclass(frozen=True)
class Fit:
    """A way to train, and what it takes on one GPU.

    Attributes:
        training: Micro-batch and means of saving memory.
        passes: Micro-batches that a GPU takes in a step.
        memory: At the fullest moment.
        fits: Whether a GPU has so much.
    """

    training: Training
    passes: int
    memory: Memory
    fits: bool


def as_set(shape: ModelShape, settings: TrainSettings, node: Node) -> Fit | None:
    """What the recipe's own micro-batch takes; none where the recipe leaves it to be found.

    Raises:
        InputError: The batch does not split over the GPUs.
    """
    share = share_of_a_gpu(settings, node)
    if settings.micro_batch_size == "auto":
        return None
    if share % settings.micro_batch_size:
        raise InputError(
            f"global_batch_size {settings.global_batch_size} over {node.gpus} GPUs is {share} each, which is not a "
            f"multiple of micro_batch_size {settings.micro_batch_size}: change one of them with --set."
        )
    return _fit(shape, _recipes_own(settings, node), settings.micro_batch_size, share, node)


def find_fit(shape: ModelShape, settings: TrainSettings, node: Node) -> Fit:
    """The largest micro-batch that fits, by the cheapest means that leave a GPU enough to do.

    Means are tried in the order of their price: the recipe's own, logits in chunks, recomputing every second layer,
    recomputing all of them, and that with chunks. What needs least is returned where nothing fits.

    Raises:
        InputError: The batch does not split over the GPUs.
    """
    share = share_of_a_gpu(settings, node)
    enough = min(share, max(1, _ENOUGH_TOKENS // settings.context_length))
    largest: list[Fit] = []
    for means in _means(_recipes_own(settings, node)):
        fits = [fit for size in _divisors(share) if (fit := _fit(shape, means, size, share, node)).fits]
        if fits and fits[-1].training.micro_batch >= enough:
            return fits[-1]
        largest += fits[-1:]
    if largest:
        return max(largest, key=lambda fit: fit.training.micro_batch)
    all_of_them = [
        _fit(shape, means, size, share, node)
        for means in _means(_recipes_own(settings, node))
        for size in _divisors(share)
    ]
    return min(all_of_them, key=lambda fit: fit.memory.total)


def share_of_a_gpu(settings: TrainSettings, node: Node) -> int:
    """Windows of a step that one GPU takes.

    Raises:
        InputError: The batch does not split over the GPUs.
    """
    if settings.global_batch_size % node.gpus:
        raise InputError(
            f"global_batch_size {settings.global_batch_size} does not split over {node.gpus} GPUs: change one of them."
        )
    return settings.global_batch_size // node.gpus


def _recipes_own(settings: TrainSettings, node: Node) -> Training:
    return Training(
        gpus=node.gpus,
        micro_batch=1,
        context=settings.context_length,
        compiled=settings.compile,
        checkpointing=settings.activation_checkpointing,
        chunk=settings.loss_chunk_tokens,
        number=2 if settings.precision == "bf16" else 4,
    )


def _means(own: Training) -> Iterator[Training]:
    chunk = own.chunk or _CHUNK_TOKENS
    yield own
    if own.chunk is None:
        yield replace(own, chunk=chunk)
    if own.checkpointing is None:
        yield replace(own, checkpointing="selective")
    if own.checkpointing != "full":
        yield replace(own, checkpointing="full")
        yield replace(own, checkpointing="full", chunk=chunk)


def _fit(shape: ModelShape, means: Training, size: int, share: int, node: Node) -> Fit:
    training = replace(means, micro_batch=size, accumulates=size < share)
    memory = peak_memory(shape, training)
    return Fit(training, share // size, memory, memory.total <= usable_bytes(node.memory_gib))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
