"""Raw shards: the articles as they came, in one Parquet file, with an index of everything that was listed."""

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.common import article_index
from components.common.stored_file import StoredFile
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
_GROUPS_WAITING = 3
_BUFFER_BYTES = 8 << 20
_SMALL = [name for name in SCHEMA.names if name not in ("xml", "source")]

# Columns of few different values.
_REPEATED = ["source", "licence"]
_FIELDS = attrgetter(*_SMALL)
_Entry = tuple[str, int, str, str, str]  # as article_index.SCHEMA


@contextmanager
def raw_shard(uri: str, source: str) -> Iterator["RawShardWriter"]:
    """Write a raw shard's main file straight into the store, as its articles come.

    The file is there at the end of the ``with`` block, or not at all if that fails.

    Args:
        uri: Where the main file is stored.
        source: What the rows name as their source.

    Raises:
        StorageError: The store refuses.
    """
    index = io.BytesIO()
    with (
        StoredFile(uri) as file,
        # Handing over every page would mean to wait for Python's lock as often, among all the fetching threads.
        pa.BufferedOutputStream(pa.PythonFile(file, "w"), _BUFFER_BYTES) as sink,
        # A dictionary of values that are all different, and the extremes of whole articles, would only cost time.
        pq.ParquetWriter(
            sink, SCHEMA, compression="zstd", use_dictionary=_REPEATED, write_statistics=["article_id"]
        ) as articles,
        pq.ParquetWriter(index, article_index.SCHEMA, compression="zstd", use_dictionary=["outcome"]) as entries,
        ThreadPoolExecutor(1, thread_name_prefix="pack") as thread,
    ):
        writer = RawShardWriter(source, articles, entries, thread)
        yield writer
        writer.finish()
    writer.file, writer.index = file, index.getvalue()


class RawShardWriter:
    """Writes a shard's files a row group at a time, so that memory does not grow with them.

    A thread of its own packs them: the next articles come meanwhile.

    Attributes:
        rows: How many articles were added.
        file: The main file, once it is stored.
        index: The index's content, once it is complete.
    """

    def __init__(
        self, source: str, articles: pq.ParquetWriter, entries: pq.ParquetWriter, thread: ThreadPoolExecutor
    ) -> None:
        """Bind the open files, and the thread that writes to them."""
        self.rows = 0
        self.file: StoredFile
        self.index = b""
        self._source, self._thread = source, thread
        self._articles, self._index = articles, entries
        self._group: list[Article] = []
        self._group_bytes = 0
        self._entries: list[_Entry] = []
        self._writing: deque[Future[None]] = deque()

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

    def finish(self) -> None:
        """Write what is left."""
        self._flush()
        self._wait(0)

    def _flush(self) -> None:
        self._wait(_GROUPS_WAITING - 1)
        # Laid out here, so that the packing thread, which has the most to do, has only that to do.
        articles = _table(self._group, self._source) if self._group else None
        self._writing.append(self._thread.submit(self._write, articles, _index_table(self._entries)))
        self._group, self._group_bytes, self._entries = [], 0, []

    def _wait(self, most: int) -> None:
        """Wait until at most so many groups are waiting; a failure to write (a full disk) comes out here."""
        while len(self._writing) > most:
            self._writing.popleft().result()

    def _write(self, articles: pa.Table | None, entries: pa.Table) -> None:
        if articles is not None:
            self._articles.write_table(articles)
        self._index.write_table(entries)


def _entry(article_id: str, outcome: str, version: int = 0, etag: str = "", metadata: str = "") -> _Entry:
    return article_id, version, etag, outcome, metadata


def _index_table(entries: list[_Entry]) -> pa.Table:
    columns = zip(*entries, strict=True) if entries else [[] for _ in article_index.SCHEMA]
    return pa.table(dict(zip(article_index.SCHEMA.names, map(list, columns), strict=True)), schema=article_index.SCHEMA)


def _table(articles: list[Article], source: str) -> pa.Table:
    columns: dict[str, Any] = dict(zip(_SMALL, map(list, zip(*map(_FIELDS, articles), strict=True)), strict=True))
    return pa.table(columns | {"source": [source] * len(articles), "xml": _xml(articles)}, schema=SCHEMA)


def _xml(articles: list[Article]) -> pa.Array:
    """Lay the articles' bytes side by side; Arrow's own conversion would never let go of a memoryview."""
    offsets = np.zeros(len(articles) + 1, dtype=np.int32)
    np.cumsum([len(article.xml) for article in articles], out=offsets[1:])
    data = b"".join([article.xml for article in articles])
    return pa.Array.from_buffers(pa.binary(), len(articles), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
