"""Shards that come while the model trains: in which order, who learns of them, and how it ends."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from components.common.errors import InputError, StorageError, TrainingError
from components.train.data.background import BackgroundFetch, NodeArrivals
from components.train.data.fetch import FetchStopped
from components.train.data.shelf import Shelf

FILES = [Path(f"/shards/{number}.bin") for number in range(6)]
PATIENCE = 20


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path, FILES)
    shelf.clear()
    return shelf


@pytest.fixture
def start(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BackgroundFetch]]:
    """Start fetching with one thread; what is started ends with the test."""
    monkeypatch.setattr("components.train.data.background._MOST_THREADS", 1)
    started = []

    def begin(fetch: Callable[[Path, Event], None]) -> BackgroundFetch:
        fetching = BackgroundFetch(fetch, shelf)
        started.append(fetching)
        fetching.start(FILES)
        return fetching

    yield begin
    for each in started:
        each.close()


def in_thread(action: Callable[[], None]) -> tuple[threading.Thread, list[Exception]]:
    errors: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_shards_come_in_order_and_what_is_needed_first_comes_first(
    shelf: Shelf, start: Callable[..., BackgroundFetch]
) -> None:
    fetched, go = [], threading.Semaphore(0)

    def fetch(file: Path, stop: Event) -> None:
        go.acquire(timeout=PATIENCE)
        fetched.append(file)

    fetching = start(fetch)
    go.release()
    shelf.wait_for(FILES[:1])
    assert NodeArrivals(shelf, fetching).expect([FILES[4], FILES[0], FILES[5]])
    for _ in FILES:
        go.release()
    shelf.wait_for(FILES)
    assert fetched[0] == FILES[0]
    assert sorted(fetched) == FILES
    assert fetched.index(FILES[5]) < fetched.index(FILES[2]) < fetched.index(FILES[3])
    assert fetched.index(FILES[4]) < fetched.index(FILES[2])


def test_the_first_shard_can_be_used_while_the_last_has_not_come(
    shelf: Shelf, start: Callable[..., BackgroundFetch]
) -> None:
    last = Event()

    def fetch(file: Path, stop: Event) -> None:
        if file == FILES[-1]:
            last.wait(PATIENCE)

    start(fetch)
    shelf.wait_for(FILES[:-1])
    waiting, errors = in_thread(lambda: shelf.wait_for(FILES))
    waiting.join(0.2)
    assert waiting.is_alive()
    last.set()
    waiting.join(PATIENCE)
    assert not errors
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (InputError("Token shard 3 is corrupt"), InputError),
        (StorageError("The disk is full"), StorageError),
        (ValueError("a fault of ours"), TrainingError),
    ],
)
def test_a_failure_reaches_every_process_of_the_node(
    tmp_path: Path, shelf: Shelf, start: Callable[..., BackgroundFetch], error: Exception, seen: type[Exception]
) -> None:
    def fetch(file: Path, stop: Event) -> None:
        if file == FILES[3]:
            raise error

    start(fetch)
    other = Shelf(tmp_path, FILES)  # as another process sees it
    for each in (shelf, other):
        with pytest.raises(seen, match=str(error)):
            each.wait_for([FILES[5]])
        with pytest.raises(seen, match=str(error)):
            each.wait_for([])  # also who has all it needs


def test_the_first_failure_is_the_one_that_is_told(shelf: Shelf) -> None:
    shelf.fail(InputError("first"))
    shelf.fail(InputError("second"))
    with pytest.raises(InputError, match="first"):
        shelf.check()


def test_a_new_attempt_forgets_what_the_one_before_it_said(tmp_path: Path, shelf: Shelf) -> None:
    shelf.put(FILES[0])
    shelf.fail(InputError("corrupt"))
    again = Shelf(tmp_path, FILES)
    again.clear()
    again.check()
    waiting, errors = in_thread(lambda: again.wait_for(FILES[:1]))
    waiting.join(0.1)
    assert waiting.is_alive()
    again.put(FILES[0])
    waiting.join(PATIENCE)
    assert not errors


def test_who_waits_learns_that_the_process_that_fetches_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from components.train.data.shelf import Shelf;"
        "Shelf(Path(sys.argv[1]), [Path('/a')]).clear(); print('ready', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=root, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        waiting, errors = in_thread(lambda: Shelf(tmp_path, [Path("/a")]).wait_for([Path("/a")]))
        waiting.join(0.1)
        assert waiting.is_alive()
        process.kill()
        process.wait()
        waiting.join(PATIENCE)
    assert isinstance(errors[0], TrainingError)
    assert "has ended" in str(errors[0])


def test_closing_leaves_no_thread(shelf: Shelf, start: Callable[..., BackgroundFetch]) -> None:
    began = Event()

    def fetch(file: Path, stop: Event) -> None:
        began.set()
        stop.wait(PATIENCE)
        raise FetchStopped

    fetching = start(fetch)
    began.wait(PATIENCE)
    since = time.monotonic()
    fetching.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]
    assert time.monotonic() - since < PATIENCE / 2
    shelf.check()  # an end is no failure
