"""One token shard: in place or from a store, checked in full, and every fault named."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from obstore.store import S3Store
from train_helpers import VOCABULARY, documents, token_shard, write_corpus

from components.common import storage
from components.common.errors import InputError, StorageError
from components.train.data import fetch
from components.train.data.fetch import FetchStopped, check_room, fetch_index, fetch_tokens, local_file
from components.train.launching.job import TokenShard
from tests.fault_server import FaultServer

BUCKET = "tokens"


def on_disk(folder: Path) -> tuple[TokenShard, Path]:
    """One good token shard in a store on this machine."""
    shard = token_shard(write_corpus(f"file://{folder}", [documents(5)]).shards[0])
    return shard, storage.local_path(shard.uri)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """A store elsewhere, which can be told to misbehave; its client does not try again by itself."""
    (tmp_path / "bucket").mkdir()
    with FaultServer(tmp_path / "bucket", bucket=BUCKET) as running:
        store = S3Store(
            BUCKET,
            endpoint=running.endpoint,
            region="us-east-1",
            skip_signature=True,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        monkeypatch.setattr(storage, "_s3_store", lru_cache(lambda _bucket: store))
        yield running


def remote(server: FaultServer) -> TokenShard:
    """One good token shard elsewhere."""
    shard, _ = on_disk(server.folder)
    return shard.model_copy(update={"uri": f"s3://{BUCKET}/{shard.name}.bin"})


def bring(shard: TokenShard, folder: Path, vocabulary: int = VOCABULARY) -> Path:
    """Index and tokens, as a run fetches them."""
    folder.mkdir(exist_ok=True)
    fetch_index(shard, folder, "uint16", Event())
    fetch_tokens(shard, folder, "uint16", vocabulary, Event())
    return local_file(shard, folder)


def test_a_good_shard_is_read_where_it_is(tmp_path: Path) -> None:
    shard, file = on_disk(tmp_path)
    assert bring(shard, tmp_path / "scratch") == file
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_corrupt_shard_is_named_and_refused(tmp_path: Path) -> None:
    shard, file = on_disk(tmp_path)
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00000 is corrupt.*SHA-256"):
        bring(shard, tmp_path)


def test_a_shard_that_is_cut_short_is_refused_with_its_sizes_before_it_is_read(tmp_path: Path) -> None:
    shard, file = on_disk(tmp_path)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match=rf"train-00000 is corrupt: .* has {2 * shard.tokens - 3} bytes, its manifest"):
        fetch_index(shard, tmp_path, "uint16", Event())
    with pytest.raises(InputError, match="train-00000 is corrupt"):
        fetch_tokens(shard, tmp_path, "uint16", VOCABULARY, Event())


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_missing_shard_is_named(tmp_path: Path, suffix: str) -> None:
    shard, file = on_disk(tmp_path)
    file.with_suffix(suffix).unlink()
    with pytest.raises(InputError, match=f"train-00000 is missing.*{suffix}"):
        bring(shard, tmp_path)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    shard, _ = on_disk(tmp_path)
    with pytest.raises(InputError, match=r"train-00000 holds token id \d+, but the vocabulary ends at 29"):
        bring(shard, tmp_path, vocabulary=30)


def test_the_largest_id_is_found_across_the_edges_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_CHUNK_BYTES", 7)
    shard, _ = on_disk(tmp_path)
    largest = int(np.fromfile(tmp_path / "train-00000.bin", dtype="<u2").max())
    bring(shard, tmp_path, vocabulary=largest + 1)
    with pytest.raises(InputError, match=f"holds token id {largest}"):
        bring(shard, tmp_path, vocabulary=largest)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda offsets: offsets[:-1], "lists 4 documents, the manifest 5"),
        (lambda offsets: offsets[:0], "lists -1 documents, the manifest 5"),
        (lambda offsets: np.append(offsets[:-1], offsets[-1] + 1), "spans tokens 0 to"),
        (lambda offsets: offsets + 1, "spans tokens 1 to"),
        (lambda offsets: np.insert(np.delete(offsets, 2), 2, offsets[1]), "document 1 has no tokens"),
        (lambda offsets: offsets[[0, 2, 1, 3, 4, 5]], "document 1 has no tokens"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], fault: str
) -> None:
    shard, file = on_disk(tmp_path)
    index = file.with_suffix(".idx")
    change(np.fromfile(index, dtype="<i8")).astype("<i8").tofile(index)
    with pytest.raises(InputError, match=fault):
        bring(shard, tmp_path)


def test_an_index_is_checked_by_its_hash_where_the_manifest_says_it(tmp_path: Path) -> None:
    shard, file = on_disk(tmp_path)
    index = file.with_suffix(".idx")
    shard = shard.model_copy(update={"index_sha256": hashlib.sha256(index.read_bytes()).hexdigest()})
    bring(shard, tmp_path)
    offsets = np.fromfile(index, dtype="<i8")
    offsets[1] -= 1  # still a list of documents that fits
    offsets.tofile(index)
    with pytest.raises(InputError, match=r"index of token shard train-00000 is corrupt.*SHA-256"):
        bring(shard, tmp_path)


def test_a_remote_shard_comes_whole_and_under_a_name_of_ours(server: FaultServer, tmp_path: Path) -> None:
    shard = remote(server).model_copy(update={"name": "../../out"})
    file = bring(shard, tmp_path / "scratch")
    assert file.parent == tmp_path / "scratch"
    assert file.read_bytes() == (server.folder / "train-00000.bin").read_bytes()
    assert {each.name for each in file.parent.iterdir()} == {file.name, file.with_suffix(".idx").name}


@pytest.mark.parametrize("kind", ["wrong_bytes", "truncate"])
def test_a_remote_shard_that_comes_wrong_leaves_nothing_behind(server: FaultServer, tmp_path: Path, kind: str) -> None:
    shard = remote(server)
    (tmp_path / "scratch").mkdir()
    server.fault(r"\.bin$", kind, times=1)  # type: ignore[arg-type]
    if kind == "wrong_bytes":
        with pytest.raises(InputError, match="train-00000 is corrupt"):
            fetch_tokens(shard, tmp_path / "scratch", "uint16", VOCABULARY, Event())
        assert list((tmp_path / "scratch").iterdir()) == []
    else:  # a connection that breaks is tried again
        fetch_tokens(shard, tmp_path / "scratch", "uint16", VOCABULARY, Event())
        assert local_file(shard, tmp_path / "scratch").read_bytes() == (server.folder / "train-00000.bin").read_bytes()


def test_a_store_that_answers_500_for_a_while_is_waited_for(
    server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = remote(server)
    server.fault(r"\.idx$", "status", times=1, status=500)
    server.fault(r"\.bin$", "status", times=2, status=503)
    with caplog.at_level(logging.WARNING):
        bring(shard, tmp_path / "scratch")
    assert server.counts["status"] == 3
    assert [record.message for record in caplog.records if "Trying again" in record.message]


def test_a_store_that_stays_down_ends_the_run_with_its_name(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.5)
    shard = remote(server)
    server.fault(r".", "status", status=500, methods=("GET", "HEAD"))
    with pytest.raises(StorageError, match=f"s3://{BUCKET}/train-00000"):
        bring(shard, tmp_path / "scratch")


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_missing_remote_shard_is_named_at_once(server: FaultServer, tmp_path: Path, suffix: str) -> None:
    shard = remote(server)
    (server.folder / f"train-00000{suffix}").unlink()
    with pytest.raises(InputError, match=f"train-00000 is missing: s3://{BUCKET}/train-00000{suffix} does not exist"):
        fetch_index(shard, tmp_path, "uint16", Event())


def test_a_remote_shard_that_vanishes_meanwhile_is_named(server: FaultServer, tmp_path: Path) -> None:
    shard = remote(server)
    fetch_index(shard, tmp_path, "uint16", Event())
    (server.folder / "train-00000.bin").unlink()
    with pytest.raises(InputError, match="train-00000 is missing"):
        fetch_tokens(shard, tmp_path, "uint16", VOCABULARY, Event())


def test_a_copy_of_an_earlier_attempt_is_used_only_if_it_is_right(server: FaultServer, tmp_path: Path) -> None:
    shard = remote(server)
    file = bring(shard, tmp_path / "scratch")
    right = file.read_bytes()
    server.forget()
    fetch_tokens(shard, tmp_path / "scratch", "uint16", VOCABULARY, Event())
    assert server.keys() == []
    file.write_bytes(right[:-2] + b"\0\0")
    fetch_tokens(shard, tmp_path / "scratch", "uint16", VOCABULARY, Event())
    assert server.keys() == ["train-00000.bin"]
    assert file.read_bytes() == right


def test_a_full_disk_is_one_sentence(server: FaultServer, tmp_path: Path) -> None:
    shard = remote(server)
    (tmp_path / "scratch").mkdir()
    file = local_file(shard, tmp_path / "scratch")
    file.with_suffix(".bin.partial").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"^The disk of .*scratch is full: token shard train-00000 does not fit\."):
        fetch_tokens(shard, tmp_path / "scratch", "uint16", VOCABULARY, Event())
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_disk_too_small_for_all_shards_is_told_before_anything_comes(server: FaultServer, tmp_path: Path) -> None:
    shard = remote(server).model_copy(update={"tokens": 10**18})
    with pytest.raises(InputError, match=r"shards take 2,000,000,000.00 GB, but the disk of .* left"):
        check_room([shard], tmp_path / "scratch", "uint16")
    check_room([on_disk(tmp_path)[0].model_copy(update={"tokens": 10**18})], tmp_path, "uint16")  # read where it is


def test_a_run_that_ends_stops_fetching(server: FaultServer, tmp_path: Path) -> None:
    shard, stop = remote(server), Event()
    stop.set()
    with pytest.raises(FetchStopped):
        fetch_tokens(shard, tmp_path, "uint16", VOCABULARY, stop)
    assert not any(each.suffix in (".bin", ".partial") for each in tmp_path.iterdir() if each.is_file())
