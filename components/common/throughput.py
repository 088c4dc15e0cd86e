"""Work where only the whole counts: many threads, short tasks, and nobody who waits for a single one of them."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

_THREADS = Path("/proc/self/task")
_YOUNG_OBJECTS = 1_000_000


@contextlib.contextmanager
def for_throughput() -> Iterator[None]:
    """Let threads run on instead of interrupting each other, and look for garbage less often.

    Hundreds of threads that each wake for a few microseconds keep taking the processor from the one that packs. Linux's
    SCHED_BATCH (sched(7); no privilege is needed) stops that; on two cores it is worth a seventh of the time. Threads
    that start within the block inherit it. Elsewhere than on Linux, or where it is forbidden, nothing changes.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *before[1:])
    _schedule("SCHED_BATCH")
    try:
        yield
    finally:
        _schedule("SCHED_OTHER")
        gc.set_threshold(*before)
        gc.unfreeze()


def _schedule(policy: str) -> None:
    if not hasattr(os, policy) or not _THREADS.is_dir():
        return
    for thread in _THREADS.iterdir():
        # A thread may have ended meanwhile, and a sandbox may not allow it.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(thread.name), getattr(os, policy), os.sched_param(0))
