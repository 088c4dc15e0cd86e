"""Plan a download: which articles, in which shards.

The plan of each shard is a small file in the store; the manifest names them. A shard's fingerprint covers what is
listed in it, so the same articles give the same shard, and a listing that changed elsewhere leaves it as it is.
"""

import io
import logging

import pyarrow as pa
import pyarrow.parquet as pq

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.manifest import Manifest, Shard
from components.common.progress import track
from components.download.settings import DownloadSettings
from components.download.sources import Part, open_source

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""Part of the fingerprint of raw shards: raise it when the same listing would give other rows."""


def plan_download(settings: DownloadSettings, output_root: str) -> Manifest:
    """List the source's articles and divide them into shards.

    Args:
        settings: The recipe's download section.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``download-plan``; each shard is a table of what is listed, its stats say where the finished
        shard goes (``prefix``).

    Raises:
        InputError: The source is missing, damaged or empty.
        StorageError: The store cannot be written, or has no room for the articles.
    """
    storage.check_writable(output_root)
    source = open_source(settings)
    planned = source.plan()
    storage.check_room(output_root, planned.least_bytes)
    identity = source.identity()
    shards = [
        _write_part(part, identity, settings, storage.join(output_root, "raw"))
        for part in track(planned.parts, label="Planning", unit="shards")
    ]
    if not shards:
        raise InputError(_nothing(settings))
    return Manifest(
        kind="download-plan",
        fingerprint=fingerprint("plan", [[shard.name, shard.stats["fingerprint"]] for shard in shards]),
        inputs=planned.inputs,
        settings=settings.model_dump(mode="json", exclude={"version"}),
        shards=shards,
        totals={**({"articles": planned.articles} if planned.articles else {}), **planned.totals},
        extra=planned.extra,
    )


def load_part(shard: Shard) -> pa.Table:
    """Read what a planned shard lists."""
    return pq.read_table(io.BytesIO(storage.read(shard.uri)))


def _write_part(part: Part, identity: str, settings: DownloadSettings, root: str) -> Shard:
    mark = fingerprint("raw", FORMAT_VERSION, settings.source, identity, _content_hash(part.table))
    place = storage.join(root, part.place or settings.source)
    prefix = storage.join(place, mark)
    uri = storage.join(prefix, f"{part.name}.plan.parquet")
    data = _to_parquet(part.table)
    if not storage.exists(uri):
        storage.write(uri, data)
    stats = {
        "fingerprint": mark,
        "prefix": prefix,
        "place": place if part.place else "",
        "earlier": [storage.join(root, each) for each in part.earlier],
    }
    return Shard(name=part.name, uri=uri, rows=part.articles, bytes=len(data), sha256=sha256_bytes(data), stats=stats)


def _content_hash(table: pa.Table) -> str:
    """Hash what a table says, in Arrow's own form: Parquet's bytes may change with the library that writes them."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sha256_bytes(sink.getvalue())


def _to_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _nothing(settings: DownloadSettings) -> str:
    if settings.source in ("files", "sample"):
        return f"No .xml or .nxml article in {settings.articles or settings.source}; check download.articles."
    return f"No article is chosen from {settings.source}; check download.max_articles and download.sample_fraction."
