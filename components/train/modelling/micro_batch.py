"""The micro-batch: as set, or the largest that memory holds, found before training."""

import gc
import logging
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from components.common.errors import InputError
from components.train.distributed import Layout
from components.train.modelling.loss import window_loss
from components.train.modelling.sharding import synchronise_gradients
from components.train.settings import TrainingSettings

log = logging.getLogger(__name__)

# The rest is left free: for the allocator's gaps, NCCL's buffers and what differs from one step to the next.
_USABLE_MEMORY = 0.92
# A CPU computes no faster with more tokens at a time, and this is long before its memory is full.
_CPU_TOKENS = 8192

# (windows, passes) -> bytes beyond what may be used, in the worst process; negative is room.
Excess = Callable[[int, int], int]


def find_micro_batch(
    model: PreTrainedModel,
    optimiser: torch.optim.Optimizer,
    settings: TrainingSettings,
    width: int,
    layout: Layout,
) -> int:
    """Windows in one forward and backward pass, equal in all processes; every process must call this.

    For `auto` on GPUs, passes with random tokens are measured, from one window up. A size is only tried when the two
    before it predict that it fits: a process that runs out of memory would leave the others waiting for it. On CPUs
    it is the largest size of at most 8,192 tokens. Weights, gradients, optimiser and random generators are left as
    they were.

    Args:
        model: The sharded model.
        optimiser: Of the model; states that it does not have yet are counted.
        settings: `micro_batch_size`, `global_batch_size`, `loss_chunk_tokens`, `compile`.
        width: Tokens in a window.
        layout: The processes.

    Returns:
        `micro_batch_size`, or for `auto` a divisor of a process's share of the global batch.

    Raises:
        InputError: Not even one window fits.
    """
    if settings.micro_batch_size != "auto":
        return settings.micro_batch_size
    share = settings.global_batch_size // layout.world
    if layout.device.type == "cpu":
        size = max(size for size in _divisors(share) if size == 1 or size * width <= _CPU_TOKENS)
    else:
        size = largest_that_fits(share, _excess_on_gpu(model, optimiser, settings, width, layout))
        if settings.compile:
            # Having seen several sizes, the compiler takes the size for a variable: the chosen one is to be constant.
            torch.compiler.reset()
    log.info("micro_batch_size auto: %d windows of %d tokens, %d times a step", size, width, share // size)
    return size


def largest_that_fits(share: int, excess: Excess) -> int:
    """The largest divisor of `share` that needs no more memory than there is.

    Several micro-batches in a step need more than one of the same size: whole gradients wait from one to the next. So
    the whole share may fit where its half does not.

    Args:
        share: Windows of a process in a step.
        excess: Measures; with 0 windows, the memory before any pass.

    Raises:
        InputError: Not even one window fits.
    """
    known = {0: excess(0, 0)}
    for size in _divisors(share):
        if len(known) > 1 and _predict(known, size) > 0:
            break
        known[size] = excess(size, 1)
        if known[size] > 0:
            break
    if known.get(share, 1) <= 0:
        return share
    accumulating = excess(1, 2) - known[1] if known[1] <= 0 else 0
    for size in sorted(known.keys() - {0, share}, reverse=True):
        if known[size] + accumulating <= 0 and excess(size, 2) <= 0:
            return size
    raise InputError(
        f"Not even a micro-batch of one window fits into the memory, {max(known[1] + accumulating, 1):,} bytes are "
        "missing: use more or larger GPUs, LoRA, activation_checkpointing: full, or loss_chunk_tokens."
    )


def run_passes(
    model: PreTrainedModel, settings: TrainingSettings, size: int, passes: int, width: int, layout: Layout
) -> None:
    """Forward and backward passes over random tokens, as in a step; leaves no trace but in the peak of memory."""
    devices = [] if layout.device.type == "cpu" else [layout.device]
    with torch.random.fork_rng(devices):
        for number in range(1, passes + 1):
            synchronise_gradients(model, number == passes)
            tokens = torch.randint(model.config.vocab_size, (size, width), device=layout.device)
            window_loss(model, tokens, tokens, settings.loss_chunk_tokens).backward()
    model.zero_grad(set_to_none=True)


def pending_state_bytes(optimiser: torch.optim.Optimizer) -> int:
    """Memory of this process that AdamW takes in its first step: two fp32 numbers for each trained weight."""
    parameters = (parameter for group in optimiser.param_groups for parameter in group["params"])
    return sum(2 * 4 * _local(parameter).numel() for parameter in parameters if not optimiser.state.get(parameter))


def _excess_on_gpu(
    model: PreTrainedModel, optimiser: torch.optim.Optimizer, settings: TrainingSettings, width: int, layout: Layout
) -> Excess:
    def excess(size: int, passes: int) -> int:
        _empty_caches()
        torch.cuda.reset_peak_memory_stats(layout.device)
        free, _ = torch.cuda.mem_get_info(layout.device)
        usable = int(_USABLE_MEMORY * (free + torch.cuda.memory_reserved(layout.device)))
        try:
            run_passes(model, settings, size, passes, width, layout)
        except torch.OutOfMemoryError as error:
            # The sharded model is in the middle of a pass, and other processes may be too: there is no way back.
            raise InputError(
                f"micro_batch_size auto ran out of memory with {size} windows: set a smaller number. ({error})"
            ) from error
        needed = torch.cuda.max_memory_reserved(layout.device) + pending_state_bytes(optimiser)
        _empty_caches()
        torch.cuda.reset_peak_memory_stats(layout.device)
        worst = torch.tensor(needed - usable, dtype=torch.int64)
        dist.all_reduce(worst, op=dist.ReduceOp.MAX, group=layout.patient_group)
        return int(worst.item())

    return excess


def _empty_caches() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _predict(known: dict[int, int], size: int) -> int:
    """On the line through the two largest sizes measured; through 0 and 1 it is rather too high than too low."""
    (before, low), (last, high) = sorted(known.items())[-2:]
    return high + (high - low) * (size - last) // (last - before)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
