"""The way of metrics to MLflow, without holding up the next step."""

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator, Mapping

from components.common import tracking
from components.common.tracking import Run
from components.train.checkpoints.history import RECORDED, History
from components.train.checkpoints.saving import Commit
from components.train.distributed import Layout

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 2.0
_EVERY_STEP_HAS = "loss"


@contextlib.contextmanager
def metric_buffer(layout: Layout) -> Iterator["MetricBuffer"]:
    """The way to MLflow: the first process's run, nothing in the others."""
    with tracking.worker_run() if layout.is_first else contextlib.nullcontext(Run(None, "")) as run:
        buffer = MetricBuffer(run)
        try:
            yield buffer
        finally:
            buffer.close()


class MetricBuffer:
    """Sends metrics from a thread, many steps in one request: SQLite or a far server never slows the loop.

    A run that was killed goes on at its last checkpoint and repeats the steps after it. MLflow has those already and
    would keep them twice, so steps up to the last one that it has are left out. A tracking server that fails costs the
    metrics, with a warning, and not the run.
    """

    def __init__(self, run: Run) -> None:
        """Start the thread that sends to this run."""
        self._run = run
        self._queue: queue.SimpleQueue[tuple[int, dict[str, float]]] = queue.SimpleQueue()
        self._known: int | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="metrics", daemon=True)
        self._thread.start()

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Take the metrics of a step, all at once and in the order of steps; returns at once."""
        self._queue.put((step, dict(metrics)))

    def replay(self, history: History) -> None:
        """Give a new MLflow run what the steps before it measured; a run that goes on has them already."""
        for record in history:
            self.add(record["step"], {name: record[name] for name in RECORDED if record.get(name) is not None})

    def add_commits(self, commits: list[Commit]) -> None:
        """Take what is known of checkpoints that are complete now."""
        for commit in commits:
            self.add(commit.step, {"checkpoint_commit_seconds": commit.seconds, "checkpoint_bytes": commit.bytes})

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
            if self._known is None:
                # Asked by this thread, so that a server that is slow to answer holds up nothing.
                self._known = self._run.last_step(_EVERY_STEP_HAS)
            self._run.log_metric_points([point for point in points if point[0] > self._known])
        except Exception as error:  # noqa: BLE001 - whatever the tracking client raises must not end a run of days
            log.warning("MLflow did not take the metrics of steps %d to %d: %s", points[0][0], points[-1][0], error)
