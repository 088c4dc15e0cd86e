"""Throughput before latency, for as long as the work lasts."""

import gc
import os
import threading

import pytest

from components.common.throughput import for_throughput


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux only")
def test_threads_are_batch_workers_within_the_block_and_ordinary_ones_after_it() -> None:
    inside: list[int] = []
    go, running = threading.Event(), threading.Event()
    older = threading.Thread(target=lambda: (running.set(), go.wait(), inside.append(os.sched_getscheduler(0))))
    older.start()
    running.wait()
    with for_throughput():
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        go.set()
        older.join()
        younger = threading.Thread(target=lambda: inside.append(os.sched_getscheduler(0)))
        younger.start()
        younger.join()
    assert inside == [os.SCHED_BATCH, os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_the_garbage_collector_is_as_it_was_afterwards() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="work"), for_throughput():
        assert gc.get_threshold() != before
        raise ValueError("work")
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
