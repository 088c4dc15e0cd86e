"""The GPUs of a planned run: `8xA100-80GB`."""

import re
from dataclasses import dataclass

from components.common.errors import InputError
from components.train.measuring.hardware import GPUS

_FORM = re.compile(r"(?P<gpus>[1-9]\d{0,4})x(?P<gpu>\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Node:
    """GPUs of one kind.

    Attributes:
        gpus: How many.
        gpu: Name of the kind.
        memory_gib: Of each, GiB.
        peak_tflops: Of each, dense bf16 TFLOP/s.
    """

    gpus: int
    gpu: str
    memory_gib: float
    peak_tflops: float


def parse_node(text: str, memory_gb: float | None = None, peak_tflops: float | None = None) -> Node:
    """The GPUs that a text such as `8xA100-80GB` names.

    Args:
        text: How many, `x`, and which.
        memory_gb: Memory of one GPU that is not known here, GiB; it also overrides a known one's.
        peak_tflops: Dense bf16 TFLOP/s of one, likewise.

    Raises:
        InputError: The text has another form, or the GPU is unknown and its memory or peak is not given.
    """
    match = _FORM.fullmatch(text.strip())
    names = ", ".join(gpu.name for gpu in GPUS)
    if match is None:
        raise InputError(f"The node {text!r} has not the form 8xA100-80GB: a number of GPUs, x, and one of {names}.")
    known = next((gpu for gpu in GPUS if gpu.name.lower() == match["gpu"].lower()), None)
    if known is None and (memory_gb is None or peak_tflops is None):
        raise InputError(
            f"The GPU {match['gpu']!r} is not known; known are {names}. For another one give both its dense bf16 peak "
            "(--peak-tflops) and its memory (--memory-gb)."
        )
    return Node(
        gpus=int(match["gpus"]),
        gpu=known.name if known else match["gpu"],
        memory_gib=memory_gb or (known.memory_gib if known else 0.0),
        peak_tflops=peak_tflops or (known.peak_tflops if known else 0.0),
    )
