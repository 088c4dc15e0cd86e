"""Being stopped: SIGTERM remembered, and whether it means that the run is over."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from components.common.cluster.connection import PODS, Cluster
from components.common.errors import ClusterError

log = logging.getLogger(__name__)


class Stopped(Exception):
    """SIGTERM came."""


@contextlib.contextmanager
def sigterm_told(tell: Callable[[Exception], None]) -> Iterator[None]:
    """Have SIGTERM put :class:`Stopped` where the step waits; only a main thread can be told."""
    if current_thread() is not main_thread():
        yield
        return

    def receive(_number: int, _frame: FrameType | None) -> None:
        tell(Stopped())

    previous: Any = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def step_moves(cluster: Cluster) -> bool:
    """Whether this step's pod is taken away by the cluster (drain, preemption), so that the step will be run again.

    A run that is terminated is not like that, and neither is one that is deleted; where it cannot be known, the run
    counts as terminated: a job that nobody follows must not hold GPUs, and one that was deleted has its checkpoint.
    """
    name = os.environ.get("KFP_POD_NAME") or socket.gethostname()
    try:
        found = cluster.get(PODS, name)
    except ClusterError as error:
        log.warning("Cannot see why the step is stopped: %s", error)
        return False
    conditions = ((found or {}).get("status") or {}).get("conditions") or []
    return any(each["type"] == "DisruptionTarget" and each["status"] == "True" for each in conditions)
