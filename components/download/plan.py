"""Plan a download: which articles, in which shards.

The plan of each shard is a small file in the store; the manifest names them. The fingerprint covers every article's
content hash, so the same articles give the same shards wherever they lie.
"""

import dataclasses
import json
import math

import xxhash

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.manifest import Manifest, Shard
from components.download.settings import DownloadSettings
from components.download.sources import Item, open_source
from components.download.sources.files import listing_digest

FORMAT_VERSION = 1


def plan_download(settings: DownloadSettings, output_root: str) -> Manifest:
    """List the source's articles and divide them into shards.

    Args:
        settings: The recipe's download section.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``download-plan``; each shard is a JSON list of items, ``extra["prefix"]`` is where the
        finished shards go.

    Raises:
        InputError: The source is missing, damaged or empty.
        StorageError: The store cannot be written.
    """
    storage.check_writable(output_root)
    items = _choose(open_source(settings).list_items(), settings.max_articles)
    if not items:
        where = settings.articles or settings.source
        raise InputError(f"No .xml or .nxml article in {where}; check download.articles.")
    _require_unique_paths(items)
    size = _shard_size(len(items), settings)
    name = fingerprint("raw", FORMAT_VERSION, listing_digest(items), size)
    prefix = storage.join(output_root, "raw", name)
    shards = [
        _write_plan(prefix, number, items[start : start + size])
        for number, start in enumerate(range(0, len(items), size))
    ]
    return Manifest(
        kind="download-plan",
        fingerprint=name,
        inputs={"listing": listing_digest(items)},
        settings=settings.model_dump(exclude={"version"}),
        shards=shards,
        totals={"articles": len(items), "source_bytes": sum(item.size for item in items)},
        extra={"prefix": prefix},
    )


def load_items(shard: Shard) -> list[Item]:
    """Read the items of a planned shard."""
    return [Item(**item) for item in json.loads(storage.read(shard.uri))]


def _shard_size(articles: int, settings: DownloadSettings) -> int:
    """Return the articles per shard that the two settings ask for."""
    shards = max(math.ceil(articles / settings.articles_per_shard), min(settings.min_shards, articles))
    return math.ceil(articles / shards)


def _choose(items: list[Item], most: int | None) -> list[Item]:
    """Keep the articles whose ids hash lowest, so that a larger choice contains a smaller one."""
    if most is None or len(items) <= most:
        return items
    kept = {item.path for item in sorted(items, key=lambda i: xxhash.xxh3_64_intdigest(i.id.encode()))[:most]}
    return [item for item in items if item.path in kept]


def _require_unique_paths(items: list[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.path in seen:
            raise InputError(f"The member {item.path} is in the archive twice; nobody can say which one is meant.")
        seen.add(item.path)


def _write_plan(prefix: str, number: int, items: list[Item]) -> Shard:
    name = f"shard-{number:05d}"
    data = json.dumps([dataclasses.asdict(item) for item in items], indent=0).encode()
    uri = storage.join(prefix, f"{name}.plan")
    storage.write(uri, data)
    return Shard(name=name, uri=uri, rows=len(items), bytes=len(data), sha256=sha256_bytes(data))
