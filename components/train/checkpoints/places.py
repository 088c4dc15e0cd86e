"""Where the checkpoints of a run lie, and which of them are complete."""

import re
from collections import defaultdict

from components.common import storage

MARKER = "COMPLETE"
_FOLDER = re.compile(r"step-(\d{8,})")


def step_name(step: int) -> str:
    """Folder name of a step's checkpoint; sorts by step."""
    return f"step-{step:08d}"


def step_uri(uri: str, step: int) -> str:
    """Where a step's checkpoint lies."""
    return storage.join(uri, step_name(step))


def complete_steps(uri: str) -> list[int]:
    """Steps that have a checkpoint with its marker, in order."""
    return sorted(step for step, files in stored_files(uri).items() if MARKER in files)


def stored_files(uri: str) -> dict[int, dict[str, int]]:
    """Name and size in bytes of every stored file, by step."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for entry in storage.list_files(uri):
        folder, _, name = storage.relative(entry.uri, uri).partition("/")
        if match := _FOLDER.fullmatch(folder):
            found[int(match[1])][name] = entry.size
    return dict(found)


def started_steps(uri: str) -> set[int]:
    """Steps that have a folder, even one in which nothing is complete yet."""
    if not uri.startswith(storage.FILE_SCHEME):
        return set(stored_files(uri))
    # A list names no file that is still being written, and a killed run leaves such files behind.
    matches = map(_FOLDER.fullmatch, (path.name for path in storage.local_path(uri).glob("step-*")))
    return {int(match[1]) for match in matches if match}


def delete_checkpoint(uri: str, step: int) -> None:
    """Delete a step's checkpoint, its marker first: half of it never passes for a whole one.

    Raises:
        StorageError: The store refuses.
    """
    folder = step_uri(uri, step)
    storage.delete(storage.join(folder, MARKER))
    storage.delete_prefix(folder)
