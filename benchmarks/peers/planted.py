"""Raw shards of made-up articles: real ones with words replaced, and near-duplicates planted among them."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.articles import Varied
from components.common import storage
from components.common.manifest import Manifest, Shard
from components.common.shards import write_shard
from components.download.raw_shard import raw_shard
from components.download.sources import Article

ONE_COPY_IN = 50
"""One article in so many is a near-duplicate of the one before it."""


def plant(originals: Sequence[bytes], folder: Path, sizes: Sequence[int]) -> list[Manifest]:
    """Write one raw shard of each size below a folder, as the download does, and their manifests beside them.

    One article in fifty is the one before it with one word in a hundred replaced, under an id of its own.
    """
    made = Varied(originals)
    prefix = storage.join(storage.to_uri(folder), "raw")
    manifests = []
    first = 0
    for number, size in enumerate(sizes):
        shard = _write(made, prefix, f"shard-{number:05d}", range(first, first + size))
        manifests.append(
            Manifest(
                kind="raw",
                fingerprint=f"planted-{number}",
                inputs={},
                settings={},
                shards=[shard],
                totals={"articles": size},
            )
        )
        first += size
    (folder / "raw.json").write_text(json.dumps([manifest.model_dump() for manifest in manifests]))
    return manifests


def planted(folder: Path) -> list[Manifest]:
    """Read the manifests of the shards that were planted in a folder."""
    return [Manifest.model_validate(each) for each in json.loads((folder / "raw.json").read_text())]


def _write(made: Varied, prefix: str, name: str, numbers: range) -> Shard:
    with raw_shard(storage.join(prefix, f"{name}.parquet"), "planted") as writer:
        for number in numbers:
            copy = number % ONE_COPY_IN == 1
            xml = made.article(number - copy, copy)
            writer.add(Article(f"PMC{number:08d}", xml, licence="CC BY"))
    return write_shard(prefix, name, {".parquet": writer.file}, writer.rows, {"origin": {}})
