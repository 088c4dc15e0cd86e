"""Which checkpoints stay."""

import logging

from components.common.errors import StorageError
from components.train.checkpoints.marker import DamagedError, read_marker
from components.train.checkpoints.places import (
    MARKER,
    complete_steps,
    delete_checkpoint,
    started_steps,
    step_uri,
    stored_files,
)

log = logging.getLogger(__name__)


def prune(uri: str, keep: int, keep_epochs: bool) -> None:
    """Delete all complete checkpoints but the newest; those of an epoch's end stay if they are to be kept.

    Args:
        uri: Of the checkpoints.
        keep: How many of the newest stay.
        keep_epochs: Whether those saved at the end of an epoch stay too.
    """
    try:
        found = stored_files(uri)
        complete = sorted(step for step, files in found.items() if MARKER in files)
        for step in complete[:-keep]:
            if not (keep_epochs and _ends_epoch(uri, step, found[step])):
                delete_checkpoint(uri, step)
    except StorageError as error:
        # What was just saved is safe: too many old ones must not end the run.
        log.warning("Old checkpoints were not deleted: %s", error)


def delete_incomplete(uri: str) -> None:
    """Delete what runs that were killed in the middle of a checkpoint left behind."""
    for step in sorted(started_steps(uri) - set(complete_steps(uri))):
        log.warning("Deleting incomplete checkpoint %s", step_uri(uri, step))
        delete_checkpoint(uri, step)


def _ends_epoch(uri: str, step: int, files: dict[str, int]) -> bool:
    try:
        return read_marker(uri, step, files).epoch_end
    except DamagedError:
        return False
