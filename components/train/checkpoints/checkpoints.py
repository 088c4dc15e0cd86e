"""Checkpoints: torch's distributed format, in the artifact store, with a marker written last.

    checkpoints/OWNER                           the run that writes here, see lease.py
    checkpoints/step-00000100/rank-00000.bin    what the first process holds of weights and moments, one after the other
    checkpoints/step-00000100/index.json        which tensor lies where, and a hash of each piece
    checkpoints/step-00000100/history.jsonl     what every step up to here measured
    checkpoints/step-00000100/COMPLETE          written last, with sizes: without it the rest is as good as not there

The step and the learning rate, the order of documents, the windows and the dropout are pure functions of the history's
length: there is nothing else to restore. A checkpoint can be loaded by another number of processes.
"""

import logging
import time
from types import TracebackType
from typing import Self

import torch

from components.common import storage
from components.common.errors import StorageError
from components.common.settings import get_settings
from components.train.checkpoints.history import History
from components.train.checkpoints.lease import Lease
from components.train.checkpoints.marker import Marker
from components.train.checkpoints.patience import Patience
from components.train.checkpoints.places import MARKER, step_uri
from components.train.checkpoints.resuming import load_newest
from components.train.checkpoints.retention import prune
from components.train.checkpoints.saving import Commit, Save, build_stager
from components.train.checkpoints.state import TrainingState
from components.train.checkpoints.writer import StoreWriter
from components.train.distributed import Layout
from components.train.settings import TrainingSettings

log = logging.getLogger(__name__)

_LAST_WORDS_SECONDS = 10.0


class Checkpoints:
    """The checkpoints of one run, which nobody else writes while this is open.

    Saving holds the loop up only while the state is copied to main memory; the rest is done by a thread. If the store
    is away, that thread tries for `checkpoint_retry_minutes` while training goes on, and then the run fails.
    """

    def __init__(self, uri: str, settings: TrainingSettings, layout: Layout) -> None:
        """Keep checkpoints under `uri`; on `file://` that folder must be shared by all nodes."""
        self._uri = uri
        self._settings = settings
        self._layout = layout
        self._lease = Lease(uri, get_settings().run_id)
        on_disk = uri.startswith(storage.FILE_SCHEME)
        self._patience = Patience(0 if on_disk else settings.checkpoint_retry_minutes * 60)
        self._stager = build_stager(layout.device)
        self._under_way: Save | None = None
        self._skipped_for: Save | None = None
        self._last_save = time.monotonic()
        self._commits: list[Commit] = []

    def __enter__(self) -> Self:
        """Claim the place; raises StorageError if another run holds it."""
        if self._layout.is_first:
            self._lease.claim()
        self._layout.wait_for_all()
        return self

    def __exit__(
        self, failure: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back; a run that failed does not hang in a save."""
        try:
            if failure is None:
                self.finish()
        finally:
            self._give_up()
            self._stager.close()
            self._lease.release()

    def resume(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> History:
        """Load the newest checkpoint that is complete and intact into model and optimiser.

        Returns:
            What the steps so far measured; empty if there is no checkpoint and the run starts.

        Raises:
            StorageError: There are checkpoints but none is intact; or the store cannot be read.
        """
        return load_newest(self._uri, lambda: TrainingState(model, optimiser), self._layout)

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint after so many steps; decided by the first process's clock.

        Not while one is under way: then this one is left out. To be asked after every step by every process.

        Raises:
            StorageError: The checkpoint before could not be stored; or another run has taken the place.
        """
        if self._under_way is not None and self._under_way.done:
            self.finish()
        self._lease.check()
        every, minutes = self._settings.checkpoint_every_steps, self._settings.checkpoint_minutes
        by_steps = every is not None and step % every == 0
        by_time = minutes is not None and time.monotonic() - self._last_save >= minutes * 60
        if (by_steps or by_time) and self._under_way is not None:
            self._tell_skipped(step)
            return False
        return by_steps or by_time

    def save(
        self,
        model: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        history: History,
        epoch_end: bool = False,
    ) -> None:
        """Start a checkpoint of the state after `len(history)` steps; wait for one that is still under way.

        Raises:
            StorageError: The checkpoint before this one could not be stored.
        """
        started = time.monotonic()
        self.finish()
        step, layout = len(history), self._layout

        def commit(marker: Marker) -> None:
            self._commit(marker, started)

        uri = step_uri(self._uri, step)
        writer = StoreWriter(uri, layout.rank, list(history), epoch_end, self._patience, commit)
        tensors = TrainingState(model, optimiser).tensors
        self._under_way = Save(step, uri, tensors, writer, self._stager, layout.checkpoint_group)
        self._last_save = time.monotonic()

    def finish(self) -> None:
        """Wait until the checkpoint under way is complete.

        Raises:
            StorageError: It could not be stored.
        """
        if self._under_way is None:
            return
        save, self._under_way = self._under_way, None
        try:
            save.wait()
        except StorageError:
            self._clear_disk(save.step)
            raise

    def commits(self) -> list[Commit]:
        """The checkpoints completed since this was last asked; in the first process, none in the others."""
        commits, self._commits = self._commits, []
        return commits

    def _commit(self, marker: Marker, started: float) -> None:
        """Make a checkpoint count, in the first process, when all its files are stored."""
        uri = storage.join(step_uri(self._uri, marker.step), MARKER)
        self._patience.attempt(self._lease.confirm)
        self._patience.attempt(lambda: storage.write(uri, marker.model_dump_json().encode()))
        seconds = time.monotonic() - started
        self._commits.append(Commit(marker.step, seconds, marker.bytes))
        log.info(
            "Saved checkpoint %s: %.1f MB in %.1f s", step_uri(self._uri, marker.step), marker.bytes / 1e6, seconds
        )
        prune(self._uri, self._settings.keep_checkpoints, self._settings.keep_epoch_checkpoints)

    def _clear_disk(self, step: int) -> None:
        """Free what a save that failed has taken of a disk, which may be full; in a bucket the next run clears it."""
        if self._layout.is_first and self._uri.startswith(storage.FILE_SCHEME):
            storage.delete_prefix(step_uri(self._uri, step))

    def _tell_skipped(self, step: int) -> None:
        save = self._under_way
        if save is not None and save is not self._skipped_for:
            self._skipped_for = save
            log.warning("No checkpoint after step %d: that of step %d is still being stored.", step, save.step)

    def _give_up(self) -> None:
        """Let a save under way end, or end it."""
        if self._under_way is None:
            return
        try:
            self._under_way.wait(_LAST_WORDS_SECONDS)
        except TimeoutError:
            self._patience.abandon()
        except StorageError as error:
            log.warning("%s", error)
