"""Which lines of a log are new, and in what order they are told, whatever comes between."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import ProtocolError

from components.common.cluster.connection import connect
from components.train.launching.cluster import logs
from components.train.launching.cluster.events import JobEvents
from components.train.launching.cluster.logs import PodLog, SeenLines
from components.train.launching.cluster.operators import JobState
from components.train.launching.cluster.pods import Ending, Pod, read_pod
from components.train.launching.cluster.waiting import Teller, waiting_facts
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.helpers import running_cluster, wait_for
from tests.fake_cluster.kubelet import Log


def stamped(seconds: int, nanoseconds: int, text: str) -> str:
    return f"2026-01-01T00:00:{seconds:02d}.{nanoseconds:09d}Z {text}"


def test_readings_that_start_at_a_whole_second_lose_and_double_nothing() -> None:
    chance = random.Random(0)
    for _ in range(50):
        # Equal times and equal texts occur, and count.
        log = sorted(stamped(chance.randrange(4), chance.randrange(3), chance.choice("ab")) for _ in range(40))
        seen, shown = SeenLines(), []
        written = 0
        while len(shown) < len(log):
            written = min(len(log), written + chance.randrange(8))
            since = shown[-1][:19] if shown else ""
            is_new = seen.reading()
            readable = [line for line in log[:written] if line[:19] >= since]
            cut = chance.randrange(len(readable) + 1) if chance.random() < 0.5 else len(readable)
            shown += [line for line in readable[:cut] if is_new(line)]
        assert shown == log


def test_the_end_of_an_earlier_start_is_told_even_after_lines_of_the_next() -> None:
    seen = SeenLines()
    first = [stamped(1, n, f"first {n}") for n in range(5)]
    second = [stamped(2, n, f"second {n}") for n in range(5)]
    shown = [line for line in first[:2] if seen.reading()(line)]
    reading = seen.reading()
    shown += [line for line in second[:3] if reading(line)]
    reading = seen.reading()
    shown += [line for line in first if reading(line)]
    reading = seen.reading()
    shown += [line for line in second if reading(line)]
    assert sorted(shown) == first + second


def test_only_so_many_lines_are_remembered() -> None:
    seen = SeenLines(remembered=10)
    reading = seen.reading()
    for n in range(100):
        assert reading(stamped(1, n, "x"))
    assert [n for n in range(100) if seen.knows(stamped(1, n, "x"))] == list(range(90, 100))


def state(restarts: int, uid: str = "u", **word: Any) -> Pod:
    status = {"containerStatuses": [{"name": "node", "restartCount": restarts, "state": word or {"running": {}}}]}
    return read_pod({"metadata": {"name": "p", "uid": uid}, "status": status}, "node-0", "node")


class Written:
    """A container that is only its logs, as a node keeps them."""

    waiting = False

    def __init__(self, *starts: Log) -> None:
        self.logs = list(starts)
        self.ending = threading.Event()

    def _kill(self) -> None: ...


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with running_cluster(tmp_path, monkeypatch) as running:
        yield running


def put_pod(cluster: FakeCluster, container: Written) -> str:
    added = cluster.store.add("pods", {"metadata": {"name": "p"}, "spec": {"nodeName": "node-a"}, "status": {}})
    cluster.containers[added["metadata"]["uid"]] = container  # type: ignore[assignment]
    return str(added["metadata"]["uid"])


def written(second: int, text: str) -> list[bytes]:
    return [f"{stamped(second, n, f'{text} {n}')}\n".encode() for n in range(5)]


def test_the_next_start_is_told_after_the_end_of_this_one_even_when_its_log_is_there_before_its_status(
    cluster: FakeCluster,
) -> None:
    first, second = written(1, "first"), written(2, "second")
    shown: list[str] = []
    container = Written(Log(first[:2]))
    put_pod(cluster, container)
    log = PodLog(connect(), "p", "node", shown.append)
    log.start()
    log.update(state(0), gone=False)
    wait_for(lambda: len(shown) == 2)
    with cluster.store.changed:  # the stream breaks, and before it is there again the container has restarted
        container.logs[0].ended = True
        container.logs = [Log(first, ended=True), Log(second)]
    wait_for(lambda: "second 4" in shown)  # the status has not said so, yet
    container.logs[1].ended = True
    log.update(state(1, terminated={"exitCode": 0}), gone=False)
    log.finish()
    log.join(20)
    assert not log.is_alive()
    assert shown == [f"{text} {n}" for text in ("first", "second") for n in range(5)]


def test_a_pod_that_takes_the_place_of_another_is_told_even_when_its_node_is_behind_in_time(
    cluster: FakeCluster,
) -> None:
    shown: list[str] = []
    log = PodLog(connect(), "p", "node", shown.append)
    log.start()
    for second, text in ((30, "first"), (10, "second")):
        uid = put_pod(cluster, Written(Log(written(second, text), ended=True)))
        log.update(state(0, uid, terminated={"exitCode": 1}), gone=False)
        wait_for(lambda text=text: f"{text} 4" in shown)
        cluster.store.remove("pods", "p")
        log.update(state(0, uid, terminated={"exitCode": 1}), gone=True)
    log.finish()
    log.join(20)
    assert not log.is_alive()
    assert shown == [f"{text} {n}" for text in ("first", "second") for n in range(5)]


class Node:
    """A node in the place of the API and of time: it goes on with every question, and breaks off its answers.

    It has the logs of the current start and of the one before. A start does not end before the log of the one before
    was read, or in a long time; but the status of the pod is told as late as chance wants it.
    """

    def __init__(self, chance: random.Random, starts: list[list[str]]) -> None:
        self.chance, self.starts = chance, starts
        self.current, self.written, self.running, self.saved, self.age = 0, 0, True, True, 0
        self.untold = [state(0)]
        self.follower: PodLog

    def log(self, pod: str, container: str, since: str | None, follow: bool, previous: bool) -> Iterator[str]:
        for _ in range(self.chance.randrange(6)):
            self._go_on()
        number = self.current - 1 if previous and self.running else self.current
        if self._happens(0.1) or number < 0:
            raise ApiException(status=400 if number < 0 else 503)
        if follow and self.running and not self._readable(number, since or ""):
            raise ProtocolError("no answer before the first line")
        return self._answer(number, since or "", follow)

    def _answer(self, number: int, since: str, follow: bool) -> Iterator[str]:
        given, breaks = 0, self._happens(0.5)
        while True:
            lines = self._readable(number, since)
            for line in lines[given:]:
                if breaks and self._happens(0.2):
                    raise ProtocolError("it broke")
                yield line
            given = len(lines)
            if not follow or number < self.current or not self.running:
                break
            if self._happens(0.3):
                return  # as if it were the end
            self._go_on()
        self.saved = self.saved or number == self.current - 1

    def _readable(self, number: int, since: str) -> list[str]:
        written = self.written if number == self.current else None
        return [line for line in self.starts[number][:written] if line[:19] >= since[:19]]

    def _go_on(self) -> None:
        last = self.current == len(self.starts) - 1
        self.age += 1
        if self.running and self.written < len(self.starts[self.current]):
            self.written += self.chance.randrange(4)
        elif self.running and (self.saved or self.age > 1000) and self._happens(0.3):
            self.running = False
            self.untold.append(state(self.current, terminated={"exitCode": 0 if last else 1}))
        elif not self.running and not last and self._happens(0.3):
            self.current, self.written, self.running, self.saved, self.age = self.current + 1, 0, True, False, 0
            self.untold.append(state(self.current))
        if self.untold and self._happens(0.1):
            self._tell()

    def _tell(self) -> None:
        self.follower.update(self.untold.pop(0), gone=False)
        if not self.running and not self.untold and self.current == len(self.starts) - 1:
            self.follower.finish()

    def _happens(self, share: float) -> bool:
        return self.chance.random() < share

    # What the follower waits with: nothing else happens meanwhile.

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def notify_all(self) -> None: ...

    def wait(self, timeout: float | None = None) -> None:
        self._go_on()

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        self._go_on()
        return holds()


def test_whenever_answers_break_and_whenever_the_status_comes_all_lines_are_told_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in range(1000):
        chance = random.Random(seed)
        # Starts of many lines, of few and of none, some within the same second.
        sizes = [chance.choice([0, 1, 5, 30]) for _ in range(4)]
        times = iter(sorted((chance.randrange(6), chance.randrange(10**9)) for _ in range(sum(sizes))))
        starts = [[stamped(*next(times), f"{n}.{k}") for k in range(size)] for n, size in enumerate(sizes)]
        node, shown = Node(chance, starts), []
        monkeypatch.setattr(logs, "Condition", lambda node=node: node)
        node.follower = PodLog(node, "p", "node", shown.append)  # type: ignore[arg-type]
        node.follower.run()
        assert shown == [f"{n}.{k}" for n, size in enumerate(sizes) for k in range(size)], f"seed {seed}"


def test_a_fact_is_told_once_until_it_changes(caplog) -> None:  # type: ignore[no-untyped-def]
    caplog.set_level("INFO")
    teller = Teller()
    for facts in ({"a": "1"}, {"a": "1", "b": "2"}, {"a": "3", "b": "2"}, {"b": "2"}, {"a": "3", "b": "2"}):
        teller.tell(facts)
    assert caplog.messages == ["1", "2", "3", "3"]


def pod(status: dict, **spec: str) -> dict:  # type: ignore[type-arg]
    return {"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": status}


def container(**values: object) -> dict:  # type: ignore[type-arg]
    return {"containerStatuses": [{"name": "pytorch", "restartCount": 2, **values}]}


def test_a_container_between_two_starts_has_ended() -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": " x ", "finishedAt": "t"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    found = read_pod(pod({"phase": "Running", **container(state=waiting, lastState=ended)}), "master-0", "pytorch")
    assert found.ended and found.started and not found.broken
    assert found.ending == Ending("master-0", 2, 1, "Error", "x", "t")
    found = read_pod(pod({"phase": "Running", **container(state={"running": {}}, lastState=ended)}), "m", "pytorch")
    assert found.running and not found.ended
    assert found.ending is not None and found.ending.restarts == 1


def test_an_initial_container_that_cannot_start_is_seen() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
    status = {"phase": "Pending", "initContainerStatuses": [{"name": "init-pytorch", "state": waiting}]}
    status |= container(state={"waiting": {"reason": "PodInitializing"}})
    found = read_pod(pod(status, nodeName="n"), "worker-0", "pytorch")
    assert found.broken
    facts = waiting_facts("job", JobState("active", ""), [found], JobEvents("PyTorchJob", "job"), 1)
    assert facts == {"pod p": "worker-0 cannot start: ErrImagePull: no such host"}


def test_only_events_of_the_job_are_kept() -> None:
    events = JobEvents("PyTorchJob", "pmc-a")

    def event(kind: str, name: str) -> bool:
        about = {"kind": kind, "name": name}
        return events.take({"metadata": {"uid": f"{kind}{name}"}, "involvedObject": about, "type": "Warning"})

    assert event("PyTorchJob", "pmc-a")
    assert event("Pod", "pmc-a-master-0")
    assert event("Workload", "pytorchjob-pmc-a-1a2b3")
    assert not event("PyTorchJob", "pmc-ab")
    assert not event("Pod", "pmc-ab-master-0")
    assert not event("Workload", "trainjob-pmc-a-1a2b3")
    assert len(events.warnings()) == 3
