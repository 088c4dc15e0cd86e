"""Raw shards: the articles as they came, in one Parquet file, with an index of everything that was listed."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from components.common import article_index
from components.download.sources import Article, LeftOut, Outcome

SCHEMA = pa.schema(
    [
        ("article_id", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("version", pa.int32()),
        ("pmcid", pa.string()),
        ("pmid", pa.string()),
        ("doi", pa.string()),
        ("title", pa.string()),
        ("licence", pa.string()),
        ("is_manuscript", pa.bool_()),
        ("is_historical_ocr", pa.bool_()),
        ("is_retracted", pa.bool_()),
        ("md5", pa.string()),
        ("xml", pa.binary()),
    ]
)
"""Columns of a raw shard; what a source does not know is empty."""

# A row group is what a reader holds at a time.
_GROUP_ROWS, _GROUP_BYTES, _GROUP_ENTRIES = 256, 16 << 20, 4096
_GROUPS_WAITING = 2
_SMALL = [name for name in SCHEMA.names if name != "xml"]


class RawShardWriter:
    """Writes a shard's files as the articles come, a row group at a time, so that memory does not grow with them.

    A thread of its own packs them: the next articles come meanwhile.
    """

    def __init__(self, folder: Path, source: str) -> None:
        """Name the files, in a scratch folder."""
        self.articles, self.index = folder / "shard.parquet", folder / f"shard{article_index.SUFFIX}"
        self.rows = 0
        self._source = source
        self._group: list[Article] = []
        self._group_bytes = 0
        self._entries: list[dict[str, Any]] = []
        self._writing: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        # A dictionary of whole articles, and their extremes as statistics, would only cost time.
        self._articles = pq.ParquetWriter(
            self.articles, SCHEMA, compression="zstd", use_dictionary=_SMALL, write_statistics=["article_id"]
        )
        self._index = pq.ParquetWriter(self.index, article_index.SCHEMA, compression="zstd")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pack")
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        with self._thread, self._articles, self._index:
            if failure is None:
                self._flush()
                self._wait(0)

    def add(self, outcome: Outcome) -> None:
        """Write an article, and note in the index what became of it."""
        if isinstance(outcome, Article):
            self._group.append(outcome)
            self._group_bytes += len(outcome.xml)
            self.rows += 1
            entry = _entry(outcome.article_id, article_index.FETCHED, outcome.version, outcome.etag, outcome.metadata)
        elif isinstance(outcome, LeftOut):
            entry = _entry(outcome.id, outcome.reason, outcome.version, outcome.etag, outcome.metadata)
        else:
            entry = _entry(outcome.id, outcome.reason)
        self._entries.append(entry)
        full = len(self._group) >= _GROUP_ROWS or self._group_bytes >= _GROUP_BYTES
        if full or len(self._entries) >= _GROUP_ENTRIES:
            self._flush()

    def _flush(self) -> None:
        self._wait(_GROUPS_WAITING - 1)
        self._writing.append(self._thread.submit(self._write, self._group, self._entries))
        self._group, self._group_bytes, self._entries = [], 0, []

    def _wait(self, most: int) -> None:
        """Wait until at most so many groups are waiting; a failure to write (a full disk) comes out here."""
        while len(self._writing) > most:
            self._writing.popleft().result()

    def _write(self, group: list[Article], entries: list[dict[str, Any]]) -> None:
        if group:
            self._articles.write_table(_table(group, self._source))
        if entries:
            self._index.write_table(pa.Table.from_pylist(entries, schema=article_index.SCHEMA))


def _entry(article_id: str, outcome: str, version: int = 0, etag: str = "", metadata: str = "") -> dict[str, Any]:
    return {"article_id": article_id, "version": version, "etag": etag, "outcome": outcome, "metadata": metadata}


def _table(articles: list[Article], source: str) -> pa.Table:
    columns = {name: [getattr(article, name) for article in articles] for name in SCHEMA.names if name != "source"}
    return pa.table(columns | {"source": [source] * len(articles)}).select(SCHEMA.names).cast(SCHEMA)
