"""Jobs for the fake cluster: small programs in place of the trainer."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from components.common.cluster.settings import ClusterSettings
from components.train.launching.job import TokenShard, TokenSource, TrainJob
from components.train.settings import TrainSettings
from tests.fake_cluster import FakeCluster

# What every program starts with: where the job's output goes, and how it is finished.
PRELUDE = """
import json, os, sys, time
from pathlib import Path
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
job = json.loads(Path(arguments["--job"].removeprefix("file://")).read_text())
output = Path(job["output_uri"].removeprefix("file://"))
rank = int(os.environ["PET_NODE_RANK"])
def say(text): print(text, flush=True)
def once(name):
    try: (output / name).touch(exist_ok=False); return True
    except FileExistsError: return False
def wait_for(name):
    while not (output / name).exists(): time.sleep(0.02)
def finish(): (output / "result.json").write_text("{}")
"""
LAUNCH = """
import json, logging, sys
from components.common.cluster.settings import ClusterSettings
from components.train.launching.cluster.run import run_on_cluster
from components.train.launching.job import TrainJob
logging.basicConfig(level=logging.INFO, format="%(message)s")
given = json.loads(sys.argv[1])
job, settings = TrainJob.model_validate(given["job"]), ClusterSettings(**given["settings"])
run_on_cluster(job, settings, given["launcher"], given["worker"])
"""


@contextmanager
def running_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A cluster that the launcher finds, with a shared disk at `tmp_path/store`."""
    for name in ("cluster", "store"):
        (tmp_path / name).mkdir()
    with FakeCluster(tmp_path / "cluster") as cluster:
        cluster.claims["store"] = tmp_path / "store"
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig()))
        monkeypatch.setenv("PMC_RUN_ID", "run-1")
        yield cluster


def program(body: str) -> list[str]:
    """A worker that runs this Python."""
    return ["python", "-c", PRELUDE + body]


def small(tmp_path: Path, **changes: Any) -> ClusterSettings:
    """Settings for one node without a GPU."""
    values: dict[str, Any] = {
        "image": "trainer:1",
        "cpu": "1",
        "memory": "2Gi",
        "shared_memory": "64Mi",
        "scratch": "1Gi",
        "volume_claims": {"store": str(tmp_path / "store")},
        "api_minutes": 0.2,
    }
    return ClusterSettings(**(values | changes))


def small_job(tmp_path: Path, name: str = "f0", **changes: Any) -> TrainJob:
    """A job that only programs of tests understand."""
    shard = TokenShard(name="s", uri="file:///s.bin", documents=1, tokens=1, sha256="0")
    return TrainJob(
        fingerprint=name,
        base_model_uri="file:///base",
        sources=[TokenSource(name="corpus", shards=[shard])],
        token_dtype="uint16",
        vocabulary_size=64,
        end_token_id=2,
        padding_token_id=2,
        output_uri=f"file://{tmp_path}/store/{name}",
        scratch_folder=tmp_path / "unused",
        settings=TrainSettings(device="cpu", shutdown_seconds=5, **changes),
    )


def launch(job: TrainJob, settings: ClusterSettings, launcher: str, worker: list[str]) -> "subprocess.Popen[str]":
    """Run the launcher in a process of its own, that can be killed."""
    given = {"settings": settings.model_dump(mode="json", exclude_unset=True), "launcher": launcher, "worker": worker}
    given["job"] = json.loads(job.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, json.dumps(given)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return as soon as the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
