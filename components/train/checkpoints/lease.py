"""One run at a time writes to a place: who holds it says so there, and keeps saying it."""

import logging
import os
import socket
import threading
import time
import uuid

from pydantic import BaseModel, ConfigDict, ValidationError

from components.common import storage
from components.common.errors import StorageError
from components.common.processes import start_of, this_machine

log = logging.getLogger(__name__)

BEAT_SECONDS = 15.0  # between two signs of life
EXPIRY_SECONDS = 60.0  # without one, a holder counts as dead
_LOOK_SECONDS = 1.0
_NAME = "OWNER"


class Holder(BaseModel):
    """Who holds a place.

    Attributes:
        token: Of this claim, drawn at random.
        run_id: The pipeline run, or empty.
        host: Name of the machine, for people.
        machine: Boot and process namespace: in it `pid` and `started` name a process without doubt; or empty.
        pid: Of the process.
        started: When it started, in clock ticks since boot.
        beat: Counts the signs of life.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: str
    run_id: str
    host: str
    machine: str
    pid: int
    started: int
    beat: int = 0

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"process {self.pid} on {self.host}" + (f" (pipeline run {self.run_id})" if self.run_id else "")


class Lease:
    """The right to write checkpoints to a place, and the thread that keeps it.

    A holder is taken for dead, and the place taken over, at once if it was a process of this machine that is gone, or
    if it belongs to the same pipeline run (its step was started again); else after EXPIRY_SECONDS without a sign of
    life, by this machine's clock: no two clocks are compared.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        """Bind the place; `run_id` names the pipeline run, if there is one."""
        self._place = uri
        self._uri = storage.join(uri, _NAME)
        self._holder = _this_process(run_id)
        self._lost_to: Holder | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def claim(self) -> None:
        """Take the place, waiting until it is clear whether its holder lives.

        Raises:
            StorageError: Another run holds it; or the store cannot be used.
        """
        first_seen, since = None, time.monotonic()
        while not storage.create(self._uri, self._record()):
            holder = self._read()
            if holder == self._holder:  # our own request was repeated by the client
                break
            if holder is None:
                continue
            if first_seen is None or holder.token != first_seen.token:
                first_seen, since = holder, time.monotonic()
            elif holder.beat != first_seen.beat:
                raise StorageError(
                    f"{self._place} is in use by {holder}, which trains the same model from the same data: wait for "
                    "it, or stop it, then run again."
                )
            if self._may_take(holder) or time.monotonic() - since >= EXPIRY_SECONDS:
                log.warning("Taking %s over from %s, which has ended or was replaced by this one", self._place, holder)
                storage.delete(self._uri)
            else:
                time.sleep(_LOOK_SECONDS)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Fail if another run has taken the place.

        Raises:
            StorageError: It has.
        """
        if self._lost_to is not None:
            raise StorageError(
                f"{self._place} was taken over by {self._lost_to}; this run stops so that the two don't mix."
            )

    def confirm(self) -> None:
        """Look whether the place is still ours, before something is written that lasts.

        Raises:
            StorageError: It is not; or the store cannot be read.
        """
        self._look()
        self.check()

    def release(self) -> None:
        """Give the place back."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        try:
            self._look()
            if self._lost_to is None:
                storage.delete(self._uri)
        except StorageError as error:
            log.warning("%s was not given back: %s", self._place, error)

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_SECONDS) and self._lost_to is None:
            try:
                self._look()
                if self._lost_to is None:
                    self._holder = self._holder.model_copy(update={"beat": self._holder.beat + 1})
                    storage.write(self._uri, self._record())
            except StorageError as error:
                log.warning("No sign of life could be given: %s", error)

    def _look(self) -> None:
        holder = self._read()
        if holder is not None and holder.token != self._holder.token:
            self._lost_to = holder

    def _may_take(self, holder: Holder) -> bool:
        mine = self._holder
        if holder.machine and holder.machine == mine.machine:
            return holder.pid == mine.pid or start_of(holder.pid) != holder.started
        return bool(holder.run_id) and holder.run_id == mine.run_id

    def _read(self) -> Holder | None:
        """Who holds the place; None if nobody does."""
        try:
            return Holder.model_validate_json(storage.read(self._uri))
        except ValidationError:
            return Holder(token="", run_id="", host="unknown", machine="", pid=0, started=0)
        except StorageError:
            if storage.exists(self._uri):
                raise
            return None

    def _record(self) -> bytes:
        return self._holder.model_dump_json().encode()


def _this_process(run_id: str) -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        run_id=run_id,
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        started=start_of(os.getpid()),
    )
