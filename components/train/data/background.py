"""Token shards come while the model trains: threads that fetch and check them, what is needed first coming first."""

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Event, Lock, Thread

from components.train.data.fetch import FetchStopped
from components.train.data.shelf import Shelf

log = logging.getLogger(__name__)

_MOST_THREADS = 8  # downloading, hashing and looking for the largest id all release the interpreter lock
_SECONDS_BETWEEN_LINES = 30.0
_LONGEST_END_SECONDS = 10.0


class BackgroundFetch:
    """Threads that put shards on the shelf."""

    def __init__(self, fetch: Callable[[Path, Event], None], shelf: Shelf) -> None:
        """Say how.

        Args:
            fetch: Brings and checks one shard; returns early with FetchStopped when the event is set.
            shelf: Learns what is here.
        """
        self._fetch = fetch
        self._shelf = shelf
        self._waiting: dict[Path, None] = {}  # in the order in which they are fetched
        self._lock = Lock()
        self._stop = Event()
        self._threads: list[Thread] = []
        self._began = self._told = time.monotonic()
        self._total = self._done = 0

    def start(self, files: Iterable[Path]) -> None:
        """Fetch these, in this order."""
        self._waiting = dict.fromkeys(files)
        self._total = len(self._waiting)
        count = min(_MOST_THREADS, len(os.sched_getaffinity(0)), self._total)
        self._threads = [Thread(target=self._run, name=f"fetch-{number}", daemon=True) for number in range(count)]
        atexit.register(self.close)  # a daemon thread that is cut off inside a client library may abort the process
        for thread in self._threads:
            thread.start()

    def bring_forward(self, files: Sequence[Path]) -> None:
        """Fetch these before all others, unless they are here or on their way."""
        with self._lock:
            first = dict.fromkeys(file for file in files if file in self._waiting)
            self._waiting = first | self._waiting

    def close(self) -> None:
        """Fetch nothing more."""
        self._stop.set()
        deadline = time.monotonic() + _LONGEST_END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (file := self._next()) is not None:
            try:
                self._fetch(file, self._stop)
                self._shelf.put(file)
            except FetchStopped:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the processes that wait raise it
                self._shelf.fail(error)
                self._stop.set()
                return
            self._tell()

    def _next(self) -> Path | None:
        with self._lock:
            file = None if self._stop.is_set() else next(iter(self._waiting), None)
            if file is not None:
                del self._waiting[file]
            return file

    def _tell(self) -> None:
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if self._done == self._total:
                log.info("All %d token shards are here and checked, after %.0f s", self._total, now - self._began)
            elif now - self._told > _SECONDS_BETWEEN_LINES:
                self._told = now
                log.info("%d of %d token shards are here and checked", self._done, self._total)


class NodeArrivals:
    """What a corpus asks: every process waits for the shelf, the one that fetches also brings forward.

    Meets `components.train.data.corpus.Arrivals`.
    """

    def __init__(self, shelf: Shelf, fetching: BackgroundFetch | None) -> None:
        """Take the node's shelf, and the threads where they run in this process."""
        self._shelf = shelf
        self._fetching = fetching

    def expect(self, files: Sequence[Path]) -> bool:
        """Ask for shards next; they have not been asked for before."""
        if self._fetching is not None:
            self._fetching.bring_forward(files)
        return True

    def wait_for(self, files: Sequence[Path]) -> None:
        """Return when shards are here; raise InputError as soon as any of all the shards cannot be used."""
        self._shelf.wait_for(files)
