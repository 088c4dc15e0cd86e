"""Run the pipeline as a user does, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from components.common import storage
from components.common.manifest import Manifest

ROOT = Path(__file__).parent.parent
# The tiny recipe, made quicker still: the same code on fewer questions and steps.
_QUICK = (
    "download.min_shards=2",
    "train.epochs=2",
    "train.checkpoint_every_steps=5",
    "train.log_every_steps=1",
    "evaluate.limit=6",
    "finetune.questions.epochs=1",
)
QUICK = (*_QUICK, "finetune.instruct=null")
ANSWERING = (*_QUICK, "finetune.instruct.epochs=1")
"""The same, with the model that answers."""
TASKS = 23  # of a run with two shards and the model that answers


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    code: int
    output: str
    seconds: float


def start(home: Path, *settings: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``python -m pipelines run`` on the tiny recipe."""
    command = [sys.executable, "-m", "pipelines", "run", "--home", str(home)]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {**os.environ, "COLUMNS": "160", "HF_HUB_OFFLINE": "1", **(env or {})}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(home: Path, *settings: str, env: dict[str, str] | None = None) -> Finished:
    """Run the pipeline to its end."""
    started = time.monotonic()
    process = start(home, *settings, env=env)
    output, _ = process.communicate(timeout=500)
    return Finished(process.returncode, output, time.monotonic() - started)


def kill_when(process: subprocess.Popen[str], line_has: str, after: float = 0.0) -> bool:
    """Kill the runner, and only it, when a line shows; tells whether the line came."""
    assert process.stdout is not None
    for line in process.stdout:
        if line_has in line:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
    return False


def manifests(store: Path, kind: str) -> list[Manifest]:
    """Find the manifests of a kind in KFP's local outputs beside the store."""
    found: dict[str, Manifest] = {}
    for path in sorted((store.parent / "kfp").rglob("*")):
        if path.is_file() and path.suffix == "":
            try:
                manifest = Manifest.load(path)
            except Exception:  # noqa: BLE001 - most files there are no manifests
                continue
            if manifest.kind == kind:
                found[manifest.fingerprint] = manifest
    return list(found.values())


def losses(model: Manifest) -> list[float]:
    """Read the loss of every step of a training run."""
    lines = storage.read(model.extra["losses_uri"]).decode().splitlines()
    return [json.loads(line)["loss"] for line in lines]
