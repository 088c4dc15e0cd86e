"""The same work on many items in a few threads, for work that waits for the store."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from components.common.progress import track

_T = TypeVar("_T")


def for_each(action: Callable[[_T], Any], items: Sequence[_T], threads: int, label: str, unit: str) -> None:
    """Do something with every item, in no particular order, and show how far it is.

    Args:
        action: What is done with an item; what it returns is thrown away, so nothing piles up.
        items: What is worked on.
        threads: How many items are worked on at a time.
        label: What is done, such as ``Reading texts``.
        unit: What is counted, such as ``shards``.

    Raises:
        Exception: What the first failing action raised; what has not begun by then is not begun any more.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="for-each") as pool:
        futures = [pool.submit(_discard, action, item) for item in items]
        try:
            for future in track(as_completed(futures), len(futures), label, unit):
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _discard(action: Callable[[_T], Any], item: _T) -> None:
    action(item)
