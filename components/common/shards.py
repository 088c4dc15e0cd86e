"""Writing shards so that a finished one is never made again and an unfinished one is never taken for finished.

The data files go first; the sidecar ``<name>.json`` goes last and is the mark of completion.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.common import storage
from components.common.fingerprint import sha256_bytes, sha256_file
from components.common.manifest import Shard
from components.common.stored_file import StoredFile


def write_shard(
    prefix_uri: str,
    name: str,
    files: Mapping[str, bytes | Path | StoredFile],
    rows: int,
    stats: dict[str, Any] | None = None,
) -> Shard:
    """Store the files of a shard, then its sidecar.

    Args:
        prefix_uri: The folder of the shard; it contains the fingerprint of the output.
        name: The shard's name, such as ``shard-00003``.
        files: Suffix (such as ``.parquet``) to content, which may be stored already; the first is the main file.
        rows: How many rows (articles, documents) the shard holds.
        stats: What else the next stage or a person wants to know.

    Returns:
        The finished shard; its URI, bytes and SHA-256 are those of the main file.

    Raises:
        StorageError: The store refuses.
    """
    for suffix, content in files.items():
        uri = storage.join(prefix_uri, name + suffix)
        if isinstance(content, bytes):
            storage.write(uri, content)
        elif isinstance(content, Path):
            storage.upload(content, uri)
    suffix, main = next(iter(files.items()))
    size, digest = _measured(main)
    shard = Shard(
        name=name,
        uri=storage.join(prefix_uri, name + suffix),
        rows=rows,
        bytes=size,
        sha256=digest,
        stats=stats or {},
    )
    storage.write(_sidecar(prefix_uri, name), shard.model_dump_json(indent=1).encode())
    return shard


def finished_shard(prefix_uri: str, name: str) -> Shard | None:
    """Return the shard if it is finished: its sidecar is readable and its main file is there."""
    sidecar = _sidecar(prefix_uri, name)
    if not storage.exists(sidecar):
        return None
    try:
        shard = Shard.model_validate_json(storage.read(sidecar))
    except ValidationError:
        return None
    # The store may have been moved or copied: what counts is the place that is asked for.
    shard = shard.model_copy(update={"uri": storage.join(prefix_uri, shard.uri.rpartition("/")[2])})
    return shard if storage.exists(shard.uri) else None


def _measured(content: bytes | Path | StoredFile) -> tuple[int, str]:
    if isinstance(content, StoredFile):
        return content.size, content.sha256
    if isinstance(content, bytes):
        return len(content), sha256_bytes(content)
    return content.stat().st_size, sha256_file(content)


def _sidecar(prefix_uri: str, name: str) -> str:
    return storage.join(prefix_uri, f"{name}.json")
