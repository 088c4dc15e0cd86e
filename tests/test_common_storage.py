"""The store on disk and on a real S3 server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.common import storage
from components.common.errors import StorageError
from components.common.settings import get_settings


def test_a_folder_with_odd_characters_gives_back_what_was_written(tmp_path: Path) -> None:
    root = storage.to_uri(tmp_path / "sp ace%20" / "ü#?")
    storage.write(storage.join(root, "a", "b.txt"), b"hello")
    assert storage.read(storage.join(root, "a", "b.txt")) == b"hello"
    assert [(storage.relative(e.uri, root), e.size) for e in storage.list_files(root)] == [("a/b.txt", 5)]


def test_what_is_not_there_does_not_exist(tmp_path: Path) -> None:
    root = storage.to_uri(tmp_path)
    assert not storage.exists(storage.join(root, "nothing"))
    assert storage.list_files(storage.join(root, "nothing")) == []
    with pytest.raises(StorageError, match="nothing there"):
        storage.read(storage.join(root, "nothing"))


def test_of_two_that_create_a_file_one_does(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "owner")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read(uri) == b"first"
    storage.delete(uri)
    storage.delete(uri)  # nothing there is fine
    assert storage.create(uri, b"second")


def test_a_part_of_a_file_is_read_and_may_be_changed(tmp_path: Path) -> None:
    uri = storage.to_uri(tmp_path / "numbers")
    storage.write(uri, b"0123456789")
    part = storage.read_range(uri, 3, 4)
    part[0] = 0
    assert part == b"\x00456"
    with pytest.raises(StorageError, match="Cannot read"):
        storage.read_range(uri, 20, 4)


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(StorageError, match="gs://bucket"):
        storage.to_uri("gs://bucket/x")


def test_a_folder_goes_up_and_comes_down(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "x.bin").write_bytes(b"x" * 100_000)
    uri = storage.to_uri(tmp_path / "store" / "model")
    storage.upload_folder(source, uri)
    storage.download_folder(uri, tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "x.bin").read_bytes() == b"x" * 100_000
    with storage.local_copy(uri) as local:
        assert local == tmp_path / "store" / "model"


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="PMC_STORE_URI"):
        storage.check_writable(storage.to_uri(tmp_path / "file" / "store"))


def test_an_unwritable_store_is_one_sentence() -> None:
    with pytest.raises(StorageError, match="Cannot write file:///proc/pmc"):
        storage.check_writable("file:///proc/pmc")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount here")
    try:
        uri = storage.to_uri(disk / "big.bin")
        with pytest.raises(StorageError, match="disk is full"):
            storage.write(uri, b"x" * 1_000_000)
        assert not storage.exists(uri)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_s3_reads_writes_lists_and_deletes(s3_server: str, tmp_path: Path) -> None:
    root = storage.join(s3_server, "prefix")
    storage.check_writable(root)
    storage.write(storage.join(root, "a/1.txt"), b"one")
    (tmp_path / "two").write_bytes(b"2" * 6_000_000)
    storage.upload(tmp_path / "two", storage.join(root, "a/2.bin"))
    assert [(storage.relative(e.uri, root), e.size) for e in storage.list_files(root)] == [
        ("a/1.txt", 3),
        ("a/2.bin", 6_000_000),
    ]
    with storage.local_copy(storage.join(root, "a")) as folder:
        assert (folder / "1.txt").read_bytes() == b"one"
        assert (folder / "2.bin").stat().st_size == 6_000_000
    assert storage.exists(storage.join(root, "a/1.txt"))
    assert not storage.exists(storage.join(root, "a/3.txt"))
    storage.delete_prefix(root)
    assert storage.list_files(root) == []


def test_s3_creates_a_file_once(s3_server: str) -> None:
    uri = f"{s3_server}/lease/OWNER"
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read_range(uri, 1, 3) == b"irs"
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_s3_refuses_wrong_keys_clearly(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage._s3_store.cache_clear()
    with pytest.raises(StorageError, match="credentials"):
        storage.check_writable(s3_server)


def test_s3_without_a_bucket_or_without_keys_is_one_sentence(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="no-such-bucket"):
        storage.read("s3://no-such-bucket/key")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    storage._s3_store.cache_clear()
    get_settings.cache_clear()
    with pytest.raises(StorageError, match="credentials"):
        storage.read(f"{s3_server}/key")


def test_importing_the_store_brings_no_torch() -> None:
    code = "import sys, components.common.storage, components.common.step; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
