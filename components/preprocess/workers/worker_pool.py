"""Work on batches in several processes, of which each may die, hang or run out of memory without harm to the rest.

Each worker has a pipe of its own and one task at a time, so it is always known what a worker that ends was doing. The
pools of Python's library and of pebble share a pipe and its locks among the workers: one that is killed with a lock in
its hands leaves the others waiting for ever, and of one that is killed while it fetches a task nobody knows the task.
"""

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Generic, Protocol, TypeVar

from components.common.errors import PipelineError
from components.preprocess.workers.worker import Answer
from components.preprocess.workers.worker_process import WorkerProcess, orders

log = logging.getLogger(__name__)

WORKER_KILLED, TOO_SLOW, OUT_OF_MEMORY = "worker-killed", "too-slow", "out-of-memory"
"""Why an item is given up."""

_FAILED_STARTS = 3
_NAMED = 3

_Item = TypeVar("_Item")
_Item_contra = TypeVar("_Item_contra", contravariant=True)
_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)


class Work(Protocol[_Item_contra, _Result_co]):
    """Work on a batch; it is pickled for the workers, so its class and what it holds are importable."""

    def __call__(self, batch: Sequence[_Item_contra], /) -> _Result_co:
        """Work on a batch, in a worker."""

    def give_up(self, item: _Item_contra, reason: str, detail: str, /) -> _Result_co:
        """Return what stands for an item that no worker survives; called in the step."""


@dataclass(frozen=True)
class Limits:
    """How much a pool may take.

    Attributes:
        processes: Workers at a time.
        memory_mb: Millions of bytes for each of them.
        seconds: Of CPU time for one item. A batch gets no more: when it takes longer, its items are tried one by one.
        losses: How many workers may end before their time until the pool stops. An item that ends every worker costs
            two or three.
    """

    processes: int
    memory_mb: int
    seconds: float
    losses: int


@dataclass(frozen=True)
class Names(Generic[_Item]):
    """How messages call the place the items are from, and an item, and how many bytes they say it has."""

    place: str
    name: Callable[[_Item], str]
    size: Callable[[_Item], int]


def in_workers(
    work: Work[_Item, _Result], batches: Iterator[list[_Item]], limits: Limits, names: Names[_Item]
) -> Generator[_Result, None, None]:
    """Yield the results of the batches in their order.

    When a worker dies, hangs or runs out of memory, the items of its batch are tried one by one. An item that does it
    again, alone and in a fresh worker, is given up. Such a batch has several results, one for each item. Only a few
    batches and results are in memory at a time. Close the iterator (`contextlib.closing`) so that the workers end.

    Args:
        work: The work on one batch.
        batches: Lists of items.
        limits: What it may take.
        names: For messages.

    Raises:
        PipelineError: Workers can't start, or too many of them ended.
        Exception: What the work raises, other than MemoryError.
    """
    pool = _Pool(work, batches, limits, names)
    try:
        while pool.fill():
            pool.assign()
            pool.listen()
            # The workers go on while the caller deals with the results.
            pool.assign()
            yield from pool.finished()
    finally:
        pool.end()


@dataclass(eq=False)
class _Slot(Generic[_Result]):
    """The place of a batch's results in the order."""

    parts: list[_Result | None] = field(default_factory=lambda: [None])
    missing: int = 1


@dataclass(eq=False)
class _Task(Generic[_Item, _Result]):
    """A batch, or one item of a batch that failed."""

    items: list[_Item]
    slot: _Slot[_Result]
    part: int = 0
    tries: int = 0
    wants_fresh_worker: bool = False


