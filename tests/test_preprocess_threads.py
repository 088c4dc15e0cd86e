"""Work in a few threads: all of it is done, and the first failure ends it."""

import threading
import time

import pytest

from components.preprocess.deduplication.threads import for_each


def test_every_item_is_worked_on_once_by_as_many_threads_as_are_asked_for() -> None:
    done: list[int] = []
    busy, most = 0, 0
    lock = threading.Lock()

    def work(item: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.005)
        with lock:
            busy -= 1
            done.append(item)

    for_each(work, range(50), 3, "Working", "items")
    assert sorted(done) == list(range(50))
    assert most == 3


def test_the_first_failure_is_raised_and_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)
        if item == 5:
            raise ValueError("item 5 is bad")

    with pytest.raises(ValueError, match="item 5 is bad"):
        for_each(work, range(500), 2, "Working", "items")
    assert len(begun) < 50


def test_nothing_to_do_is_fine() -> None:
    for_each(print, [], 2, "Working", "items")
