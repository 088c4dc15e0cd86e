"""Checkpoints: torch's distributed format, in the artifact store, with a marker written last.

    checkpoints/step-00000100/state/      weights and optimiser, each process's shards in a file of its own
    checkpoints/step-00000100/history.jsonl   what every step up to here measured
    checkpoints/step-00000100/COMPLETE    written last: without it the rest is as good as not there

The step and the learning rate, the order of documents and the windows are pure functions of the history's length: there
is nothing else to restore. A checkpoint can be loaded by another number of processes.
"""

import json
import logging
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from components.common import storage
from components.common.errors import StorageError
from components.train.distributed import Layout
from components.train.settings import TrainSettings

log = logging.getLogger(__name__)

History = list[dict[str, Any]]
_MARKER = "COMPLETE"


class Checkpoints:
    """The checkpoints of one run.

    Saving blocks only while the state is copied to main memory; writing, uploading and pruning run in a thread.
    On `file://` the folder must be shared by all nodes; to `s3://` each node uploads what its processes wrote.
    """

    def __init__(self, uri: str, scratch: Path, settings: TrainSettings, layout: Layout) -> None:
        """Keep checkpoints under `uri`; `scratch` is a local folder for what goes to or comes from S3."""
        self._uri = uri
        self._scratch = scratch
        self._settings = settings
        self._layout = layout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._last_save = time.monotonic()

    def resume(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> History:
        """Load the newest complete checkpoint into model and optimiser.

        Returns:
            What the steps so far measured; empty if there is no checkpoint and the run starts.
        """
        if self._layout.is_first:
            self._delete_incomplete()
        self._layout.wait_for_all()
        steps = complete_steps(self._uri)
        if not steps:
            return []
        uri = self._step_uri(steps[-1])
        folder = self._fetch(uri)
        state = _state(model, optimiser)
        dcp.load(state, checkpoint_id=folder / "state", process_group=self._layout.checkpoint_group)
        set_state_dict(model, optimiser, model_state_dict=state["model"], optim_state_dict=state["optimiser"])
        log.info("Resumed from %s", uri)
        return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]

    def due(self, step: int) -> bool:
        """Whether it is time for a checkpoint after so many steps; decided by the first process's clock."""
        every, minutes = self._settings.checkpoint_every_steps, self._settings.checkpoint_minutes
        by_steps = every is not None and step % every == 0
        return by_steps or (minutes is not None and time.monotonic() - self._last_save >= minutes * 60)

    def save(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer, history: History) -> None:
        """Start a checkpoint of the state after `len(history)` steps.

        Raises:
            StorageError: The checkpoint before this one could not be stored.
        """
        self.finish()
        step = len(history)
        folder = self._folder(step)
        # A folder of the store is shared by all nodes, a scratch folder is each node's own.
        if self._layout.is_first if _is_local(self._uri) else self._layout.is_first_on_node:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._layout.wait_for_all()
        if self._layout.is_first:
            (folder / "history.jsonl").write_text(to_json_lines(history))
        written = dcp.async_save(
            _state(model, optimiser),
            checkpoint_id=folder / "state",
            process_group=self._layout.checkpoint_group,
        )
        self._pending = self._thread.submit(self._commit, step, folder, written)
        self._last_save = time.monotonic()

    def finish(self) -> None:
        """Wait until the checkpoint under way is complete.

        Raises:
            StorageError: It could not be stored.
        """
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _commit(self, step: int, folder: Path, written: Future[Any]) -> None:
        try:
            written.result()
        except CheckpointException as error:  # no Exception: a handler of those would not see it
            causes = {str(cause) for cause, _ in error.failures.values()}
            raise StorageError(
                f"The checkpoint {self._step_uri(step)} could not be written ({'; '.join(sorted(causes))}); "
                "free some space or mend the store, then run again: it goes on from the checkpoint before."
            ) from error
        uri = self._step_uri(step)
        if not _is_local(uri) and self._layout.is_first_on_node:
            storage.upload_folder(folder, uri)
            shutil.rmtree(folder)
        dist.barrier(group=self._layout.checkpoint_group)
        if not self._layout.is_first:
            return
        storage.write(storage.join(uri, _MARKER), json.dumps({"step": step}).encode())
        for old in complete_steps(self._uri)[: -self._settings.keep_checkpoints]:
            storage.delete_prefix(self._step_uri(old))
        log.info("Saved checkpoint %s", uri)

    def _folder(self, step: int) -> Path:
        uri = self._step_uri(step)
        return storage.local_path(uri) if _is_local(uri) else self._scratch / step_name(step)

    def _fetch(self, uri: str) -> Path:
        if _is_local(uri):
            return storage.local_path(uri)
        folder = self._scratch / "resume"
        if self._layout.is_first_on_node:
            shutil.rmtree(folder, ignore_errors=True)
            storage.download_folder(uri, folder)
        self._layout.wait_for_all()
        return folder

    def _delete_incomplete(self) -> None:
        complete = set(complete_steps(self._uri))
        for step in set(_files_by_step(self._uri)) - complete:
            log.warning("Deleting incomplete checkpoint %s", self._step_uri(step))
            storage.delete_prefix(self._step_uri(step))

    def _step_uri(self, step: int) -> str:
        return storage.join(self._uri, step_name(step))


def complete_steps(uri: str) -> list[int]:
    """Steps that have a complete checkpoint, in order."""
    return sorted(step for step, files in _files_by_step(uri).items() if _MARKER in files)


def step_name(step: int) -> str:
    """Folder name of a step's checkpoint; sorts by step."""
    return f"step-{step:08d}"


def to_json_lines(history: History) -> str:
    """One line of JSON per step."""
    return "".join(json.dumps(record) + "\n" for record in history)


def _files_by_step(uri: str) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for entry in storage.list_files(uri):
        folder, _, name = storage.relative(entry.uri, uri).partition("/")
        if folder.startswith("step-"):
            found.setdefault(int(folder.removeprefix("step-")), set()).add(name)
    return found


def _state(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    model_state, optimiser_state = get_state_dict(model, optimiser)
    return {"model": model_state, "optimiser": optimiser_state}


def _is_local(uri: str) -> bool:
    return uri.startswith(storage.FILE_SCHEME)
