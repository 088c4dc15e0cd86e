"""The earlier state of a shard: what is known of its articles, so that only what is new or changed is fetched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.common.article_index import FETCHED

_ROWS_AT_A_TIME = 64


class PreviousShard:
    """An earlier state of a shard: its index, and its articles in the order of the shard."""

    def __init__(self, index: pa.Table, articles: Path, same_place: bool = True) -> None:
        """Bind the index and the Parquet file of the articles; another place's may hold articles of other shards."""
        self._index = {row["article_id"]: row for row in index.to_pylist()}
        self._articles = articles
        self.same_place = same_place

    def known(self, article_id: str) -> dict[str, Any] | None:
        """Return what the index says of an article."""
        return self._index.get(article_id)

    def fetched_ids(self) -> list[str]:
        """Return the ids of the articles that were fetched."""
        return [article_id for article_id, row in self._index.items() if row["outcome"] == FETCHED]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the fetched articles, in their order; only a few are in memory at a time."""
        with pq.ParquetFile(self._articles) as parquet:
            for batch in parquet.iter_batches(_ROWS_AT_A_TIME):
                yield from batch.to_pylist()
