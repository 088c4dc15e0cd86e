"""Reading millions of small objects: many at a time, no faster than the server likes, tried again where that helps.

obstore's blocking calls in threads, not its coroutines: the requests run in Rust either way, and a thread costs a
third of the Python time of a task of asyncio (docs/benchmarks.md).
"""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import md5
from itertools import islice
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore
from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, wait_random_exponential

from components.common.pmc.settings import TransportSettings

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")

_STATUS = re.compile(r"status(?: code)?:? (\d{3})|HTTP error:? (\d{3})|\b(4\d\d|5\d\d) [A-Z][a-z]+")
_PERMANENT_CLIENT_ERRORS = range(400, 500)
_RETRIED_CLIENT_ERRORS = {408, 425, 429}
_THROTTLED = {429, 503}
# A server that is broken, not busy, is not asked again and again for every one of millions of objects.
_FREE_RETRIES, _RETRIES_PER_REQUEST = 200, 0.2
_PATIENCE_SECONDS = 300.0


class FetchError(Exception):
    """An object could not be read: ``reason`` is a word to count by, ``detail`` what exactly was seen."""

    def __init__(self, reason: str, detail: str, retry: bool = False, throttled: bool = False) -> None:
        """Bind what happened, whether trying again can help, and whether the server asked for fewer requests."""
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.retry, self.throttled = reason, detail, retry, throttled


