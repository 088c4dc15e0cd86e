"""What is known of GPUs: their memory and their dense bf16 peak; no torch."""

import logging
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        name: What a plan calls it.
        memory_gib: What CUDA shows of its memory, GiB: less than the name says.
        peak_tflops: Dense bf16 peak in TFLOP/s, from the vendor's data sheet; without sparsity.
        words: All of them occur in the name that CUDA gives the device.
    """

    name: str
    memory_gib: float
    peak_tflops: float
    words: tuple[str, ...]


# More particular ones first: the first whose words all occur is taken.
GPUS = (
    Gpu("A100-40GB", 39.4, 312.0, ("A100", "40GB")),
    Gpu("A100-80GB", 79.2, 312.0, ("A100",)),
    Gpu("H100-NVL-94GB", 93.1, 835.0, ("H100", "NVL")),
    Gpu("H100-PCIe-80GB", 79.1, 756.0, ("H100", "PCIe")),
    Gpu("H100-80GB", 79.1, 989.0, ("H100",)),
    Gpu("H200-141GB", 139.8, 989.0, ("H200",)),
    Gpu("L40S-48GB", 44.4, 362.0, ("L40S",)),
)


def peak_flops(peak_tflops: float | None, device_name: str | None) -> float | None:
    """Peak FLOP/s of one device: the recipe's, else by the GPU's name, else unknown, and then no MFU is logged.

    Args:
        peak_tflops: The setting of that name.
        device_name: What CUDA calls the GPU; none for a CPU.
    """
    if peak_tflops is not None:
        return peak_tflops * 1e12
    if device_name is None:
        return None
    for gpu in GPUS:
        if all(word in device_name for word in gpu.words):
            return gpu.peak_tflops * 1e12
    log.warning("The peak of %s is not known: no MFU. Set peak_tflops to get it.", device_name)
    return None
