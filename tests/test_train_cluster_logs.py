"""Which lines of a log are new, whatever order and overlap the readings of it have."""

import random

from components.train.launching.cluster.events import JobEvents
from components.train.launching.cluster.logs import SeenLines
from components.train.launching.cluster.operators import JobState
from components.train.launching.cluster.pods import Ending, read_pod
from components.train.launching.cluster.waiting import Teller, waiting_facts


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
            since = (seen.newest or "")[:19]
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
    assert seen.oldest == stamped(1, 90, "x").split()[0]
    assert SeenLines().oldest is None


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