class _Pool(Generic[_Item, _Result]):
    def __init__(
        self, work: Work[_Item, _Result], batches: Iterator[list[_Item]], limits: Limits, names: Names[_Item]
    ) -> None:
        self._work, self._batches, self._limits, self._names = work, batches, limits, names
        self._orders = orders(work, limits.memory_mb * 1_000_000, limits.seconds)
        self._workers: list[WorkerProcess[_Task]] = []
        self._queue: deque[_Task[_Item, _Result]] = deque()
        self._slots: deque[_Slot[_Result]] = deque()
        self._most_slots = limits.processes + limits.processes // 2 + 2
        self._losses = self._failed_starts = 0
        self._lost: deque[str] = deque(maxlen=_NAMED)

    def fill(self) -> bool:
        """Take more batches in, as many as may be waiting; tells whether there is anything left to do."""
        while len(self._slots) < self._most_slots and (batch := next(self._batches, None)) is not None:
            slot = _Slot[_Result]()
            self._slots.append(slot)
            self._queue.append(_Task(batch, slot))
        return bool(self._slots)

    def assign(self) -> None:
        """Give the tasks in the queue to workers that have none."""
        while self._queue and (worker := self._free_worker(self._queue[0].wants_fresh_worker)):
            task = self._queue.popleft()
            worker.give(task, task.items)

    def listen(self) -> None:
        """Wait for answers, or until a worker's time is over."""
        deadline = min((worker.deadline for worker in self._workers if worker.task), default=time.monotonic())
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(by_connection, max(0.0, deadline - time.monotonic())):
            self._hear(by_connection[connection])  # type: ignore[index]
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.task and worker.deadline <= now]:
            self._lose(worker, TOO_SLOW, f"more than {self._limits.seconds:g} s")

    def finished(self) -> Iterator[_Result]:
        """Yield the results that are next in the order."""
        while self._slots and not self._slots[0].missing:
            yield from self._slots.popleft().parts  # type: ignore[misc]

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _free_worker(self, fresh: bool) -> WorkerProcess[_Task] | None:
        idle = [worker for worker in self._workers if worker.task is None]
        if fresh and idle and len(self._workers) == self._limits.processes:
            idle[0].end()
            self._workers.remove(idle[0])
        if idle and not fresh:
            return idle[0]
        if len(self._workers) >= self._limits.processes:
            return None
        self._workers.append(WorkerProcess(self._orders, self._limits.seconds))
        return self._workers[-1]

    def _hear(self, worker: WorkerProcess[_Task]) -> None:
        answer = worker.answer()
        if answer is None:
            code = worker.end(at_once=False)
            if code == -signal.SIGPROF:
                self._lose(worker, TOO_SLOW, f"more than {self._limits.seconds:g} s")
            else:
                self._lose(worker, WORKER_KILLED, _ending(code))
            return
        kind, value = answer
        if kind is Answer.READY:
            self._failed_starts = 0
            worker.started()
        elif kind is Answer.NO_MEMORY:
            self._lose(worker, OUT_OF_MEMORY, f"more than {self._limits.memory_mb} MB")
        elif kind is Answer.FAILED:
            error, trace = value
            error.add_note(f"In a worker process:\n{trace}")
            raise error
        elif worker.task:
            self._settle(worker.task, value)
            worker.task = None

    def _settle(self, task: _Task[_Item, _Result], result: _Result) -> None:
        task.slot.parts[task.part] = result
        task.slot.missing -= 1

    def _lose(self, worker: WorkerProcess[_Task], reason: str, seen: str) -> None:
        """Go on without a worker; what it had to do is tried again or given up."""
        self._workers.remove(worker)
        worker.end()
        task = worker.task
        if not worker.ready:
            self._note_failed_start(task, seen)
            return
        self._losses += 1
        if task:
            self._retry(task, reason, seen, in_fresh_worker=worker.tasks == 1)
        if self._losses > self._limits.losses:
            raise self._too_many_losses()

    def _retry(self, task: _Task[_Item, _Result], reason: str, seen: str, in_fresh_worker: bool) -> None:
        first = task.items[0]
        what = self._names.name(first)
        if len(task.items) == 1:
            seen += f", {self._names.size(first):,} bytes"
        else:
            what = f"{len(task.items)} articles from {what} to {self._names.name(task.items[-1])}"
        self._lost.append(f"{what} ({reason}: {seen})")
        log.warning("A worker was lost on %s (%s: %s).", what, reason, seen)
        if task.tries == 0:
            slot = task.slot
            slot.parts, slot.missing = [None] * len(task.items), len(task.items)
            alone = [_Task([item], slot, part, tries=1) for part, item in enumerate(task.items)]
            self._queue.extendleft(reversed(alone))
        # CPU time is the same in every worker, but an old one may have been short of memory, or some other's victim.
        elif in_fresh_worker or reason == TOO_SLOW:
            self._settle(task, self._work.give_up(first, reason, seen))
        else:
            self._queue.appendleft(_Task(task.items, task.slot, task.part, task.tries + 1, wants_fresh_worker=True))

    def _note_failed_start(self, task: _Task[_Item, _Result] | None, seen: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _FAILED_STARTS:
            raise PipelineError(
                f"The worker processes for {self._names.place} end before they start ({seen}, more in the log above); "
                f"give the pod more memory, or raise preprocess.workers.memory_mb (now {self._limits.memory_mb})."
            )
        if task:
            self._queue.appendleft(task)

    def _too_many_losses(self) -> PipelineError:
        limits = self._limits
        return PipelineError(
            f"{self._losses} worker processes were lost on {self._names.place}, the last of them on "
            f"{'; '.join(self._lost) or 'nothing: they were idle'}; give the pod more memory, or change "
            f"preprocess.workers: fewer processes (now {limits.processes}), more memory_mb (now {limits.memory_mb}) "
            f"or more article_seconds (now {limits.seconds:g})."
        )


def _ending(code: int) -> str:
    """Say in words how a process ended."""
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    # The kernel's OOM killer sends the first, a C or Rust library that gets no memory the second.
    likely = ", most likely out of memory" if -code in (signal.SIGKILL, signal.SIGABRT) else ""
    return f"killed by {name}{likely}"
