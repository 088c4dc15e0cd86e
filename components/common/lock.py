"""A lock in the store: of all processes, on any machine, one at a time changes what they share.

A claim is a file with a number, made only if nobody made it yet; the highest number holds the lock. Whoever wants it
makes the next number once the highest has been given back or its holder is dead, so of several that find a dead holder
at once, one gets the lock. The holder keeps giving signs of life in its own file, and nobody else writes to that.
"""

import contextlib
import logging
import os
import random
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from components.common import storage
from components.common.errors import StorageError
from components.common.processes import start_of, this_machine

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0  # between two signs of life
EXPIRY_SECONDS = 30.0  # without one, a holder counts as dead
PATIENCE_SECONDS = 900.0  # for a holder that lives
_LOOK_SECONDS = 0.2


class Claim(BaseModel):
    """What a numbered file says.

    Attributes:
        token: Of this claim, drawn at random.
        host: Name of the machine, for people.
        machine: Boot and process namespace, or empty.
        pid: Of the process.
        started: When it started, in clock ticks since boot.
        beat: Counts the signs of life.
        released: Whether it was given back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: str
    host: str
    machine: str
    pid: int
    started: int
    beat: int = 0
    released: bool = False

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"process {self.pid} on {self.host}"


class StoreLock:
    """The right to change what a place of the store stands for; a context manager.

    A holder that was killed is taken for dead at once if it was a process of this machine, else after EXPIRY_SECONDS
    without a sign of life, by this machine's clock: no two clocks are compared.
    """

    def __init__(self, uri: str, what: str, patience: float = PATIENCE_SECONDS) -> None:
        """Bind the folder that holds the claims.

        Args:
            uri: A folder of the store that holds nothing else.
            what: Is locked, for sentences, such as ``the model pmc-llama``.
            patience: Seconds to wait for one and the same living holder.
        """
        self._uri, self._what, self._patience = uri, what, patience
        self._claim = _claim_of_this_process()
        self._number = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take the lock, waiting for those who hold it.

        Raises:
            StorageError: A living process holds it for longer than the patience lasts; or the store cannot be used.
        """
        self._number = self._take()
        self._clear()
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._claim = self._claim.model_copy(update={"released": True})
        try:
            if self._is_newest():
                storage.write(self._file(self._number), self._record())
        except StorageError as problem:
            log.warning(
                "%s stays locked for %.0f s, as the lock was not given back: %s", self._what, EXPIRY_SECONDS, problem
            )

    def confirm(self) -> None:
        """Look whether the lock is still ours, before something is written that lasts.

        Raises:
            StorageError: Another process has taken it, because this one gave no sign of life.
        """
        if not self._is_newest():
            raise StorageError(
                f"{self._what.capitalize()} was locked by another process while this one stood still; run it again."
            )

    def _take(self) -> int:
        watch = _Watch()
        while True:
            newest = max(self._numbers(), default=0)
            holder = self._read(newest) if newest else None
            if newest and holder is None:
                continue  # it was cleared away: there is a higher number by now
            if holder is not None and not holder.released and not watch.is_dead(holder):
                if watch.seconds > self._patience:
                    raise StorageError(
                        f"{self._what.capitalize()} has been in use by {holder} for {watch.seconds / 60:.0f} minutes; "
                        "stop that process, or wait for it and run again."
                    )
                time.sleep(random.uniform(0.1, 1) * _LOOK_SECONDS)
                continue
            if holder is not None and not holder.released:
                log.warning("Taking the lock of %s over from %s, which has ended", self._what, holder)
            if self._create(newest + 1):
                return newest + 1

    def _create(self, number: int) -> bool:
        """Claim a number; False if somebody else did."""
        if not storage.create(self._file(number), self._record()):
            made = self._read(number)
            if made is None or made.token != self._claim.token:  # else our own request was repeated by the client
                return False
        # Whoever slept between looking and claiming may have made a number that had been and gone.
        if max(self._numbers(), default=0) == number:
            return True
        storage.delete(self._file(number))
        return False

    def _clear(self) -> None:
        """Delete the claims before ours; the lock is held whether or not that succeeds."""
        try:
            for old in self._numbers():
                if old < self._number:
                    storage.delete(self._file(old))
        except StorageError as problem:
            log.warning("Old claims on %s could not be deleted: %s", self._what, problem)

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(StorageError):  # confirm() tells, when it matters
                if self._is_newest():
                    self._claim = self._claim.model_copy(update={"beat": self._claim.beat + 1})
                    storage.write(self._file(self._number), self._record())

    def _is_newest(self) -> bool:
        return max(self._numbers(), default=0) == self._number

    def _numbers(self) -> list[int]:
        names = [
            storage.relative(entry.uri, self._uri).removesuffix(".json") for entry in storage.list_files(self._uri)
        ]
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, number: int) -> Claim | None:
        """What a claim says; None if it is not there."""
        try:
            return Claim.model_validate_json(storage.read(self._file(number)))
        except ValidationError:
            return Claim(token=str(number), host="an unknown machine", machine="", pid=0, started=0)
        except StorageError:
            if storage.exists(self._file(number)):
                raise
            return None

    def _file(self, number: int) -> str:
        return storage.join(self._uri, f"{number:012d}.json")

    def _record(self) -> bytes:
        return self._claim.model_dump_json().encode()


class _Watch:
    """Tells dead holders from living ones by what is seen of them."""

    def __init__(self) -> None:
        self._seen: Claim | None = None
        self._first = self._changed = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the present holder has been seen."""
        return time.monotonic() - self._first

    def is_dead(self, holder: Claim) -> bool:
        """Tell whether a holder has ended, or seems to have."""
        now = time.monotonic()
        if self._seen is None or self._seen.token != holder.token:
            self._first = self._changed = now
        elif self._seen.beat != holder.beat:
            self._changed = now
        self._seen = holder
        if holder.machine and holder.machine == this_machine() and start_of(holder.pid) != holder.started:
            return True
        return now - self._changed >= EXPIRY_SECONDS


def _claim_of_this_process() -> Claim:
    return Claim(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        started=start_of(os.getpid()),
    )
