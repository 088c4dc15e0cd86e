"""The base model: the bundled tiny one, a folder, an S3 prefix or a Hugging Face id; safetensors only.

Each file streams from its place into the store, hashed and checked on the way, so neither memory nor disk has to hold
the model; a file that arrived is not fetched again.
"""

import logging
import math
import shutil
from contextlib import closing

from pydantic import ValidationError

from components.common import storage
from components.common.errors import StorageError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Shard
from components.common.progress import track
from components.common.stored_file import StoredFile
from components.download.model_files import SAFETENSORS, chosen_files
from components.download.model_places import open_place
from components.download.remote_file import RemoteFile, checked
from components.download.safetensors_header import with_checked_header
from components.download.settings import DownloadSettings

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_MEBIBYTE = 1 << 20


def download_base_model(settings: DownloadSettings, output_root: str) -> Manifest:
    """Put the base model's files into the store.

    Args:
        settings: The recipe's download section.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``model``; ``extra["model_uri"]`` is the folder with the files, ``extra["commit"]`` the hub's
        commit where the model comes from there. The fingerprint depends on the files' content alone.

    Raises:
        InputError: The model is not there, has no safetensors weights, lacks its configuration or tokenizer, or a file
            is not what its source or its own header says.
        StorageError: The store cannot be written.
    """
    with open_place(settings) as place:
        files = chosen_files(place.files, settings.base_model)
        folder = _folder(output_root, {file.name: file.mark for file in files})
        shards = sorted(_store_all(files, folder), key=lambda shard: shard.name)
    hashes = {shard.name: shard.sha256 for shard in shards}
    extra = {"model_uri": storage.join(folder, "model"), "name": settings.base_model}
    return Manifest(
        kind="model",
        fingerprint=fingerprint("base-model", FORMAT_VERSION, hashes),
        inputs=hashes | place.inputs,
        settings=settings.model_dump(include={"base_model", "base_model_revision", "base_model_seed"}),
        shards=shards,
        totals={"files": len(shards), "weight_bytes": sum(s.bytes for s in shards if s.name.endswith(SAFETENSORS))},
        extra=extra | ({"commit": place.commit} if place.commit else {}),
    )


def _folder(output_root: str, marks: dict[str, str]) -> str:
    return storage.join(output_root, "models", "base", fingerprint("base-model", FORMAT_VERSION, marks))


def _store_all(files: list[RemoteFile], folder: str) -> list[Shard]:
    done = _finished(folder)
    due = [file for file in files if file.name not in done]
    _require_space(sum(file.size or 0 for file in due), folder)
    if done and due:
        log.info("%d of %d files of the base model are stored already.", len(files) - len(due), len(files))
    return [done[file.name] if file.name in done else _store(file, folder) for file in files]


def _store(file: RemoteFile, folder: str) -> Shard:
    content = with_checked_header(file, checked(file)) if file.name.endswith(SAFETENSORS) else checked(file)
    mebibytes = math.ceil(file.size / _MEBIBYTE) if file.size else None
    with closing(content) as chunks, StoredFile(storage.join(folder, "model", file.name)) as stored:
        for chunk in track(chunks, mebibytes, f"Fetching {file.name}", "MiB"):
            stored.write(chunk)
    shard = Shard(name=file.name, uri=stored.uri, rows=1, bytes=stored.size, sha256=stored.sha256)
    # Outside the model's folder: there it would look like one of its files.
    storage.write(storage.join(folder, "files", f"{file.name}.json"), shard.model_dump_json(indent=1).encode())
    return shard


def _finished(folder: str) -> dict[str, Shard]:
    """Return the files of an earlier run that are stored, by name: hashed, and of the size they had then."""
    stored = {entry.uri: entry.size for entry in storage.list_files(folder)}
    shards = {}
    for uri in stored:
        if not storage.relative(uri, folder).startswith("files/"):
            continue
        try:
            shard = Shard.model_validate_json(storage.read(uri))
        except ValidationError:
            continue
        # The store may have been moved or copied: what counts is the place that is asked for.
        shard = shard.model_copy(update={"uri": storage.join(folder, "model", shard.name)})
        if stored.get(shard.uri) == shard.bytes:
            shards[shard.name] = shard
    return shards


def _require_space(needed: int, folder: str) -> None:
    if not folder.startswith(storage.FILE_SCHEME):
        return
    there = storage.local_path(folder)
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StorageError(
            f"The base model needs {needed / 1e9:,.1f} GB and {there} has {free / 1e9:,.1f} GB left; "
            "free some space, or set PMC_STORE_URI to another place."
        )
