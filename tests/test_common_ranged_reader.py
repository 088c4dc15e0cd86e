"""A stored file is read here and there without fetching the rest, from disk and from a real S3 server."""

import io
import os
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.common import storage
from components.common.errors import StorageError
from components.common.settings import get_settings
from tests.counting_proxy import counting_proxy

CONTENT = np.random.default_rng(1).bytes(300_000)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    (tmp_path / "file with 100% odd name.bin").write_bytes(CONTENT)
    return storage.to_uri(tmp_path / "file with 100% odd name.bin")


def test_it_reads_as_a_file_does(uri: str) -> None:
    draw = np.random.default_rng(2)
    with storage.open_reader(uri) as reader, io.BytesIO(CONTENT) as file:
        assert reader.readable()
        assert reader.seekable()
        for _ in range(200):
            match draw.integers(5):
                case 0:
                    offset = int(draw.integers(0, 320_000))
                    assert reader.seek(offset) == file.seek(offset)
                case 1:
                    offset = -int(draw.integers(0, 300_000))
                    assert reader.seek(offset, io.SEEK_END) == file.seek(offset, io.SEEK_END)
                case 2:
                    assert reader.seek(7, io.SEEK_CUR) == file.seek(7, io.SEEK_CUR)
                case 3:
                    assert reader.read(5000) == file.read(5000)
                case 4:
                    one, other = bytearray(100), bytearray(100)
                    assert reader.readinto(one) == file.readinto(other)
                    assert one == other
            assert reader.tell() == file.tell()
        assert reader.seek(0) == 0
        assert reader.read() == CONTENT


def test_only_the_end_and_what_is_asked_for_is_fetched(uri: str) -> None:
    with storage.open_reader(uri) as reader:
        assert reader.bytes_read == 1 << 16
        reader.seek(-100, io.SEEK_END)
        reader.read()
        assert reader.bytes_read == 1 << 16
        reader.seek(1000)
        reader.read(200)
        assert reader.bytes_read == (1 << 16) + 200


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1])
def test_files_of_any_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:size])
    with storage.open_reader(storage.to_uri(tmp_path / "file")) as reader:
        assert reader.read() == CONTENT[:size]
        assert reader.read() == b""


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing-here: there is nothing there"):
        storage.open_reader(storage.to_uri(tmp_path / "nothing-here"))


def test_before_the_beginning_is_nowhere(uri: str) -> None:
    with storage.open_reader(uri) as reader, pytest.raises(ValueError, match="no byte -1"):
        reader.seek(-1)


def test_a_file_that_is_cut_short_meanwhile_is_named(uri: str) -> None:
    with storage.open_reader(uri) as reader:
        storage.local_path(uri).write_bytes(CONTENT[:150_000])
        reader.seek(100_000)
        with pytest.raises(StorageError, match=r"odd name\.bin"):
            reader.read(100_000)


def test_an_error_of_the_store_passes_through_pyarrow_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"number": DRAWN}), path)
    with storage.open_reader(storage.to_uri(path)) as reader:
        parquet = pq.ParquetFile(reader, pre_buffer=True)
        path.unlink()
        with pytest.raises(StorageError, match=r"table\.parquet: there is nothing there"):
            parquet.read()


DRAWN = np.random.default_rng(3).random(200_000)


def test_small_columns_travel_alone_from_a_real_s3_server(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = 8
    table = pa.table(
        {
            "id": np.arange(1024 * groups),
            "text": [CONTENT[row : row + 2000] for row in range(1024 * groups)],
            "mark": np.random.default_rng(4).random(1024 * groups),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=1024, compression="none", use_dictionary=False)
    uri = storage.join(s3_server, "table.parquet")
    storage.write(uri, buffer.getvalue())
    with counting_proxy(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        get_settings.cache_clear()
        storage._s3_store.cache_clear()
        with storage.open_reader(uri) as reader:
            found = pq.ParquetFile(reader, pre_buffer=True).read(["id", "mark"])
            fetched = reader.bytes_read
        assert found.equals(table.select(["id", "mark"]))
        wanted = 1024 * groups * 16 + (1 << 16)  # less what of it is in the end of the file
        assert len(buffer.getvalue()) > 16_000_000
        # What the server sent over the wire, with HTTP's headers.
        assert 0.9 * wanted < fetched <= proxy.received < 1.1 * wanted
        with pytest.raises(StorageError, match=r"no-such\.parquet: there is nothing there"):
            storage.open_reader(storage.join(s3_server, "no-such.parquet"))
