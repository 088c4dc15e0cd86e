"""Reading many small objects: order, retries and their budget, throttling."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.store import S3Store

from components.common.pmc.settings import TransportSettings
from components.common.transport import FetchError, Throttle, Transport, with_md5
from tests.fault_server import FaultServer

QUICK = TransportSettings(attempts=3, longest_backoff_seconds=0.02, read_timeout_seconds=1, concurrency=8)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultServer]:
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"object {number}")
    with FaultServer(tmp_path) as server:
        yield server


def transport(server: FaultServer, settings: TransportSettings = QUICK) -> Transport:
    store = S3Store(
        server.bucket,
        endpoint=server.endpoint,
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "read_timeout": "1s"},
        retry_config={"max_retries": 0},
    )
    return Transport(store, settings)


def test_results_come_in_the_order_of_the_items_whatever_is_ready_first(server: FaultServer) -> None:
    server.fault(r"^[0-5]\.txt", "late", seconds=0.1)
    reader = transport(server)
    keys = [f"{number}.txt" for number in range(60)]
    for batch in (1, 4):
        got = list(reader.map(lambda key: reader.get(key, bytes).decode(), keys, batch=batch))
        assert got == [f"object {number}" for number in range(60)]


def test_only_a_few_items_are_taken_ahead_of_the_reader() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    reader = Transport(None, QUICK)  # type: ignore[arg-type]
    results = reader.map(lambda number: number, items())
    assert next(results) == 0
    assert len(taken) <= 2 * QUICK.concurrency
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_what_cannot_succeed_is_not_tried_again(server: FaultServer) -> None:
    server.fault(r"^1\.txt", "status", status=400)
    server.fault(r"^2\.txt", "status", status=403)
    reader = transport(server)
    for key, reason in (("nothing.txt", "missing"), ("1.txt", "http-400"), ("2.txt", "forbidden")):
        with pytest.raises(FetchError) as caught:
            reader.get(key, bytes)
        assert caught.value.reason == reason
        assert key in caught.value.detail
    assert len(server.keys()) == 3


def test_attempts_end_at_the_recipes_number(server: FaultServer) -> None:
    server.fault(r"^1\.txt", "status")
    with pytest.raises(FetchError, match="http-500"):
        transport(server).get("1.txt", bytes)
    assert len(server.keys()) == QUICK.attempts


def test_busy_answers_do_not_count_as_attempts(server: FaultServer) -> None:
    server.fault(r"^1\.txt", "slow_down", times=8)
    assert transport(server).get("1.txt", bytes) == b"object 1"
    assert len(server.keys()) == 9


def test_a_failed_check_is_a_failed_read(server: FaultServer) -> None:
    server.fault(r"^1\.txt", "wrong_bytes", times=1)
    md5 = "c9a0bd4b37ba6eb1f36b1ea4b8ef3a0e"
    with pytest.raises(FetchError, match="md5-mismatch"):
        transport(server).get("2.txt", with_md5(md5, "2.txt"))

    def is_object(data: memoryview) -> bytes:
        if bytes(data) != b"object 1":
            raise FetchError("other", "not what it was", retry=True)
        return bytes(data)

    assert transport(server).get("1.txt", is_object) == b"object 1"


def test_a_broken_server_is_not_asked_for_ever(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.common.transport._FREE_RETRIES", 5)
    server.fault(".", "status")
    reader = transport(server)
    for number in range(40):
        with pytest.raises(FetchError):
            reader.get(f"{number}.txt", bytes)
    # Five retries are free, and one for each five requests: far fewer than two for each of forty objects.
    assert len(server.keys()) < 60


def test_throttling_halves_what_may_be_open_once_for_each_round_and_recovers_slowly() -> None:
    throttle = Throttle(16)
    begun = [throttle.enter() for _ in range(16)]
    for request in begun:
        throttle.answered(request, throttled=True)
    assert throttle.limit == 8
    throttle.answered(throttle.enter(), throttled=True)
    assert throttle.limit == 4
    answers = 0
    while throttle.limit < 16:
        throttle.answered(throttle.enter(), throttled=False)
        answers += 1
    # A round is as many answers as may be open: 4 + 5 + ... + 15 of them.
    assert 100 < answers < 140


def test_requests_beyond_the_limit_wait_for_an_answer() -> None:
    throttle, entered = Throttle(4), threading.Event()
    throttle.answered(throttle.enter(), throttled=True)
    first, _ = throttle.enter(), throttle.enter()
    waiting = threading.Thread(target=lambda: (throttle.enter(), entered.set()))
    waiting.start()
    assert not entered.wait(0.05)
    throttle.answered(first, throttled=False)
    assert entered.wait(2)
    waiting.join()


def test_a_server_that_throttles_every_thread_at_once_holds_nobody_up_for_ever(server: FaultServer) -> None:
    server.fault(".", "slow_down", times=2)
    reader = transport(server)
    keys = [f"{number}.txt" for number in range(60)]
    assert len(list(reader.map(lambda key: reader.get(key, bytes), keys))) == 60


def test_whoever_gives_up_does_not_wait_for_what_is_still_being_tried(server: FaultServer) -> None:
    server.fault(r"^[1-9]", "slow_down")
    reader = transport(server, QUICK.model_copy(update={"longest_backoff_seconds": 60}))
    began = time.monotonic()
    results = reader.map(lambda key: reader.get(key, bytes), [f"{number}.txt" for number in range(60)])
    assert next(results) == b"object 0"
    time.sleep(0.5)
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 20
    server.heal()
    assert list(reader.map(lambda key: reader.get(key, bytes), ["7.txt"])) == [b"object 7"]
