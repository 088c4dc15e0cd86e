"""Batches drawn in a thread while the device computes."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Self

from components.train.data.batches import StepBatch, step_batch
from components.train.data.sampler import Sampler
from components.train.data.schedule import Plan

_AHEAD = 2  # steps
_POLL_SECONDS = 0.1
_LONGEST_END_SECONDS = 5.0


class Prefetcher(Iterator[StepBatch]):
    """The batches of a run's steps, in order, drawn up to two steps ahead.

    What goes wrong in the thread is raised where the step's batch is asked for: the steps before it are unaffected.

    Attributes:
        waited_seconds: How long the last batch kept the caller waiting.
    """

    def __init__(
        self,
        plan: Plan,
        sampler: Sampler,
        first_step: int,
        size: int,
        rank: int,
        world: int,
        pin_memory: bool = False,
    ) -> None:
        """Say what to draw; it begins with the ``with`` block.

        Args:
            plan: The course of the run.
            sampler: Gives the windows; only the thread may use it from now on.
            first_step: Step of the first batch, from 0.
            size: Windows in a micro-batch.
            rank: Of this process.
            world: How many processes there are.
            pin_memory: Put the batches into pinned memory, from where a GPU copies them while it computes.
        """
        self.waited_seconds = 0.0
        self._steps = range(first_step, plan.steps)
        self._draw = lambda step: step_batch(plan, sampler, step, size, rank, world)
        self._pin_memory = pin_memory
        self._drawn: Queue[StepBatch | Exception | None] = Queue(_AHEAD)
        self._stop = Event()
        # A daemon: a draw that waits for a shard must not keep a failed process alive.
        self._thread = Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, failure: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        with contextlib.suppress(Empty):
            while True:
                self._drawn.get_nowait()
        self._thread.join(_LONGEST_END_SECONDS)

    def __next__(self) -> StepBatch:
        """The next step's batch.

        Raises:
            InputError: A shard is missing or is not what its manifest says.
        """
        began = time.perf_counter()
        batch = self._drawn.get()
        self.waited_seconds = time.perf_counter() - began
        if isinstance(batch, StepBatch):
            return batch
        self._put(batch)  # asked again, it says the same
        if batch is None:
            raise StopIteration
        raise batch

    def _run(self) -> None:
        try:
            for step in self._steps:
                if not self._put(self._pinned(self._draw(step))):
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001 - the caller raises it
            self._put(error)

    def _put(self, batch: StepBatch | Exception | None) -> bool:
        """Wait for room; False when nobody wants more."""
        while not self._stop.is_set():
            with contextlib.suppress(Full):
                self._drawn.put(batch, timeout=_POLL_SECONDS)
                return True
        return False

    def _pinned(self, batch: StepBatch) -> StepBatch:
        if not self._pin_memory:
            return batch
        pairs = [(tokens.pin_memory(), targets.pin_memory()) for tokens, targets in batch.micro_batches]
        return replace(batch, micro_batches=pairs)
