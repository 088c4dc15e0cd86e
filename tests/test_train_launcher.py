"""Real worker processes: failing ones, and none left behind; test_train_kills.py has those that are killed."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from train_helpers import documents, make_job, tiny_settings, write_corpus, write_model

from components.common.errors import TrainingError
from components.common.manifest import Manifest
from components.train.launching.job import TrainJob
from components.train.launching.launcher import run_local

LAUNCH = """
import sys, logging
from components.train.launching.job import TrainJob
from components.train.launching.launcher import run_local
logging.basicConfig(level=logging.INFO)
run_local(TrainJob.model_validate_json(open(sys.argv[1]).read()))
"""
DEAF = """
import sys
from components.train.launching import launcher
worker = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
launcher.command = lambda job_file, processes: [sys.executable, "-c", worker]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A base model."""
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """45 documents in two shards."""
    texts = documents(45)
    return write_corpus(f"file://{tmp_path_factory.mktemp('corpus')}", [texts[:20], texts[20:]])


def launch(job: TrainJob, folder: Path, program: str = LAUNCH) -> "subprocess.Popen[bytes]":
    """Run the launcher in a process of its own."""
    file = folder / "job.json"
    file.write_text(job.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stderr=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Return as soon as the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """Processes started by this one."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def all_descendants(pid: int) -> list[int]:
    """Processes started by this one, and by those."""
    return [found for child in children_of(pid) for found in (child, *all_descendants(child))]


def has_checkpoint(output: Path) -> bool:
    """Whether any complete checkpoint is there."""
    return any(output.glob("checkpoints/step-*/COMPLETE"))


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie that nobody reaps has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_no_worker_outlives_a_killed_launcher_and_its_work_is_kept(
    tmp_path: Path, corpus: Manifest, base: Manifest
) -> None:
    output = tmp_path / "out"
    settings = tiny_settings(processes_per_node=2, epochs=3000, checkpoint_every_steps=20)
    launcher = launch(make_job(corpus, base, settings, output), tmp_path)
    wait_for(lambda: has_checkpoint(output))
    workers = all_descendants(launcher.pid)
    assert len(workers) >= 3  # torchrun and two workers
    launcher.kill()
    wait_for(lambda: all(gone(pid) for pid in workers), seconds=30)
    launcher.communicate()
    newest = max(output.glob("checkpoints/step-*"))
    assert (newest / "COMPLETE").exists()  # they ended in order


def test_a_worker_that_does_not_stop_is_killed_when_its_time_is_over(
    tmp_path: Path, corpus: Manifest, base: Manifest
) -> None:
    settings = tiny_settings(shutdown_seconds=2)
    launcher = launch(make_job(corpus, base, settings, tmp_path / "out"), tmp_path, program=DEAF + LAUNCH)
    assert launcher.stderr is not None
    assert b"up" in launcher.stderr.readline()
    (worker,) = children_of(launcher.pid)
    launcher.terminate()
    _, errors = launcher.communicate(timeout=60)
    assert b"Training was stopped by SIGTERM; it goes on from its last checkpoint" in errors
    assert gone(worker)


def test_the_real_cause_of_a_failure_comes_back(tmp_path: Path, base: Manifest, corpus: Manifest) -> None:
    bad = corpus.model_copy(update={"shards": [corpus.shards[0].model_copy(update={"sha256": "0" * 64})]})
    with pytest.raises(TrainingError, match=r"^Token shard train-00000 is corrupt"):
        run_local(make_job(bad, base, tiny_settings(processes_per_node=2), tmp_path / "out"))
