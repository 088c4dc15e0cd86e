"""Reading clean shards: the Parquet files that the extraction writes."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Shard


@contextlib.contextmanager
def open_clean(shard: Shard, columns: list[str], at_once: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a clean shard and check that it is what its manifest says.

    Of a shard in a bucket only what is read of it travels, column by column and row group by row group.

    Args:
        shard: The shard.
        columns: The columns that will be read.
        at_once: These columns are small, and will be read in one go: few requests instead of little memory.

    Raises:
        InputError: The file is damaged, lacks a column, or has not the rows its manifest names.
        StorageError: The store has no such file or refuses.
    """
    with storage.open_reader(shard.uri) as file:
        try:
            with pq.ParquetFile(file, pre_buffer=at_once) as parquet:
                _check(parquet, shard, columns)
                yield parquet
        except (pa.ArrowException, OSError) as error:
            problem = str(error).splitlines()[0]
            raise InputError(f"The clean shard {shard.uri} cannot be read ({problem}); delete it and rerun.") from error


def read_rows(parquet: pq.ParquetFile, rows: list[int], columns: list[str]) -> pa.Table:
    """Read some rows, given in ascending order; row groups without any of them are not read."""
    parts = [parquet.schema_arrow.empty_table().select(columns)]
    return pa.concat_tables([*parts, *read_groups(parquet, rows, columns)])


def read_groups(parquet: pq.ParquetFile, rows: list[int], columns: list[str]) -> Iterator[pa.Table]:
    """Read some rows, given in ascending order, those of one row group at a time."""
    sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    cuts = np.searchsorted(rows, starts)
    for group, start in enumerate(starts[:-1].tolist()):
        wanted = np.asarray(rows[cuts[group] : cuts[group + 1]], dtype=np.int64) - start
        if len(wanted):
            yield parquet.read_row_group(group, columns=columns).take(pa.array(wanted))


def _check(parquet: pq.ParquetFile, shard: Shard, columns: list[str]) -> None:
    missing = [name for name in columns if name not in parquet.schema_arrow.names]
    rows = parquet.metadata.num_rows
    if missing or rows != shard.rows:
        wrong = f"lacks the columns {', '.join(missing)}" if missing else f"has {rows} rows, not {shard.rows}"
        raise InputError(f"The clean shard {shard.uri} {wrong}; delete it and rerun its step.")
