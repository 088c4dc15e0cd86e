"""Work that dies, hangs, or takes all memory on certain items; importable, so that it can travel to workers."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = list[str]


@dataclass(frozen=True)
class Trouble:
    """Doubles each item; an item that is a word of trouble makes it."""

    folder: str = ""

    def __call__(self, batch: Sequence[str]) -> Result:
        return [self.one(item) for item in batch]

    def give_up(self, item: str, reason: str, detail: str) -> Result:
        return [f"{item}: {reason} ({detail})"]

    def one(self, item: str) -> str:
        make_trouble(item, self.folder)
        return item * 2


def make_trouble(item: str, folder: str = "") -> None:
    if item.startswith("nap"):
        time.sleep(0.02)
    if item.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if item.startswith("once") and _first_time(item, folder):
        os.kill(os.getpid(), signal.SIGKILL)
    if item.startswith("exit"):
        os._exit(7)
    while item.startswith("hang"):
        pass
    if item.startswith("wait"):
        time.sleep(600)
    if item.startswith("memory"):
        hold = [bytes(50_000_000) for _ in range(1000)]
        raise AssertionError(f"{len(hold)} times 50 MB were to be had")
    if item.startswith("fault"):
        raise ZeroDivisionError(item)
    if item.startswith("unportable"):
        raise Unportable(1, 2)


def _first_time(item: str, folder: str) -> bool:
    path = Path(folder, item)
    if path.exists():
        return False
    path.touch()
    return True


class Unportable(Exception):
    """Cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("one text")


class Stubborn:
    """Cannot be unpickled in a worker: the import that it asks for ends the process."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)
