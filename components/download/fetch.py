"""Fetch one planned shard: read its articles and pack them into one Parquet file."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.common.fingerprint import sha256_bytes
from components.common.manifest import Manifest, Rejected
from components.common.progress import track
from components.common.shards import finished_shard, write_shard
from components.download.plan import load_items
from components.download.settings import DownloadSettings
from components.download.sources import open_source

log = logging.getLogger(__name__)

ROWS_PER_GROUP = 256
SCHEMA = pa.schema(
    [
        ("article_id", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("xml", pa.binary()),
        ("sha256", pa.string()),
    ]
)


def fetch_shard(plan: Manifest, name: str, settings: DownloadSettings) -> Manifest:
    """Fetch the articles of a planned shard, unless the store has it already.

    Args:
        plan: What :func:`plan_download` returned.
        name: The shard's name in the plan.
        settings: The recipe's download section.

    Returns:
        Manifest of kind ``raw`` with one shard, whose rows are :data:`SCHEMA`.

    Raises:
        InputError: The source is damaged or has changed since the plan was made.
        StorageError: The store cannot be read or written.
    """
    planned, prefix = plan.shard(name), plan.extra["prefix"]
    shard = finished_shard(prefix, name)
    if shard:
        log.info("%s is there already (%d articles)", name, shard.rows)
    else:
        rejected: list[Rejected] = []
        with tempfile.TemporaryDirectory(prefix="pmc-") as scratch:
            path = Path(scratch) / f"{name}.parquet"
            rows = _pack(path, _rows(plan, name, settings, rejected))
            stats = {"listed": planned.rows, "rejected": [r.model_dump() for r in rejected]}
            shard = write_shard(prefix, name, {".parquet": path}, rows, stats)
    return Manifest(
        kind="raw",
        fingerprint=plan.fingerprint,
        inputs={"plan": plan.fingerprint},
        settings=plan.settings,
        shards=[shard],
        totals={"listed": shard.stats["listed"], "articles": shard.rows},
        rejected=[Rejected(**entry) for entry in shard.stats["rejected"]],
    )


def _rows(
    plan: Manifest, name: str, settings: DownloadSettings, rejected: list[Rejected]
) -> Iterator[dict[str, str | bytes]]:
    items = load_items(plan.shard(name))
    for item, content in track(
        open_source(settings).read_items(items), len(items), label=f"Fetching {name}", unit="articles"
    ):
        if isinstance(content, Rejected):
            rejected.append(content)
            continue
        yield {
            "article_id": item.id,
            "source": settings.source,
            "path": item.path,
            "xml": content,
            "sha256": sha256_bytes(content),
        }


def _pack(path: Path, rows: Iterator[dict[str, str | bytes]]) -> int:
    written = 0
    group: list[dict[str, str | bytes]] = []
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for row in rows:
            group.append(row)
            if len(group) == ROWS_PER_GROUP:
                written += _write_group(writer, group)
        written += _write_group(writer, group)
    return written


def _write_group(writer: pq.ParquetWriter, group: list[dict[str, str | bytes]]) -> int:
    count = len(group)
    if count:
        writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
        group.clear()
    return count
