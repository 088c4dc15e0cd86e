"""The rows of a Parquet file that is in memory."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.common.errors import InputError

_ROWS_AT_A_TIME = 4096


def parquet_rows(data: bytes, place: str) -> Iterator[tuple[int, Any]]:
    """Yield (row number, row).

    Raises:
        InputError: It is no Parquet file.
    """
    try:
        number = 0
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(_ROWS_AT_A_TIME):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{place} is no Parquet file ({str(error).splitlines()[0]}); check the pin.") from error
