"""Clean shards are read in parts, and one that is not what its manifest says is named."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from preprocess_helpers import clean_shard, document

from components.common import storage
from components.common.errors import InputError, StorageError
from components.common.manifest import Shard
from components.preprocess.clean_shards import open_clean, read_groups, read_rows

ROWS = 25  # in row groups of seven


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return clean_shard(tmp_path, "shard-00000", [document(f"PMC{number}", f"text {number}") for number in range(ROWS)])


@pytest.mark.parametrize("rows", [[], [0], [24], [6, 7], [0, 1, 13, 14, 20, 24], list(range(ROWS))])
def test_exactly_the_rows_that_are_asked_for_are_read(shard: Shard, rows: list[int]) -> None:
    with open_clean(shard, ["text", "article_id"]) as parquet:
        table = read_rows(parquet, rows, ["text", "article_id"])
        assert table.column_names == ["text", "article_id"]
        assert table["text"].to_pylist() == [f"text {row}" for row in rows]
        assert [len(part) for part in read_groups(parquet, rows, ["text"])] == [
            sum(row // 7 == group for row in rows) for group in range(4) if any(row // 7 == group for row in rows)
        ]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, -10, -1])
def test_a_shard_cut_short_names_itself(shard: Shard, kept: float, at_once: bool) -> None:
    path = storage.local_path(shard.uri)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else int(kept)])
    with (
        pytest.raises(InputError, match=r"clean/shard-00000\.parquet cannot be read \(.*delete it and rerun"),
        open_clean(shard, ["text"], at_once) as parquet,
    ):
        parquet.read(["text"])


@pytest.mark.parametrize("at_once", [False, True])
def test_damage_inside_a_shard_names_it(shard: Shard, at_once: bool) -> None:
    path = storage.local_path(shard.uri)
    content = bytearray(path.read_bytes())
    for group in range(4):
        column = pq.ParquetFile(path).metadata.row_group(group).column(2)
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    with (
        pytest.raises(InputError, match=r"clean/shard-00000\.parquet cannot be read"),
        open_clean(shard, ["text"], at_once) as parquet,
    ):
        parquet.read(["text"])


def test_what_does_not_fit_the_manifest_is_named(shard: Shard) -> None:
    with pytest.raises(InputError, match=r"lacks the columns colour, smell"), open_clean(shard, ["colour", "smell"]):
        pass
    other = shard.model_copy(update={"rows": 26})
    with pytest.raises(InputError, match=r"shard-00000\.parquet has 25 rows, not 26"), open_clean(other, ["text"]):
        pass
    gone = shard.model_copy(update={"uri": shard.uri.replace("00000", "00009")})
    with pytest.raises(StorageError, match=r"shard-00009\.parquet: there is nothing there"), open_clean(gone, ["text"]):
        pass
