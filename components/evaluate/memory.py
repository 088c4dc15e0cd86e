"""How much goes through the model at once, and what happens when it was too much."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from components.common.errors import PipelineError

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Larger batches are no faster: on a CPU they leave its caches, on a GPU all its units are busy already.
_CPU_TOKENS = 2048
_MOST_GPU_TOKENS = 65536
_LEAST_GPU_TOKENS = 1024
_SHARE_OF_FREE_MEMORY = 0.5


def tokens_at_once(model: PreTrainedModel) -> int:
    """Return how many tokens a batch may have on the model's device.

    On a GPU it follows from the memory that is free now: a layer keeps about 12 hidden states and 4 states of its
    feed-forward part alive for each token.
    """
    if model.device.type != "cuda":
        return _CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(model.device)
    config = model.config.get_text_config()
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    each = model.dtype.itemsize * (12 * hidden + 4 * inner)
    return min(max(int(_SHARE_OF_FREE_MEMORY * free / each), _LEAST_GPU_TOKENS), _MOST_GPU_TOKENS)


def halving(
    batch: Sequence[_Item], run: Callable[[Sequence[_Item]], list[_Result]], halved: Callable[[], None], what: str
) -> list[_Result]:
    """Run a batch; one that does not fit into memory is run in two halves, and so on.

    Args:
        batch: What is run.
        run: Gives results of a batch.
        halved: Called whenever a batch was too large.
        what: What one item is, for the message.

    Raises:
        PipelineError: One item alone does not fit.
    """
    try:
        return run(batch)
    except (torch.OutOfMemoryError, MemoryError) as error:
        reason = _first_line(error)
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        reason = _first_line(error)
    # Out of the handlers, so that the failed pass's tensors, which its traceback holds, are gone.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(batch) == 1:
        raise PipelineError(
            f"There is not enough memory for a single {what} ({reason}); run the evaluation where there is more."
        )
    halved()
    log.warning("A batch of %d did not fit into memory (%s); going on with half as many", len(batch), reason)
    middle = (len(batch) + 1) // 2
    return [*halving(batch[:middle], run, halved, what), *halving(batch[middle:], run, halved, what)]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
