"""Which shards are on this node and checked: told by files, so that all processes of the node know.

One process of a node fetches, all wait for what it says. What an earlier attempt said is forgotten: its copies are
checked again.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from components.common.errors import InputError, PipelineError, StorageError, TrainingError

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.02
_SILENT_SECONDS = 5.0
_REASON_BYTES = 4096  # kept free, so that a full disk can be told of
_ERRORS: dict[str, type[PipelineError]] = {error.__name__: error for error in (InputError, StorageError)}


class Shelf:
    """A folder with a mark for each shard that is here and checked, or the reason why the run must end."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        """Name the folder of the marks, and the shards' files."""
        self._marks = folder / "marks"
        self._mark_of = {file: self._marks / f"{number:06d}" for number, file in enumerate(files)}
        self._failure = self._marks / "failure.json"
        self._reserve = self._marks / "reserve"
        self._process = self._marks / "process"

    def clear(self) -> None:
        """Forget everything; from now on this process puts shards on the shelf. No other may look meanwhile."""
        shutil.rmtree(self._marks, ignore_errors=True)
        self._marks.mkdir(parents=True)
        self._process.write_text(str(os.getpid()))
        self._reserve.write_bytes(b" " * _REASON_BYTES)

    def put(self, file: Path) -> None:
        """Say that a shard is here and checked."""
        self._mark_of[file].touch()

    def fail(self, error: BaseException) -> None:
        """Say why the run must end, to all processes of the node; the first reason stays."""
        if self._failure.exists():
            return
        with self._reserve.open("r+") as reserve:
            reserve.write(json.dumps({"error": type(error).__name__, "message": str(error)}))
        self._reserve.replace(self._failure)

    def check(self) -> None:
        """Raise what ended the fetching, if something did.

        Raises:
            InputError: A shard is missing or is not what its manifest says.
            StorageError: The store or the disk refused.
            TrainingError: Something unforeseen.
        """
        if not self._failure.exists():
            return
        failure = json.loads(self._failure.read_text())
        if kind := _ERRORS.get(failure["error"]):
            raise kind(failure["message"])
        raise TrainingError(f"Fetching token shards failed with {failure['error']}: {failure['message']}.")

    def wait_for(self, files: Sequence[Path]) -> None:
        """Return when these shards are here.

        Raises:
            InputError: A shard, these or another, is missing or is not what its manifest says.
            StorageError: The store or the disk refused.
            TrainingError: The process that fetches has ended.
        """
        since = last = time.monotonic()
        for file in files:
            while not self._mark_of[file].exists():
                self.check()
                self._check_process()
                if time.monotonic() - last > _SILENT_SECONDS:
                    last = time.monotonic()
                    log.info("Waiting for token shard %s, %.0f s so far", file.name, last - since)
                time.sleep(_POLL_SECONDS)
        self.check()

    def _check_process(self) -> None:
        try:
            os.kill(int(self._process.read_text()), 0)
        except ProcessLookupError:
            self.check()
            raise TrainingError("The process that fetches the token shards of this node has ended.") from None
