"""Reading raw shards in batches that are small in bytes as well as in number."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.common.errors import InputError
from components.preprocess.article_work import SOURCE_COLUMNS, RawArticle, size_of

BATCH_ARTICLES = 64
BATCH_BYTES = 4 << 20
_COLUMNS = ["article_id", "xml"]
_READ_BYTES = 1 << 20


def read_batches(path: Path, uri: str) -> Iterator[list[RawArticle]]:
    """Yield the articles of a raw shard in batches of at most 64 articles and, where there are several, of 4 MB.

    What is in memory at a time is a batch, and what Arrow holds of a row group to decode it.

    Args:
        path: The file.
        uri: What it is called in errors.

    Raises:
        InputError: The file is no whole Parquet file or lacks a column.
    """
    try:
        # Reading ahead would keep everything that was read of the file until its end.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES) as parquet:
            columns = _columns(parquet, uri)
            for group in range(parquet.num_row_groups):
                rows = _rows_at_a_time(parquet, group)
                for batch in parquet.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                    yield from _split(batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(
            f"The raw shard {uri} is no whole Parquet file ({problem}); delete it and download it again."
        ) from error


def _columns(parquet: pq.ParquetFile, uri: str) -> list[str]:
    there = parquet.schema_arrow.names
    missing = [column for column in _COLUMNS if column not in there]
    if missing:
        raise InputError(f"The raw shard {uri} lacks the column {missing[0]!r}; download it again.")
    return [*_COLUMNS, *(column for column in SOURCE_COLUMNS if column in there)]


def _rows_at_a_time(parquet: pq.ParquetFile, group: int) -> int:
    """Return how many rows of a row group to decode at a time: as many as are likely to make a batch."""
    metadata = parquet.metadata.row_group(group)
    mean = metadata.total_byte_size / max(metadata.num_rows, 1)
    return max(1, min(BATCH_ARTICLES, int(BATCH_BYTES / max(mean, 1))))


def _split(articles: list[RawArticle]) -> Iterator[list[RawArticle]]:
    batch: list[RawArticle] = []
    size = 0
    for article in articles:
        if batch and size + size_of(article) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(article)
        size += size_of(article)
    if batch:
        yield batch
