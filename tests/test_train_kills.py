"""Runs that are killed again and again end as if nothing had happened; PMC_KILLS says how often (ten: a long check)."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from train_helpers import alone, documents, losses, make_job, tiny_settings, train_here, write_corpus, write_model

from components.common.manifest import Manifest
from components.train.checkpoints.places import complete_steps
from components.train.launching.job import TrainJob

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("PMC_KILLS", "2"))
MORE_KILLS_OF_TWO = int(os.environ.get("PMC_KILLS", "1"))  # two processes take longer to start
STEPS = 60 + 30 * KILLS
LAUNCH = """
import sys, logging
from components.common.errors import TrainingError
from components.train.launching.job import TrainJob
from components.train.launching.launcher import run_local
logging.basicConfig(level=logging.INFO, format="%(message)s")
try:
    run_local(TrainJob.model_validate_json(open(sys.argv[1]).read()))
except TrainingError as error:
    sys.exit(f"Failed: {error}")
"""
WORDS = {
    "SIGTERM": "stopped by SIGTERM; it goes on from its last checkpoint when it is run again",
    "SIGKILL": "a worker process was ended by SIGKILL, most often because memory ran out",
}
_STEP = re.compile(r"Step (\d+)/")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A base model."""
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """40 documents: five steps an epoch."""
    return write_corpus(f"file://{tmp_path_factory.mktemp('corpus')}", [documents(40)[:15], documents(40)[15:]])


class Launch:
    """The launcher and its workers, in processes of their own; follows the steps they log."""

    def __init__(self, job: TrainJob, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(job.model_dump_json())
        self.lines: list[str] = []
        self.step = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(folder / "job.json")],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stderr or []:
            self.lines.append(line.rstrip())
            if match := _STEP.search(line):
                self.step = int(match[1])

    def wait_for_step(self, step: int) -> bool:
        """Whether the step was reached before the run ended."""
        while self._process.poll() is None and self.step < step:
            time.sleep(0.002)
        return self._process.poll() is None

    def wait(self) -> int:
        """The exit code."""
        code = self._process.wait(120)
        self._reader.join(10)
        return code

    def last_words(self) -> str:
        """The end of the log, for a test that fails."""
        return "\n".join(self.lines[-60:])

    def terminate(self) -> None:
        """SIGTERM, as a pod gets it."""
        self._process.terminate()

    def kill_worker(self) -> None:
        """SIGKILL to the last worker, as when memory runs out."""
        os.kill(self.workers()[-1], signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL to everything, as when the machine is gone."""
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return [pid for pid in descendants(self._process.pid) if is_worker(pid)]


def is_worker(pid: int) -> bool:
    """Whether it trains: torchrun, which starts those that do, names the same module."""
    with contextlib.suppress(FileNotFoundError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b"components.train.trainer" in words and b"components.train.launching.torchrun" not in words
    return False


def descendants(pid: int) -> list[int]:
    """Processes started by this one, and by those."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [found for child in children for found in (child, *descendants(child))]


def job_of(corpus: Manifest, base: Manifest, output: Path, processes: int) -> TrainJob:
    """A run of so many steps that all kills find it at work."""
    settings = tiny_settings(
        processes_per_node=processes,
        epochs=STEPS // 5,
        checkpoint_every_steps=7,
        keep_checkpoints=2,
        learning_rate=1e-3,
    )
    return make_job(corpus, base, settings, output)


def train_despite_kills(
    corpus: Manifest, base: Manifest, output: Path, seed: int, processes: int, kills: int
) -> list[str]:
    """Kill the run at random steps, each time launched again; then let it end. Returns what happened."""
    chance, events = random.Random(seed), []
    for number in range(kills):
        launch = Launch(job_of(corpus, base, output, processes), output / "launches")
        done = max(complete_steps(f"file://{output}/checkpoints"), default=0)
        # Early enough: a run of this size takes a second from here to its end.
        assert launch.wait_for_step(done + chance.randint(1, (STEPS - done) // (kills - number + 2))), (
            launch.last_words()
        )
        ways = {"SIGKILL": launch.kill_worker, "SIGTERM": launch.terminate, "SIGKILL to all": launch.kill_all}
        how = list(ways)[(seed + number) % len(ways)]
        ways[how]()
        assert launch.wait() != 0
        assert how == "SIGKILL to all" or WORDS[how] in launch.lines[-1], launch.last_words()
        assert not (output / "result.json").exists()
        events.append(f"{how} after step {launch.step}, {done} were safe before")
    finish(corpus, base, output, processes)
    return events


def finish(corpus: Manifest, base: Manifest, output: Path, processes: int) -> None:
    """Let a run come to its end."""
    launch = Launch(job_of(corpus, base, output, processes), output / "launches")
    assert launch.wait() == 0, launch.last_words()


@pytest.mark.timeout(180 + 60 * KILLS)
def test_one_process_killed_again_and_again_ends_with_the_same_losses(
    tmp_path: Path, corpus: Manifest, base: Manifest
) -> None:
    events = train_despite_kills(corpus, base, tmp_path / "killed", 1, processes=1, kills=KILLS)
    with alone() as layout:
        train_here(job_of(corpus, base, tmp_path / "whole", 1), layout)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole"), events
    assert [record["step"] for record in losses(tmp_path / "killed")] == list(range(1, STEPS + 1))


@pytest.mark.timeout(240 + 60 * KILLS)
def test_a_killed_process_ends_the_other_and_two_go_on_to_the_same_losses_and_one_to_nearly_the_same(
    tmp_path: Path, corpus: Manifest, base: Manifest
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    launch = Launch(job_of(corpus, base, killed, 2), killed / "launches")
    assert launch.wait_for_step(STEPS // 3), launch.last_words()
    workers = launch.workers()
    assert len(workers) == 2
    launch.kill_worker()
    assert launch.wait() == 1
    assert not any(is_worker(pid) for pid in workers)
    assert WORDS["SIGKILL"] in launch.lines[-1]
    assert not (killed / "result.json").exists()
    safe = max(complete_steps(f"file://{killed}/checkpoints"))
    shutil.copytree(killed, tmp_path / "one")

    finish(corpus, base, whole, 2)
    events = train_despite_kills(corpus, base, killed, 1, processes=2, kills=MORE_KILLS_OF_TWO)
    assert losses(killed) == losses(whole), events

    finish(corpus, base, tmp_path / "one", 1)
    found = losses(tmp_path / "one")
    assert found[:safe] == losses(whole)[:safe]
    for one, two in zip(found, losses(whole), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-4)
        assert {name: one[name] for name in ("step", "tokens", "padding")} == {
            name: two[name] for name in ("step", "tokens", "padding")
        }