class Transport:
    """Reads objects of one store, from any number of threads."""

    def __init__(self, store: ObjectStore, settings: TransportSettings) -> None:
        """Bind a store, whose own retries should be off, and the limits."""
        self.store, self._settings = store, settings
        self.throttle = Throttle(settings.concurrency)
        self.requests = self.retries = 0
        # Set when nobody waits for the results any more.
        self._abandoned = threading.Event()
        self._retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.retry),
            wait=wait_random_exponential(multiplier=0.1, max=settings.longest_backoff_seconds),
            stop=self._give_up,
            sleep=sleep_using_event(self._abandoned),
            reraise=True,
        )

    def get(self, key: str, use: Callable[[memoryview], _R], most_bytes: int = 0) -> _R:
        """Read an object.

        Args:
            key: Its key in the store.
            use: Makes of its bytes what is wanted; a :class:`FetchError` of it (another checksum, no JSON) is a failed
                read. The bytes lie where the client left them: a copy would cost as much as their checksum.
            most_bytes: A larger object is refused unread; 0 for no limit.

        Returns:
            What ``use`` returned.

        Raises:
            FetchError: The object is not there, or did not come as it should however often it was tried.
        """
        return self.attempt(lambda: use(_read(self.store, key, most_bytes)))

    def attempt(self, request: Callable[[], _R]) -> _R:
        """Do a request in its turn, again where that can help; it raises :class:`FetchError` when it fails."""
        attempts = _Attempts(self, request)
        try:
            result: _R = attempts()
        except FetchError as error:
            if not error.retry:
                raise
            # Nearly all objects come at once: only the others pay for the machinery, which starts from this failure.
            attempts.first = error
            result = self._retrying(attempts)
        return result

    def map(self, work: Callable[[_T], _R], items: Iterable[_T], threads: int = 0, batch: int = 1) -> Iterator[_R]:
        """Yield ``work(item)`` of each item, in their order; only a few wait at a time, so memory stays flat.

        Args:
            work: Called in threads.
            items: What to work on.
            threads: How many; 0 for the recipe's ``concurrency``.
            batch: How many items a thread takes at once: handing over small ones singly costs more than their work.
        """
        waiting: deque[Future[list[_R]]] = deque()
        threads = threads or self._settings.concurrency
        rest = iter(items)
        self._abandoned.clear()
        with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
            try:
                while taken := list(islice(rest, batch)):
                    waiting.append(pool.submit(self._work_on, work, taken))
                    if len(waiting) >= threads + threads // 8:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            except BaseException:
                # The threads must not go on trying for minutes what nobody wants any more.
                self._abandoned.set()
                raise
            finally:
                for future in waiting:
                    future.cancel()

    def once(self, request: Callable[[], _R]) -> _R:
        """Do a request once, in its turn."""
        turn, throttled = self.throttle.enter(), False
        self.requests += 1
        try:
            return request()
        except FetchError as error:
            throttled = error.throttled
            raise
        finally:
            self.throttle.answered(turn, throttled)

    def _work_on(self, work: Callable[[_T], _R], items: list[_T]) -> list[_R]:
        return [work(item) for item in items if not self._abandoned.is_set()]

    def _give_up(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        attempts = state.fn
        if not isinstance(error, FetchError) or not isinstance(attempts, _Attempts) or self._abandoned.is_set():
            return True
        if error.throttled:
            return (state.seconds_since_start or 0) > _PATIENCE_SECONDS
        self.retries += 1
        if self.retries > _FREE_RETRIES + _RETRIES_PER_REQUEST * self.requests:
            return True
        return attempts.failures >= self._settings.attempts


class _Attempts:
    """One request, with the number of times that it failed; each call is a try."""

    def __init__(self, transport: Transport, request: Callable[[], Any]) -> None:
        self._transport, self._request = transport, request
        self.failures = 0
        self.first: FetchError | None = None

    def __call__(self) -> Any:
        if self.first is not None:
            error, self.first = self.first, None
            raise error
        try:
            return self._transport.once(self._request)
        except FetchError as error:
            self.failures += not error.throttled
            raise


class Throttle:
    """How many requests may be open: half of them when the server says slow down, one more for each round of answers.

    Additive increase, multiplicative decrease, as TCP does (Chiu and Jain, 1989). While the server keeps up there is
    nothing to hold back, and so nothing is counted and no lock taken.
    """

    def __init__(self, most: int) -> None:
        """Start with ``most``, which is how many threads there are."""
        self._most = self.limit = float(most)
        self._counted = 0
        self._cut_at = 0.0
        self._changed = threading.Condition()

    def enter(self) -> tuple[float, bool]:
        """Wait until a request may be sent; returns when it began, and whether it is counted."""
        if self.limit >= self._most:
            return time.monotonic(), False
        with self._changed:
            self._changed.wait_for(lambda: self._counted < self.limit)
            self._counted += 1
        return time.monotonic(), True

    def answered(self, request: tuple[float, bool], throttled: bool) -> None:
        """Take note of an answer; a request that began before the last cut says nothing new."""
        began, counted = request
        if not counted and not throttled:
            return
        with self._changed:
            self._counted -= counted
            if not throttled:
                self.limit = min(self._most, self.limit + 1 / self.limit)
            elif began > self._cut_at:
                self.limit, self._cut_at = max(1.0, self.limit / 2), time.monotonic()
                log.info("The server asks to slow down: at most %d requests at a time", self.limit)
            self._changed.notify_all()


def with_md5(expected: str, key: str) -> Callable[[memoryview], memoryview]:
    """Return a ``use`` for :meth:`Transport.get` that lets only these bytes pass."""

    def check(data: memoryview) -> memoryview:
        found = md5(data, usedforsecurity=False).hexdigest()
        if found != expected:
            raise FetchError("md5-mismatch", f"{key} has MD5 {found}, not {expected}", retry=True)
        return data

    return check


def first_words(text: str) -> str:
    """Return what a person can use of an error's text: one line, without the client's own debugging."""
    return " ".join(text.partition("Debug source:")[0].split())[:500]


def _read(store: ObjectStore, key: str, most_bytes: int) -> memoryview:
    try:
        result = obstore.get(store, key)
        if most_bytes and result.meta["size"] > most_bytes:
            raise FetchError("too-large", f"{key} has {result.meta['size']:,} bytes")
        return memoryview(result.bytes())
    except (BaseError, OSError) as error:
        raise classified(key, error) from error


def classified(key: str, error: Exception) -> FetchError:
    """Tell what an error of the client means; obstore gives the status of an answer only in its text."""
    text = str(error)
    detail = f"{key}: {first_words(text)}"
    if isinstance(error, NotFoundError | FileNotFoundError):
        return FetchError("missing", f"there is no {key}")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return FetchError("forbidden", detail)
    found = _STATUS.search(text)
    status = int(next(group for group in found.groups() if group)) if found else 0
    if status in _THROTTLED or "SlowDown" in text:
        return FetchError("throttled", detail, retry=True, throttled=True)
    if status in _PERMANENT_CLIENT_ERRORS and status not in _RETRIED_CLIENT_ERRORS:
        return FetchError(f"http-{status}", detail)
    return FetchError(f"http-{status}" if status else "unreadable", detail, retry=True)
