"""Manifests, fingerprints and shards."""

from pathlib import Path

import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes, sha256_file
from components.common.manifest import Manifest, Rejected, Shard
from components.common.shards import finished_shard, write_shard


def _manifest() -> Manifest:
    shard = Shard(name="shard-00000", uri="s3://b/shard-00000.bin", rows=2, bytes=10, sha256="0" * 64)
    return Manifest(
        kind="raw",
        fingerprint="f" * 16,
        inputs={"plan": "p"},
        settings={"x": 1},
        shards=[shard],
        totals={"listed": 3},
        dropped={"language": 1},
        rejected=[Rejected(id="a", reason="not-xml", detail="<")],
    )


def test_a_manifest_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    _manifest().save(tmp_path / "deep" / "m.json")
    assert Manifest.load(tmp_path / "deep" / "m.json") == _manifest()
    uri = storage.to_uri(tmp_path / "m2.json")
    _manifest().save_uri(uri)
    assert Manifest.load_uri(uri) == _manifest()


def test_its_metadata_are_flat_and_count_what_was_left_out() -> None:
    metadata = _manifest().metadata()
    assert metadata["dropped_language"] == 1
    assert metadata["rejected"] == 1
    assert metadata["bytes"] == 10
    assert all(isinstance(value, str | int | float) for value in metadata.values())


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"kind": 3}')
    with pytest.raises(InputError, match=r"m\.json is no manifest"):
        Manifest.load(tmp_path / "m.json")
    with pytest.raises(InputError, match=r"missing\.json"):
        Manifest.load(tmp_path / "missing.json")


def test_a_missing_shard_is_named_with_those_that_are_there() -> None:
    with pytest.raises(InputError, match=r"no shard 'x'.*shard-00000"):
        _manifest().shard("x")


def test_a_fingerprint_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [1.5, None]}) == fingerprint({"b": [1.5, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint("a", "b") != fingerprint("ab")
    assert len(fingerprint("x")) == 16
    with pytest.raises(TypeError):
        fingerprint(object())


def test_a_file_hashes_like_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert sha256_file(tmp_path / "f") == sha256_bytes(b"x" * 3_000_000)


def test_a_shard_is_finished_only_with_its_sidecar_and_its_data(tmp_path: Path) -> None:
    prefix = storage.to_uri(tmp_path / "out")
    assert finished_shard(prefix, "s") is None
    storage.write(storage.join(prefix, "s.bin"), b"half")
    assert finished_shard(prefix, "s") is None
    written = write_shard(prefix, "s", {".bin": b"whole", ".idx": b"i"}, rows=1, stats={"kept": 1})
    assert finished_shard(prefix, "s") == written
    assert written.sha256 == sha256_bytes(b"whole")
    (tmp_path / "out" / "s.bin").unlink()
    assert finished_shard(prefix, "s") is None


def test_a_sidecar_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    prefix = storage.to_uri(tmp_path)
    write_shard(prefix, "s", {".bin": b"x"}, rows=1)
    (tmp_path / "s.json").write_bytes((tmp_path / "s.json").read_bytes()[:-20])
    assert finished_shard(prefix, "s") is None


def test_a_store_that_was_moved_keeps_its_shards(tmp_path: Path) -> None:
    write_shard(storage.to_uri(tmp_path / "a"), "s", {".bin": b"x"}, rows=1)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = finished_shard(storage.to_uri(tmp_path / "b"), "s")
    assert moved is not None
    assert storage.read(moved.uri) == b"x"
