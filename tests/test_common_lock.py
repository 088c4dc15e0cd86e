"""The lock in the store: one holder at a time, taken over from the dead only."""

import json
import os
import time

import pytest

from components.common import lock as module
from components.common import storage
from components.common.errors import StorageError
from components.common.lock import StoreLock
from tests.registry_helpers import in_process, start

ROUNDS = 3


def claims(uri: str) -> list[dict]:
    return [json.loads(storage.read(entry.uri)) for entry in storage.list_files(uri)]


def count_up(uri: str, counter: str) -> None:
    """Add one, as nobody may who does not hold the lock: by reading and writing."""
    for _ in range(ROUNDS):
        with StoreLock(uri, "the counter"):
            number = int(storage.read(counter))
            time.sleep(0.001)
            storage.write(counter, str(number + 1).encode())


def hold(uri: str) -> None:
    """Take the lock and end without giving it back."""
    StoreLock(uri, "the counter").__enter__()
    os._exit(0)


def test_processes_that_want_it_at_once_take_turns(tmp_path):
    uri, counter = f"file://{tmp_path}/lock", f"file://{tmp_path}/counter"
    storage.write(counter, b"0")
    processes = [start(count_up, uri, counter) for _ in range(4)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert storage.read(counter) == str(4 * ROUNDS).encode()
    assert [claim["released"] for claim in claims(uri)] == [True]  # only the newest claim is kept


def test_a_holder_of_this_machine_that_ended_is_replaced_at_once(tmp_path):
    uri = f"file://{tmp_path}/lock"
    assert in_process(hold, uri) == 0
    (left,) = claims(uri)
    assert not left["released"]
    begun = time.monotonic()
    with StoreLock(uri, "the counter"):
        assert time.monotonic() - begun < module.EXPIRY_SECONDS / 2
        (ours,) = claims(uri)
        assert (ours["pid"], ours["token"] == left["token"]) == (os.getpid(), False)


def test_a_holder_elsewhere_is_replaced_when_it_gives_no_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.3)
    uri = f"file://{tmp_path}/lock"
    elsewhere = module._claim_of_this_process().model_copy(update={"machine": "another", "host": "far"})
    storage.write(f"{uri}/000000000041.json", elsewhere.model_dump_json().encode())
    with StoreLock(uri, "the counter"):
        assert [entry.uri.rpartition("/")[2] for entry in storage.list_files(uri)] == ["000000000042.json"]


def test_a_living_holder_is_waited_for_and_named_when_patience_ends(tmp_path):
    uri = f"file://{tmp_path}/lock"
    with StoreLock(uri, "the counter"):
        impatient = StoreLock(uri, "the counter", patience=0.2)
        with pytest.raises(StorageError, match=rf"^The counter has been in use by process {os.getpid()} on .* minutes"):
            impatient.__enter__()
    with StoreLock(uri, "the counter", patience=0.2):
        pass


def test_a_holder_that_slept_too_long_is_told(tmp_path, monkeypatch):
    uri = f"file://{tmp_path}/lock"
    sleeper = StoreLock(uri, "the counter")
    monkeypatch.setattr(module, "BEAT_SECONDS", 3600)
    with sleeper:
        monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.0)
        with StoreLock(uri, "the counter") as other:
            with pytest.raises(StorageError, match="locked by another process while this one stood still"):
                sleeper.confirm()
            other.confirm()
    assert [claim["released"] for claim in claims(uri)] == [True]


def test_a_number_that_had_been_and_gone_does_not_count(tmp_path):
    uri = f"file://{tmp_path}/lock"
    late = StoreLock(uri, "the counter")
    for _ in range(3):
        with StoreLock(uri, "the counter"):
            pass
    assert not late._create(2)  # it saw claim 1, and slept while 2 and 3 came and went
    assert [entry.uri.rpartition("/")[2] for entry in storage.list_files(uri)] == ["000000000003.json"]


def test_signs_of_life_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    uri = f"file://{tmp_path}/lock"
    with StoreLock(uri, "the counter"):
        deadline = time.monotonic() + 60
        while claims(uri)[0]["beat"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
