"""Article files of one's own (``files``), and the bundled sample, which is a folder of them."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from hashlib import md5

import pyarrow as pa

from components.common.errors import InputError
from components.common.fingerprint import sha256_bytes
from components.common.manifest import Rejected
from components.download.previous import PreviousShard
from components.download.sampling import chosen, hashes
from components.download.settings import DownloadSettings
from components.download.sources import Article, Outcome, Part, SourcePlan, shard_count
from components.download.sources.readers import Item, open_reader

# XML packs to a fifth or less: a lower bound, to see beforehand that the disk cannot hold it.
_PACKED = 8


class FilesSource:
    """The JATS files of a folder, an archive or an S3 prefix."""

    def __init__(self, settings: DownloadSettings) -> None:
        """Find the place.

        Raises:
            InputError: There is nothing of that name.
        """
        self._settings = settings
        self._reader = open_reader(_place(settings), settings.max_article_bytes)

    def plan(self) -> SourcePlan:
        """List the files and divide them in the order in which an archive gives them: it is read as a stream."""
        items = self._chosen(self._reader.list_items())
        _require_unique_paths(items)
        size = -(-len(items) // shard_count(len(items), self._settings))
        source_bytes = sum(item.size for item in items)
        return SourcePlan(
            parts=_parts(items, size),
            articles=len(items),
            inputs={"listing": _listing_hash(items)},
            totals={"source_bytes": source_bytes},
            least_bytes=source_bytes // _PACKED,
        )

    def identity(self) -> str:
        """Return nothing: the listing says it all."""
        return ""

    def fetch(self, part: pa.Table, previous: PreviousShard | None) -> Iterator[Outcome]:  # noqa: ARG002
        """Read the files one by one."""
        for item, content in self._reader.read_items([Item(**row) for row in part.to_pylist()]):
            if isinstance(content, Rejected):
                yield content
            else:
                checksum = md5(content, usedforsecurity=False).hexdigest()
                yield Article(item.id, content, path=item.path, md5=checksum)

    def _chosen(self, items: list[Item]) -> list[Item]:
        ids = pa.array([item.id for item in items], pa.string())
        keep = chosen(hashes(ids), self._settings.sample_fraction, self._settings.max_articles)
        return [item for item, stays in zip(items, keep.tolist(), strict=True) if stays]


def _place(settings: DownloadSettings) -> str:
    if settings.source == "sample":
        from components.download.sample import ARTICLES_DIR

        return str(ARTICLES_DIR)
    return settings.articles


def _parts(items: list[Item], size: int) -> Iterator[Part]:
    names = [field.name for field in fields(Item)]
    for number, start in enumerate(range(0, len(items), max(size, 1))):
        rows = items[start : start + size]
        table = pa.Table.from_pylist([asdict(item) for item in rows]).select(names)
        yield Part(f"shard-{number:05d}", table, len(rows))


def _require_unique_paths(items: list[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.path in seen:
            raise InputError(f"The member {item.path} is in the archive twice; nobody can say which one is meant.")
        seen.add(item.path)


def _listing_hash(items: list[Item]) -> str:
    lines = (f"{i.id}\t{i.path}\t{i.size}\t{i.digest}\t{i.rejected}\n" for i in items)
    return sha256_bytes("".join(lines).encode())
