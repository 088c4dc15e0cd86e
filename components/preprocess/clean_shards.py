"""Reading clean shards: the Parquet files that the extraction writes."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Shard


@contextlib.contextmanager
def open_clean(shard: Shard, columns: list[str]) -> Iterator[pq.ParquetFile]:
    """Open a clean shard and check that it is what its manifest says.

    Args:
        shard: The shard.
        columns: The columns that will be read.

    Raises:
        InputError: The file is damaged, lacks a column, or has not the rows its manifest names.
    """
    with storage.local_copy(shard.uri) as path:
        try:
            with pq.ParquetFile(path) as parquet:
                _check(parquet, shard, columns)
                yield parquet
        except (pa.ArrowException, OSError) as error:
            problem = str(error).splitlines()[0]
            raise InputError(f"The clean shard {shard.uri} cannot be read ({problem}); delete it and rerun.") from error


def read_rows(parquet: pq.ParquetFile, rows: list[int], columns: list[str]) -> pa.Table:
    """Read some rows, given in ascending order; row groups without any of them are not read."""
    parts = [parquet.schema_arrow.empty_table().select(columns)]
    start = 0
    for group in range(parquet.num_row_groups):
        end = start + parquet.metadata.row_group(group).num_rows
        wanted = [row - start for row in rows if start <= row < end]
        if wanted:
            parts.append(parquet.read_row_group(group, columns=columns).take(pa.array(wanted)))
        start = end
    return pa.concat_tables(parts)


def _check(parquet: pq.ParquetFile, shard: Shard, columns: list[str]) -> None:
    missing = [name for name in columns if name not in parquet.schema_arrow.names]
    rows = parquet.metadata.num_rows
    if missing or rows != shard.rows:
        wrong = f"lacks the columns {', '.join(missing)}" if missing else f"has {rows} rows, not {shard.rows}"
        raise InputError(f"The clean shard {shard.uri} {wrong}; delete it and rerun its step.")
