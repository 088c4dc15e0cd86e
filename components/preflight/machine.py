"""This machine, where a local run trains: room on the disk, and memory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from components.common import storage
from components.common.settings import get_settings
from components.preflight.findings import Finding, failed, ok, warning
from components.preflight.settings import Situation

# Even the bundled sample's run leaves this much behind: shards, checkpoints, logs.
_LEAST_FREE = 500_000_000
# A checkpoint holds weights and both of AdamW's means in fp32; in memory there are the gradients too. Weights that are
# stored take two bytes each.
_BYTES_STORED, _BYTES_IN_CHECKPOINT, _BYTES_IN_MEMORY = 2, 12, 16


def look_at_disk(situation: Situation) -> Iterator[Finding]:
    """Say whether the store's disk has room for the run, as far as that is known beforehand."""
    uri = storage.to_uri(get_settings().store_uri)
    if not uri.startswith(storage.FILE_SCHEME) or situation.submitting:
        return
    path = storage.local_path(uri)
    free = shutil.disk_usage(next(each for each in [path, *path.parents] if each.exists())).free
    parameters = _parameters(situation)
    kept = situation.train.keep_checkpoints + 1
    need = parameters * (_BYTES_IN_CHECKPOINT * kept + 2 * _BYTES_STORED) if not situation.job_on_cluster else 0
    shown = f"{free / 1e9:,.1f} GB are free at {path}"
    remedy = "Free some space, or set PMC_STORE_URI to another place."
    if free < _LEAST_FREE:
        yield failed("Disk", f"{shown}.", remedy)
    elif free < need:
        text = f"{shown}, and {kept} checkpoints of the base model's size take {need / 1e9:,.0f} GB."
        yield warning("Disk", text, remedy)
    else:
        yield ok("Disk", f"{shown}.")


def look_at_memory(situation: Situation) -> Iterator[Finding]:
    """Say whether a model in a folder of this machine can be trained in its memory."""
    if situation.job_on_cluster or situation.submitting or situation.train.device == "cuda":
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    need = _parameters(situation) * _BYTES_IN_MEMORY
    if need > total:
        yield warning(
            "Memory",
            f"This machine has {total / 1e9:,.0f} GB; training the base model takes {need / 1e9:,.0f} GB besides "
            "activations, unless it is in the GPU's.",
            "Take a smaller model (download.base_model), or train on a cluster (train.launcher).",
        )
    else:
        yield ok("Memory", f"This machine has {total / 1e9:,.0f} GB.")


def _parameters(situation: Situation) -> int:
    """Of a base model in a folder of this machine; 0 of others, whose size is not cheap to know."""
    place = situation.download.base_model
    if place in ("", "sample") or "://" in place:
        return 0
    return sum(file.stat().st_size for file in Path(place).expanduser().glob("*.safetensors")) // _BYTES_STORED
