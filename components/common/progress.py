"""Progress of long work: a bar on a terminal, one log line every few seconds in a pod."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0
_T = TypeVar("_T")


def track(items: Iterable[_T], total: int | None = None, label: str = "Working", unit: str = "items") -> Iterator[_T]:
    """Yield the items and tell how far the work is.

    Args:
        items: What is worked on.
        total: How many there are; None when nobody knows.
        label: What is done, such as ``Extracting``.
        unit: What is counted, such as ``articles``.
    """
    if sys.stderr.isatty():
        from rich.progress import track as rich_track

        yield from rich_track(items, description=label, total=total, transient=True)
        return
    yield from _log_lines(items, total, label, unit)


def _log_lines(items: Iterable[_T], total: int | None, label: str, unit: str) -> Iterator[_T]:
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            log.info("%s", _line(label, unit, done, total, now - started))


def _line(label: str, unit: str, done: int, total: int | None, seconds: float) -> str:
    rate = done / seconds if seconds else 0.0
    if not total:
        return f"{label}: {done:,} {unit}, {rate:,.1f}/s"
    left = (total - done) / rate if rate else 0.0
    return f"{label}: {done:,} of {total:,} {unit} ({done / total:.0%}), {rate:,.1f}/s, {left:,.0f} s left"
