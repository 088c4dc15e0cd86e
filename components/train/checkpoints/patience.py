"""How long a store that is away is asked again, while training goes on."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, sleep_using_event, wait_random_exponential

from components.common.errors import StorageError
from components.common.transport import classified

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_LONGEST_WAIT_SECONDS = 15.0


class Patience:
    """Repeats what failed because the store was away, until that has lasted too long or nobody wants it any more."""

    def __init__(self, seconds: float) -> None:
        """Bind how long the store may be away; 0 for a disk, whose faults stay."""
        self._seconds = seconds
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Let what is under way fail at once: the run ends."""
        self._abandoned.set()

    def check(self) -> None:
        """Fail if the run ends.

        Raises:
            StorageError: It does.
        """
        if self._abandoned.is_set():
            raise StorageError("The checkpoint under way was given up because the run ends.")

    def attempt(self, action: Callable[[], _T]) -> _T:
        """Do it, again if that can help.

        Raises:
            StorageError: It cannot be done: a full disk or a missing right at once, a store that is away in the end.
        """
        failing_since: list[float] = []

        def given_up(state: RetryCallState) -> bool:
            failed_at = state.outcome_timestamp or 0.0
            failing_since.append(failed_at)
            return self._abandoned.is_set() or failed_at - failing_since[0] >= self._seconds

        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_SECONDS),
            stop=given_up,
            sleep=sleep_using_event(self._abandoned),
            before_sleep=_warn,
            reraise=True,
        )
        return retrying(action)


def _may_pass(error: BaseException) -> bool:
    """Whether it is the fault of a store that is away or busy."""
    cause = error.__cause__
    if not isinstance(error, StorageError) or not isinstance(cause, Exception):
        return False
    return classified("", cause).retry


def _warn(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("A checkpoint waits for the store, training goes on: %s", error)
