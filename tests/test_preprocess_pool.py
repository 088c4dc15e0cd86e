"""Workers that die, hang or run out of memory cost the item that did it, and nothing else."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import PipelineError
from components.preprocess.workers import pod, worker_process
from components.preprocess.workers.worker_pool import Limits, Names, in_workers
from tests.pool_helpers import Stubborn, Trouble

NAMES: Names[str] = Names("file:///shard", lambda item: item, len)


def run(batches: list[list[str]], work: Any = None, **limits: Any) -> list[str]:
    chosen = Limits(**{"processes": 2, "memory_mb": 900, "seconds": 30, "losses": 12, **limits})
    with closing(in_workers(work or Trouble(), iter(batches), chosen, NAMES)) as results:
        return [one for result in results for one in result]


def children() -> set[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {int(pid) for pid in done.stdout.split() if "worker" in command_of(int(pid))}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_results_come_in_the_order_of_the_batches_and_no_worker_stays() -> None:
    batches = [[f"{batch}.{item} " for item in range(batch % 4 + 1)] for batch in range(40)]
    assert run(batches) == [item * 2 for batch in batches for item in batch]
    assert children() == set()


def test_nothing_to_do_starts_nothing() -> None:
    assert run([]) == []


def test_an_item_that_kills_its_worker_is_named_and_the_rest_of_its_batch_kept() -> None:
    assert run([["a", "b"], ["c", "kill me", "d"], ["e"]]) == [
        "aa",
        "bb",
        "cc",
        "kill me: worker-killed (killed by SIGKILL, most likely out of memory, 7 bytes)",
        "dd",
        "ee",
    ]


def test_an_item_that_ends_its_worker_is_given_up_with_the_exit_code() -> None:
    assert run([["exit"]]) == ["exit: worker-killed (it ended with exit code 7, 4 bytes)"]


def test_an_item_that_hangs_is_too_slow_and_its_neighbours_are_kept() -> None:
    assert run([["a", "hang", "b"], ["c"]], seconds=1) == ["aa", "hang: too-slow (more than 1 s, 4 bytes)", "bb", "cc"]


def test_an_item_that_waits_for_what_never_comes_is_too_slow_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_WALL_SECONDS_PER_CPU_SECOND", 2)
    assert run([["a", "wait"]], seconds=1) == ["aa", "wait: too-slow (more than 1 s, 4 bytes)"]


def test_an_item_that_takes_all_memory_is_out_of_memory_and_harms_nobody() -> None:
    assert run([["a", "memory", "b"], ["c"]], memory_mb=400) == [
        "aa",
        "memory: out-of-memory (more than 400 MB, 6 bytes)",
        "bb",
        "cc",
    ]


def test_several_culprits_in_one_batch_are_all_found() -> None:
    found = run([["kill 1", "a", "memory", "b", "exit"]], memory_mb=400)
    assert [one.partition(" (")[0] for one in found] == [
        "kill 1: worker-killed",
        "aa",
        "memory: out-of-memory",
        "bb",
        "exit: worker-killed",
    ]


def test_a_worker_that_died_of_something_else_costs_nothing(tmp_path: Path) -> None:
    assert run([["a", "once", "b"], ["c"]], Trouble(str(tmp_path))) == ["aa", "onceonce", "bb", "cc"]


def test_workers_killed_at_any_moment_lose_no_item_and_never_hang() -> None:
    """Also one that is waiting, starting, fetching its task or handing over its result."""
    stop = threading.Event()

    def kill() -> None:
        for number in count():
            if stop.wait(0.4):
                return
            pids = sorted(children())
            if pids:
                os.kill(pids[number % len(pids)], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    items = [[f"nap{number:03}" + "x" * 300_000 for number in range(start, start + 8)] for start in range(0, 320, 8)]
    killer.start()
    try:
        found = run(items, losses=10_000)
    finally:
        stop.set()
        killer.join()
    # Shot three times in a row, an item may be given up; it must still be there, in its place.
    assert [one[:6] for one in found] == [item[:6] for batch in items for item in batch]


def test_when_all_workers_die_one_sentence_names_the_last_culprits_and_the_settings() -> None:
    with pytest.raises(PipelineError) as caught:
        run([[f"kill {batch}.{item}" for item in range(8)] for batch in range(20)], losses=6)
    sentence = str(caught.value)
    assert "7 worker processes were lost on file:///shard" in sentence
    assert sentence.count("worker-killed: killed by SIGKILL") == 3
    for setting in ("preprocess.workers", "memory_mb (now 900)", "processes (now 2)", "article_seconds (now 30)"):
        assert setting in sentence
    assert children() == set()


def test_workers_that_cannot_start_are_one_sentence() -> None:
    with pytest.raises(PipelineError, match=r"end before they start \(it ended with exit code 9"):
        run([["a"]], Stubborn())


def test_a_fault_of_ours_comes_out_as_it_is_with_the_workers_traceback() -> None:
    with pytest.raises(ZeroDivisionError, match="fault") as caught:
        run([["a"], ["fault"]])
    assert "make_trouble" in caught.value.__notes__[0]
    assert children() == set()


def test_an_exception_that_cannot_travel_comes_out_as_text() -> None:
    with pytest.raises(RuntimeError, match="Unportable: one text"):
        run([["unportable"]])


def test_few_batches_are_taken_in_before_their_results_are_asked_for() -> None:
    taken = count()

    def batches() -> Iterator[list[str]]:
        for number in taken:
            yield [str(number)]

    limits = Limits(processes=2, memory_mb=900, seconds=30, losses=3)
    with closing(in_workers(Trouble(), batches(), limits, NAMES)) as results:
        assert next(results) == ["00"]
        assert next(taken) < 12


def test_the_callers_own_exception_ends_the_workers() -> None:
    limits = Limits(processes=2, memory_mb=900, seconds=30, losses=3)
    with (
        pytest.raises(OSError, match="full"),
        closing(in_workers(Trouble(), iter([["a"]] * 50), limits, NAMES)) as results,
    ):
        next(results)
        raise OSError("the disk is full")
    assert children() == set()


PARENT = """
import os, signal, sys, threading, time
from components.preprocess.workers.worker_pool import Limits, Names, in_workers
from tests.pool_helpers import Trouble
limits = Limits(processes=2, memory_mb=900, seconds=600, losses=3)
work = in_workers(Trouble(), ([str(n)] for n in range(10**9)), limits, Names("x", str, len))
next(iter(work))
threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
for result in work:
    pass
"""


def test_workers_end_when_the_step_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT])
    workers: set[int] = set()
    while parent.poll() is None:
        done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True)
        workers |= {int(pid) for pid in done.stdout.split()}
        time.sleep(0.2)
    assert parent.returncode == -signal.SIGKILL
    assert workers
    deadline = time.monotonic() + 60
    while any("components.preprocess.workers.worker" in command_of(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_cpus_of_the_pod_count_not_those_of_the_node(
    files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    write(tmp_path, files)
    assert pod.cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1073741824\n"}, 1 << 30),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "1073741824"}, 1 << 30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({}, None),
    ],
)
def test_the_memory_of_the_pod_counts_not_that_of_the_node(
    files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    write(tmp_path, files)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert pod.memory_bytes(tmp_path) == (expected or whole)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
