"""Training against an S3 store: nothing is left to the local disk, and the store may go away for a while."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from obstore.store import S3Store
from train_helpers import alone, documents, losses, make_job, tiny_settings, train_here, write_corpus, write_model

from components.common import storage
from components.common.errors import StorageError
from components.common.settings import get_settings
from components.train.checkpoints import lease
from components.train.checkpoints.checkpoints import Checkpoints
from components.train.checkpoints.lease import Lease
from components.train.checkpoints.places import complete_steps, stored_files
from components.train.distributed import Layout


def test_a_stopped_run_resumes_from_s3_on_another_machine_to_the_same_bits(tmp_path: Path, s3_server: str) -> None:
    corpus = write_corpus(f"{s3_server}/corpus", [documents(45)[:20], documents(45)[20:]])
    write_model(tmp_path / "base")
    storage.upload_folder(tmp_path / "base", f"{s3_server}/base/model")
    base = write_model(tmp_path / "base").model_copy(update={"extra": {"model_uri": f"{s3_server}/base/model"}})
    job = make_job(corpus, base, tiny_settings(checkpoint_every_steps=4), tmp_path / "whole")
    remote = job.model_copy(update={"output_uri": f"{s3_server}/train"})
    place = f"{s3_server}/train/checkpoints"

    with alone() as layout:
        train_here(job, layout)
        with pytest.raises(SystemExit):
            train_here(remote.model_copy(update={"scratch_folder": tmp_path / "first"}), layout, stop_at_step=7)
        assert complete_steps(place) == [4, 7]
        storage.write(f"{place}/step-00000009/rank-00000.bin", b"an upload that was cut short")
        half = storage.read(f"{place}/step-00000007/rank-00000.bin")[:-1]
        storage.write(f"{place}/step-00000007/rank-00000.bin", half)
        train_here(remote.model_copy(update={"scratch_folder": tmp_path / "second"}), layout)

    assert complete_steps(place) == [8, 12]
    assert set(stored_files(place)) == {8, 12}
    assert not storage.exists(f"{place}/OWNER")
    (tmp_path / "fetched").mkdir()
    storage.download(f"{s3_server}/train/losses.jsonl", tmp_path / "fetched" / "losses.jsonl")
    assert losses(tmp_path / "fetched") == losses(tmp_path / "whole")
    names = {entry.uri.rpartition("/")[2] for entry in storage.list_files(f"{s3_server}/train/model")}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names


class Road:
    """A TCP proxy to the store that can be closed: then connections break and new ones are cut at once."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = True
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Break everything."""
        self._open = False
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def reopen(self) -> None:
        """Let connections through again."""
        self._sockets, self._open = [], True

    def end(self) -> None:
        """Stop listening."""
        self.close()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self._open:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def road(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """The way to the store; the client's own retries are short."""
    road = Road(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{road.port}")

    def impatient(*names: Any, **options: Any) -> S3Store:
        return S3Store(*names, **(options | {"retry_config": {"max_retries": 0}}))

    monkeypatch.setattr(storage, "S3Store", impatient)
    get_settings.cache_clear()
    storage._s3_store.cache_clear()
    yield road
    road.end()


def test_training_goes_on_while_the_store_is_away_and_the_save_is_made_good_or_ends_the_run(
    s3_server: str, road: Road, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"{s3_server}/run/checkpoints"
    model = torch.nn.Linear(512, 4096)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 512)).sum().backward()
    optimiser.step()
    with alone() as layout:
        with Checkpoints(place, tiny_settings(checkpoint_every_steps=1, checkpoint_retry_minutes=1), layout) as saved:
            saved.save(model, optimiser, [{"step": 1}])
            saved.finish()
            road.close()
            saved.save(model, optimiser, [{"step": 1}, {"step": 2}])
            steps = train_on(saved, seconds=3)
            assert steps > 20
            assert "A checkpoint waits for the store, training goes on: Cannot write" in caplog.text
            road.reopen()
            saved.finish()
            assert complete_steps(place) == [1, 2]
        with pytest.raises(
            StorageError, match=rf"step-00000003 could not be stored \(Cannot write {place}/step-0+3/.*run"
        ):
            lose_the_store(place, road, model, optimiser, layout)
        road.reopen()
        assert complete_steps(place) == [1, 2]


def train_on(checkpoints: Checkpoints, seconds: float) -> int:
    """Ask as the loop does after every step; returns how many there were."""
    steps, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        assert not checkpoints.due(100 + steps)  # one is under way
        time.sleep(0.02)
        steps += 1
    return steps


def lose_the_store(
    place: str, road: Road, model: torch.nn.Module, optimiser: torch.optim.Optimizer, layout: Layout
) -> None:
    """Save while the store is away for longer than the settings allow."""
    settings = tiny_settings(checkpoint_every_steps=1, checkpoint_retry_minutes=1 / 60)
    with Checkpoints(place, settings, layout) as checkpoints:
        road.close()
        checkpoints.save(model, optimiser, [{"step": 1}, {"step": 2}, {"step": 3}])
        train_on(checkpoints, seconds=60)


def test_two_runs_do_not_share_a_place_in_a_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.15)
    monkeypatch.setattr(Lease, "_may_take", lambda self, holder: False)  # as if they ran on two machines
    first, second = (Lease(f"{s3_server}/place", name) for name in ("run-1", "run-2"))
    first.claim()
    with pytest.raises(StorageError, match=r"place is in use by process \d+ on \S+ \(pipeline run run-1\)"):
        second.claim()
    first._ended.set()  # it dies without a word
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1.0)
    started = time.monotonic()
    second.claim()
    assert time.monotonic() - started >= 1
    with pytest.raises(StorageError, match=r"was taken over by process \d+ on \S+ \(pipeline run run-2\)"):
        first.confirm()
    second.release()
    assert storage.list_files(f"{s3_server}/place") == []
