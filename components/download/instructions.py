"""The instruction set: requests and their answers, from the bundled file, a folder, an S3 prefix or the hub.

A file is JSON lines, a JSON list or Parquet, with the fields of Stanford Alpaca's set: ``instruction``, ``output`` and,
where there is one, ``input``. Other fields are ignored.
"""

import json
import logging
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.instruction_set import INSTRUCTIONS
from components.common.manifest import Manifest, Shard
from components.common.pmc.settings import TransportSettings
from components.common.shards import finished_shard, write_shard
from components.download.benchmark_files import json_lines
from components.download.benchmark_parquet import parquet_rows
from components.download.remote_file import RemoteFile, fetch
from components.download.settings import DownloadSettings

log = logging.getLogger(__name__)

FORMAT_VERSION = 1  # raise it when the same files give other lines
SETTING = "download.instructions"
# A set is read into memory; the authors' has 0.5 million lines and 0.7 GB.
_MOST_BYTES = 4 << 30
_MOST_CHARACTERS = 100_000
# Those of one kind are read: a repository of Parquet files often has JSON files that describe them.
_KINDS = (".jsonl", ".parquet", ".json")
_FIELDS = ("instruction", "input", "output")
_SURROGATE = re.compile("[\ud800-\udfff]")


def with_instructions(benchmarks: Manifest, settings: DownloadSettings, output_root: str) -> Manifest:
    """Add the instruction set that the settings name to the benchmarks' manifest, stored as one JSONL.

    Lines that repeat another one, or whose instruction or output is empty, are left out and counted.

    Args:
        benchmarks: Manifest of kind ``benchmarks``.
        settings: The recipe's download section; ``instructions`` is empty, ``sample``, a file, a folder or prefix, or
            ``owner/name@commit``.
        output_root: The shard goes to ``<output_root>/instructions/<fingerprint>/``.

    Returns:
        The manifest, with the shard ``instructions-train`` if the settings name a set. Its fingerprint stays that of
        the questions, so that an evaluation does not change with what one model learned from.

    Raises:
        InputError: There is no such place, a line has another form or is too long, or no line is left.
        StorageError: The store cannot be read or written.
    """
    if not settings.instructions:
        return benchmarks
    lines: dict[str, bytes] = {}
    inputs: dict[str, str] = {}
    dropped = {"duplicates": 0, "empty": 0}
    for file in _files(settings.instructions, settings.transport):
        data, inputs[f"instructions/{file.name}"] = fetch(file)
        for where, row in _rows(data, file):
            texts = _texts(row, where)
            identifier = fingerprint(*texts)
            if not (texts[0] and texts[2]):
                dropped["empty"] += 1
            elif identifier in lines:
                dropped["duplicates"] += 1
            else:
                entry = {"id": identifier, **dict(zip(_FIELDS, texts, strict=True))}
                lines[identifier] = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
    if not lines:
        raise InputError(f"{settings.instructions} holds no instruction with an answer; check {SETTING}.")
    if any(dropped.values()):
        log.warning("Left out of the instructions: %(duplicates)d repeated, %(empty)d empty", dropped)
    shard = _store(b"".join(lines.values()), len(lines), output_root)
    totals = {"instructions": shard.rows} | {f"instructions_{reason}": count for reason, count in dropped.items()}
    return benchmarks.model_copy(
        update={
            "inputs": benchmarks.inputs | inputs,
            "settings": benchmarks.settings | {"instructions": settings.instructions},
            "shards": [*benchmarks.shards, shard],
            "totals": benchmarks.totals | totals,
        }
    )


def _store(data: bytes, rows: int, output_root: str) -> Shard:
    name = fingerprint("instructions", FORMAT_VERSION, sha256_bytes(data))
    prefix = storage.join(output_root, "instructions", name)
    return finished_shard(prefix, INSTRUCTIONS) or write_shard(prefix, INSTRUCTIONS, {".jsonl": data}, rows)


def _files(place: str, transport: TransportSettings) -> list[RemoteFile]:
    found = _on_hub(place, transport) if "@" in place and "://" not in place else _stored(place)
    kind = next((kind for kind in _KINDS if any(file.name.endswith(kind) for file in found)), None)
    if kind is None:
        raise InputError(f"There is no {', '.join(_KINDS[:-1])} or {_KINDS[-1]} file at {place}; check {SETTING}.")
    chosen = sorted((file for file in found if file.name.endswith(kind)), key=lambda file: file.name)
    log.info("Instructions come from %s", ", ".join(file.place for file in chosen))
    size = sum(file.size or 0 for file in chosen)
    if size > _MOST_BYTES:
        raise InputError(f"The instructions at {place} have {size:,} bytes, more than {_MOST_BYTES:,}; give a part.")
    return chosen


def _on_hub(place: str, transport: TransportSettings) -> list[RemoteFile]:
    # It takes a third of a second to import, which other places need not pay.
    from components.download.hub_pin import open_pinned, pinned

    return list(open_pinned(*pinned(place, SETTING), transport).files.values())


def _stored(place: str) -> list[RemoteFile]:
    if place == "sample":
        from components.download.sample import INSTRUCTIONS_DIR

        place = str(INSTRUCTIONS_DIR)
    uri = storage.to_uri(place)
    folder = uri
    entries = storage.list_files(uri)
    if not entries and storage.exists(uri):
        folder = uri.rpartition("/")[0]
        entries = [entry for entry in storage.list_files(folder) if entry.uri == uri]
    return [
        RemoteFile(
            name=storage.relative(entry.uri, folder),
            place=entry.uri,
            read=partial(storage.read_stream, entry.uri),
            size=entry.size,
        )
        for entry in entries
    ]


def _rows(data: bytes, file: RemoteFile) -> Iterator[tuple[str, Any]]:
    """Yield where each row is, for messages, and the row."""
    if file.name.endswith(".parquet"):
        return ((f"{file.place} row {number}", row) for number, row in parquet_rows(data, file.place))
    if file.name.endswith(".json") and data.lstrip()[:1] == b"[":
        return ((f"{file.place} entry {number}", row) for number, row in enumerate(_list(data, file), start=1))
    return ((f"{file.place} line {number}", row) for number, row in json_lines(data, file.place))


def _list(data: bytes, file: RemoteFile) -> list[Any]:
    try:
        rows: list[Any] = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.place} is no JSON ({error}); check {SETTING}.") from error
    return rows


def _texts(row: Any, where: str) -> tuple[str, str, str]:
    """Return instruction, input and output without the space around them."""
    if not isinstance(row, dict):
        raise InputError(f"{where} is no object with the fields {', '.join(_FIELDS)}; check {SETTING}.")
    values = [row.get(field) for field in _FIELDS]
    for field, value in zip(_FIELDS, values, strict=True):
        if value is None and field == "input":
            continue
        if not isinstance(value, str):
            what = f"has no field {field!r}" if field not in row else f"has {type(value).__name__} as {field!r}"
            raise InputError(f"{where} {what} where a text is due; check {SETTING}.")
        if len(value) > _MOST_CHARACTERS:
            raise InputError(
                f"{where} has {len(value):,} characters as {field!r}, more than {_MOST_CHARACTERS:,}; leave it out."
            )
        if _SURROGATE.search(value):
            raise InputError(f"{where} has half a character (a lone surrogate) as {field!r}; write the file as UTF-8.")
    instruction, given, output = ((value or "").strip() for value in values)
    return instruction, given, output
