"""What a step measures, and its way to MLflow without holding up the next step."""

import logging
import math
import queue
import threading
import time
from collections.abc import Mapping

import torch
from transformers import PretrainedConfig

from components.common.tracking import Run
from components.train.settings import TrainSettings

log = logging.getLogger(__name__)

# Dense bf16 peak of one device in TFLOP/s, from the vendor's data sheets; matched by a part of the device's name.
PEAK_TFLOPS = {"A100": 312.0, "H100 NVL": 835.0, "H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0, "L40S": 362.0}

_FLUSH_SECONDS = 2.0


class Meter:
    """Turns a step's raw numbers into what is logged, with throughput since the step before."""

    def __init__(self, flops_per_token: float, peak_flops: float | None, world: int, device: torch.device) -> None:
        """Start the clock; both FLOP numbers are those of one device, no peak means no MFU."""
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._world = world
        self._device = device
        self._last = time.perf_counter()

    def measure(self, loss: float, gradient_norm: float, learning_rate: float, tokens: int) -> dict[str, float]:
        """Metrics of the step that has just ended.

        Args:
            loss: Mean cross entropy per counted target, natural logarithm.
            gradient_norm: Total L2 norm before any clipping.
            learning_rate: Of this step.
            tokens: In this step's windows, padding included, over all processes.
        """
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        tokens_per_second = tokens / seconds
        metrics = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700)),
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "seconds": seconds,
            "tokens_per_second": tokens_per_second,
            "tokens_per_second_per_device": tokens_per_second / self._world,
        }
        if self._peak_flops is not None:
            metrics["mfu"] = tokens_per_second * self._flops_per_token / (self._world * self._peak_flops)
        if self._device.type == "cuda":
            metrics["gpu_memory_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        return metrics


class MetricBuffer:
    """Sends metrics from a thread, many steps in one request: SQLite or a far server never slows the loop.

    A tracking server that fails costs the metrics, with a warning, and not the run.
    """

    def __init__(self, run: Run) -> None:
        """Start the thread that sends to this run."""
        self._run = run
        self._queue: queue.SimpleQueue[tuple[int, dict[str, float]]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="metrics", daemon=True)
        self._thread.start()

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Take the metrics of a step; returns at once."""
        self._queue.put((step, metrics))

    def close(self) -> None:
        """Send what is left and end the thread."""
        self._closing.set()
        self._thread.join()

    def _drain(self) -> None:
        while not self._closing.wait(_FLUSH_SECONDS):
            self._send()
        self._send()

    def _send(self) -> None:
        points: list[tuple[int, Mapping[str, float]]] = []
        while not self._queue.empty():
            points.append(self._queue.get())
        if not points:
            return
        try:
            self._run.log_metric_points(points)
        except Exception as error:  # noqa: BLE001 - whatever the tracking client raises must not end a run of days
            log.warning("MLflow did not take the metrics of steps %d to %d: %s", points[0][0], points[-1][0], error)


def flops_per_token(config: PretrainedConfig, parameters: int, context: int) -> float:
    """FLOPs of forward and backward pass for one token: 6 N + 12 L H Q T.

    N parameters, L layers, H heads of dimension Q, T tokens of context. Source: PaLM (arXiv 2204.02311), appendix B;
    recomputation is not counted, nor is causality. For LLaMA-7B at 512 the attention term adds 2%.
    """
    head_dimension = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * head_dimension * context
    return float(6 * parameters + attention)


def peak_flops(settings: TrainSettings, device: torch.device) -> float | None:
    """Peak FLOP/s of one device: the setting, else by the GPU's name, else unknown and no MFU is logged."""
    if settings.peak_tflops is not None:
        return settings.peak_tflops * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for part, tflops in PEAK_TFLOPS.items():
        if all(word in name for word in part.split()):
            return tflops * 1e12
    log.warning("The peak of %s is not known: no MFU. Set peak_tflops to get it.", name)
    return None


def describe(step: int, steps: int, steps_per_epoch: int, metrics: dict[str, float]) -> str:
    """One log line."""
    mfu = f", MFU {metrics['mfu']:.1%}" if "mfu" in metrics else ""
    return (
        f"Step {step}/{steps}, epoch {step / steps_per_epoch:.2f}: loss {metrics['loss']:.4f}, "
        f"gradient norm {metrics['gradient_norm']:.3f}, learning rate {metrics['learning_rate']:.2e}, "
        f"{metrics['tokens_per_second']:,.0f} tokens/s{mfu}"
    )
