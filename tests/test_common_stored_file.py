"""A file of the store that is written as it comes: whole at the end, or not there at all."""

import hashlib
from pathlib import Path

import pytest

from components.common import storage
from components.common.errors import StorageError
from components.common.shards import finished_shard, write_shard
from components.common.stored_file import StoredFile

PIECES = [bytes([number]) * 1_500_000 for number in range(20)]
CONTENT = b"".join(PIECES)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3_server"))
    return storage.to_uri(tmp_path / "store")


def test_it_holds_what_was_written_and_knows_its_size_and_hash(place: str) -> None:
    uri = storage.join(place, "folder", "file.bin")
    with StoredFile(uri) as file:
        for piece in PIECES:
            file.write(memoryview(piece))
        assert file.tell() == len(CONTENT)
        assert not storage.exists(uri)
    assert storage.read(uri) == CONTENT
    assert (file.size, file.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_a_failure_leaves_nothing_behind(place: str) -> None:
    with pytest.raises(RuntimeError, match="midway"), StoredFile(storage.join(place, "file.bin")) as file:
        for piece in PIECES:
            file.write(piece)
        raise RuntimeError("midway")
    assert storage.list_files(place) == []


def test_it_becomes_a_shard_without_being_stored_again(tmp_path: Path) -> None:
    prefix = storage.to_uri(tmp_path)
    with StoredFile(storage.join(prefix, "shard-00000.bin")) as file:
        file.write(b"content")
    shard = write_shard(prefix, "shard-00000", {".bin": file, ".txt": b"beside"}, rows=1)
    assert (shard.bytes, shard.sha256) == (7, hashlib.sha256(b"content").hexdigest())
    assert finished_shard(prefix, "shard-00000") == shard


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    uri = storage.to_uri(tmp_path / "file" / "below.bin")
    with pytest.raises(StorageError, match=r"Cannot write .*set PMC_STORE_URI"), StoredFile(uri) as file:
        file.write(CONTENT)
