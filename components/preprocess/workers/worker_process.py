"""One worker process, as the step that started it sees it."""

import contextlib
import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, TypeVar

from components.preprocess.workers.worker import Answer

_START_SECONDS = 120.0
_END_SECONDS = 5.0
# A worker's clock counts CPU time. This is for one that waits for what never comes.
_WALL_SECONDS_PER_CPU_SECOND = 10
# A worker's libraries are not to start threads (the processes fill the CPUs), nor to keep memory in several places.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_Task = TypeVar("_Task")


class WorkerProcess(Generic[_Task]):
    """A process with a pipe of its own and at most one task.

    Attributes:
        task: What it works on, None when it waits for work.
        connection: Where its messages come in.
        ready: Whether it has started.
        tasks: How many tasks it was given.
        deadline: When it must have answered, by `time.monotonic`.
    """

    def __init__(self, orders: bytes, seconds: float) -> None:
        """Start a process.

        Args:
            orders: What `orders` returned.
            seconds: How much CPU time it may spend on a task.
        """
        self.task: _Task | None = None
        self.ready, self.tasks = False, 0
        self.deadline = time.monotonic() + _START_SECONDS
        self._seconds, self._items = seconds, b""
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "components.preprocess.workers.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(place or "." for place in sys.path)},
            )
        self._send(orders)

    def give(self, task: _Task, items: Any) -> None:
        """Hand over a task; one that is still starting gets it afterwards."""
        self.task, self._items = task, bytes(ForkingPickler.dumps(items))
        self.tasks += 1
        if self.ready:
            self._begin()

    def started(self) -> None:
        """Note that it is ready, and hand over the task that waits for it."""
        self.ready = True
        if self.task is not None:
            self._begin()

    def answer(self) -> tuple[Answer, Any] | None:
        """Return its message, None when it has ended."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):  # also in the middle of a message
            return None

    def end(self, at_once: bool = True) -> int:
        """End the process and return its exit code; unless `at_once`, it is given the time to end by itself."""
        self.connection.close()
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_END_SECONDS)
        self._process.kill()
        return self._process.wait()

    def _begin(self) -> None:
        items, self._items = self._items, b""
        self.deadline = time.monotonic() + self._seconds * _WALL_SECONDS_PER_CPU_SECOND
        self._send(items)

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # it has ended, as its next answer tells
            self.connection.send_bytes(message)


def orders(work: Any, memory_bytes: int, seconds: float) -> bytes:
    """Return the first message to a worker: what it does, and within which limits."""
    return bytes(ForkingPickler.dumps((work, memory_bytes, seconds)))
