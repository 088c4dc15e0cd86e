"""Finds the newest checkpoint that is whole, and loads it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

from components.common.errors import StorageError
from components.train.checkpoints.history import History, from_json_lines
from components.train.checkpoints.index import Index, parse_index
from components.train.checkpoints.marker import HISTORY, INDEX, DamagedError, read_marker, read_part
from components.train.checkpoints.places import complete_steps, delete_checkpoint, step_uri, stored_files
from components.train.checkpoints.reader import StoreReader
from components.train.checkpoints.retention import delete_incomplete
from components.train.checkpoints.state import TrainingState
from components.train.distributed import Layout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may be loaded, or why it may not."""

    step: int
    index: Index
    history: History
    damage: str = ""


def load_newest(uri: str, look: Callable[[], TrainingState], layout: Layout) -> History:
    """Load the newest checkpoint that is complete and intact; every process must call this.

    One that is damaged is refused with a warning and the one before taken; it is deleted when that one is loaded.

    Args:
        uri: Of the checkpoints.
        look: Gives the state to load into. Only called if there is something to load: it makes an optimiser's moments
            by a step without gradients, and a run that starts must not count that step.
        layout: The processes.

    Returns:
        The records of the steps so far; empty if no checkpoint was ever completed.

    Raises:
        StorageError: There are checkpoints but none is intact; or the store cannot be read.
    """
    if layout.is_first:
        delete_incomplete(uri)
    damaged: dict[int, str] = {}
    for step in _from_first(layout, lambda: complete_steps(uri)[::-1]):
        candidate: Candidate = _from_first(layout, lambda step=step: _examine(uri, step))
        damage = candidate.damage or _load(uri, candidate, look(), layout)
        if not damage:
            log.info("Resumed from %s", step_uri(uri, step))
            if layout.is_first:
                for each in damaged:
                    delete_checkpoint(uri, each)
            return candidate.history
        damaged[step] = damage
        log.warning("The checkpoint %s is damaged (%s); trying the one before.", step_uri(uri, step), damage)
    if damaged:
        culprits = "; ".join(f"step {step}: {damage}" for step, damage in damaged.items())
        raise StorageError(
            f"No checkpoint in {uri} is intact ({culprits}); restore one, or delete {uri} to train from the start."
        )
    return []


def _examine(uri: str, step: int) -> Candidate:
    try:
        marker = read_marker(uri, step, stored_files(uri)[step])
        index = parse_index(read_part(uri, marker, INDEX))
        return Candidate(step, index, from_json_lines(read_part(uri, marker, HISTORY).decode()))
    except DamagedError as error:
        return Candidate(step, Index(tensors={}), [], str(error))


def _load(uri: str, candidate: Candidate, state: TrainingState, layout: Layout) -> str:
    """Load it; returns what is damaged about it, or nothing."""
    try:
        dcp.load(
            state.tensors,
            storage_reader=StoreReader(step_uri(uri, candidate.step), candidate.index),
            planner=DefaultLoadPlanner(flatten_state_dict=False),
            process_group=layout.checkpoint_group,
        )
    except CheckpointException as error:  # no Exception: a handler of those would not see it
        causes = [cause for cause, _ in error.failures.values()]
        if all(isinstance(cause, DamagedError) for cause in causes):
            return str(causes[0])
        other = next(cause for cause in causes if not isinstance(cause, DamagedError))
        raise StorageError(f"{step_uri(uri, candidate.step)} cannot be loaded: {other}") from error
    state.restore()
    return ""


def _from_first(layout: Layout, ask: Any) -> Any:
    """What the first process finds out; the others may not have seen the same state of the store."""
    answer = [ask() if layout.is_first else None]
    dist.broadcast_object_list(answer, src=0, group=layout.patient_group)
    return answer[0]
