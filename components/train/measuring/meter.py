"""Turns the raw numbers of a step into metrics: throughput, waits, memory, time left, cost."""

import contextlib
import math
import resource
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from components.train.data.schedule import Plan
from components.train.distributed import Layout
from components.train.measuring.flops import model_flops_per_token
from components.train.measuring.hardware import peak_flops
from components.train.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_REMEMBERED = 200  # steps whose times the percentiles are of


def build_meter(
    model: "PreTrainedModel", settings: TrainingSettings, layout: Layout, plan: Plan, history: list[dict[str, Any]]
) -> "Meter":
    """The meter for a model on these devices, after the steps in `history`; its clock starts at once."""
    name = torch.cuda.get_device_name(layout.device) if layout.device.type == "cuda" else None
    flops = model_flops_per_token(model, settings.context_length)
    meter = Meter(plan, layout, flops, peak_flops(settings.peak_tflops, name))
    meter.seconds_before = sum(record["seconds"] for record in history)
    return meter


class Meter:
    """Turns a step's raw numbers into what is logged.

    Attributes:
        seconds_before: What earlier processes of this run took for the steps that count.
    """

    def __init__(self, plan: Plan, layout: Layout, flops_per_token: float, peak_flops: float | None) -> None:
        """Start the clock.

        Args:
            plan: The course of the run, with its settings.
            layout: The processes.
            flops_per_token: Of forward and backward pass.
            peak_flops: Of one device, per second; none means no MFU.
        """
        self.seconds_before = 0.0
        self._plan = plan
        self._layout = layout
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._started = self._last = time.perf_counter()
        self._second: tuple[int, float] | None = None
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)

    def measure(
        self,
        step: int,
        loss: float,
        gradient_norm: float,
        learning_rate: float,
        tokens: int,
        waited: float = 0.0,
        skipped: int = 0,
    ) -> dict[str, float]:
        """Metrics of the step that has just ended; every process must call this after every step.

        Every `log_every_steps` steps, and after the first and the last, the processes exchange five numbers each and
        the metrics of all of them are added.

        Args:
            step: From 1.
            loss: Mean cross entropy per counted target, natural logarithm.
            gradient_norm: Total L2 norm before any clipping.
            learning_rate: Of this step.
            tokens: In this step's windows, padding included, over all processes.
            waited: Seconds that this process waited for its batch.
            skipped: Steps left out so far.
        """
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._seconds.append(seconds)
        self._waits.append(waited)
        settings = self._plan.settings
        metrics = {
            "loss": loss,
            "perplexity": perplexity(loss),
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "seconds": seconds,
            "epoch": step / self._plan.steps_per_epoch,
            "skipped_steps": float(skipped),
            **self._throughput(tokens, seconds),
        }
        if self._second is None:
            self._second = step, now
        if step == 1 or step % settings.log_every_steps == 0 or step == self._plan.steps:
            metrics |= self._of_all_processes() | self._time_and_cost(step, now)
        return metrics

    @contextlib.contextmanager
    def aside(self, name: str, metrics: dict[str, float]) -> Iterator[None]:
        """Time something between steps, such as a checkpoint: it joins `metrics` and is part of no step's seconds."""
        started = time.perf_counter()
        yield
        metrics[name] = time.perf_counter() - started
        self._last += metrics[name]

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPS utilisation at that throughput of all devices together; None where their peak is unknown."""
        if self._peak_flops is None:
            return None
        return tokens_per_second / self._layout.world * self._flops_per_token / self._peak_flops

    def _throughput(self, tokens: int, seconds: float) -> dict[str, float]:
        rate = tokens / seconds
        found = {"tokens_per_second": rate, "tokens_per_second_per_device": rate / self._layout.world}
        mfu = self.mfu(rate)
        return found if mfu is None else found | {"mfu": mfu}

    def _of_all_processes(self) -> dict[str, float]:
        """Step times, waits and memory over all processes, of the last steps."""
        p50, p95 = np.percentile(self._seconds, [50, 95])
        wait_share = sum(self._waits) / sum(self._seconds)
        mine = torch.tensor([p50, p95, max(self._seconds), wait_share, self._memory_peak()], dtype=torch.float64)
        everyone = [torch.empty_like(mine) for _ in range(self._layout.world)]
        # Over gloo, between host memories, at a moment when all have just met: it waits for no device.
        dist.all_gather(everyone, mine, group=self._layout.patient_group)
        table = torch.stack(everyone)
        slowest = table.amax(dim=0).tolist()
        return {
            "step_seconds_p50": float(p50),
            "step_seconds_p95": float(p95),
            "step_seconds_max": max(self._seconds),
            "step_seconds_p50_slowest_process": slowest[0],
            "step_seconds_p95_slowest_process": slowest[1],
            "step_seconds_max_slowest_process": slowest[2],
            "data_wait_share": table[:, 3].mean().item(),
            "data_wait_share_slowest_process": slowest[3],
            "memory_peak_gib": slowest[4],
        }

    def _memory_peak(self) -> float:
        """GiB: what torch held at most on the GPU; without one, what the process held at most in memory."""
        if self._layout.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._layout.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def _time_and_cost(self, step: int, now: float) -> dict[str, float]:
        first, since = self._second or (step, now)
        # The first step compiles and warms up: it says nothing of those to come, unless it is all there is.
        each = (now - since) / (step - first) if step > first else now - self._started
        left = each * (self._plan.steps - step)
        found = {"seconds_left": left}
        price = self._plan.settings.gpu_hour_price
        if price is not None:
            dearness = price * self._layout.world / 3600
            found["cost_so_far"] = (self.seconds_before + now - self._started) * dearness
            found["cost_to_come"] = left * dearness
        return found


def held_out(loss: float) -> dict[str, float]:
    """Metrics of a measurement on held-out windows.

    Args:
        loss: Mean cross entropy per counted target, natural logarithm.
    """
    return {"validation_loss": loss, "validation_perplexity": perplexity(loss)}


def perplexity(loss: float) -> float:
    """The exponential of a loss; finite for every finite loss, since no database keeps an infinity."""
    return math.exp(min(loss, 700)) if not math.isnan(loss) else loss


def describe(step: int, steps: int, steps_per_epoch: int, metrics: dict[str, float]) -> str:
    """One log line."""
    mfu = f", MFU {metrics['mfu']:.1%}" if "mfu" in metrics else ""
    left = f", {_duration(metrics['seconds_left'])} left" if metrics.get("seconds_left") else ""
    cost = f", cost {metrics['cost_so_far']:,.2f} so far" if "cost_so_far" in metrics else ""
    return (
        f"Step {step}/{steps}, epoch {step / steps_per_epoch:.2f}: loss {metrics['loss']:.4f}, "
        f"gradient norm {metrics['gradient_norm']:.3f}, learning rate {metrics['learning_rate']:.2e}, "
        f"{metrics['tokens_per_second']:,.0f} tokens/s{mfu}{left}{cost}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
