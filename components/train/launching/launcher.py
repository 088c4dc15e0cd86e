"""Runs a training job on this machine: worker processes under torchrun, which cannot outlive us.

Nothing here imports torch: the launching step starts at once and needs no GPU image.
"""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Timer, current_thread, main_thread
from types import FrameType
from typing import Any

from components.common.errors import TrainingError
from components.train.launching.job import TrainJob
from components.train.launching.process import FAILURE_FOLDER_VARIABLE, first_failure
from components.train.settings import TrainingSettings

log = logging.getLogger(__name__)

_LAST_LINES = 20
_WORKER_TIME = re.compile(r"^\d\d:\d\d:\d\d ")
_KILLED_WORKER = re.compile(r"Signal \d+ \((SIG\w+)\) received by PID")
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b.*")


def run_local(job: TrainJob) -> None:
    """Train on this machine and return when the model is in the store.

    Args:
        job: The run; finished parts of it are not repeated.

    Raises:
        TrainingError: The workers failed, with the first failure's cause, or the run was stopped.
    """
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        job_file = Path(folder, "job.json")
        job_file.write_text(job.model_dump_json())
        process = _start(job_file, job, Path(folder))
        lines: deque[str] = deque(maxlen=_LAST_LINES)
        try:
            with _forwarded_sigterm(process, job.settings) as signals:
                for line in _lines(process):
                    lines.append(line)
                    log.info("%s", _WORKER_TIME.sub("", line))
                code = process.wait()
        finally:
            _stop(process, job.settings.shutdown_seconds)
        if code != 0:
            raise TrainingError(_cause(Path(folder), list(lines), code, bool(signals)))


def command(job_file: Path, processes: int) -> list[str]:
    """What runs on a node: torchrun, or the worker itself when it is alone, which starts seconds sooner."""
    worker = ["-m", "components.train.trainer", "--job", str(job_file)]
    if processes == 1:
        return [sys.executable, *worker]
    torchrun = ["-m", "components.train.launching.torchrun", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *torchrun, *worker]


def _start(job_file: Path, job: TrainJob, failure_folder: Path) -> "subprocess.Popen[str]":
    settings = job.settings
    root = str(Path(__file__).parents[3])
    environment = {
        **os.environ,
        FAILURE_FOLDER_VARIABLE: str(failure_folder),
        # torchrun kills workers 30 s after a signal otherwise, in the middle of the last checkpoint.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(settings.shutdown_seconds),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait for each other take tens of times as long on a core that others use too.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "OMP_NUM_THREADS": str(settings.threads_per_process or _share_of_cores(settings.processes_per_node)),
    }
    return subprocess.Popen(
        command(job_file, settings.processes_per_node),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A Ctrl-C in the terminal reaches us alone, and we end the workers in order.
        start_new_session=True,
    )


def _share_of_cores(processes: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // processes)


def _lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    for line in process.stdout or []:
        if line.strip():
            yield line.rstrip()


@contextlib.contextmanager
def _forwarded_sigterm(process: "subprocess.Popen[str]", settings: TrainingSettings) -> Iterator[list[int]]:
    """Pass SIGTERM on to the workers; yields the list of those that came."""
    received: list[int] = []
    if current_thread() is not main_thread():  # only the main thread may handle signals
        yield received
        return

    patience = Timer(settings.shutdown_seconds, process.kill)
    patience.daemon = True

    def forward(number: int, _frame: FrameType | None) -> None:
        if not received:
            log.warning("SIGTERM: the workers save a checkpoint and stop.")
            if settings.processes_per_node == 1:  # else torchrun does it, and tells whom
                patience.start()
        received.append(number)
        process.send_signal(signal.SIGTERM)

    previous: Any = signal.signal(signal.SIGTERM, forward)
    try:
        yield received
    finally:
        patience.cancel()
        signal.signal(signal.SIGTERM, previous)


def _stop(process: "subprocess.Popen[str]", seconds: float) -> None:
    """Leave nothing running, whatever ended us."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _cause(folder: Path, lines: list[str], code: int, stopped: bool) -> str:
    failure = first_failure(folder)
    if failure is not None and failure.clear:
        return failure.message
    if stopped and failure is None:
        return "Training was stopped by SIGTERM; it goes on from its last checkpoint when it is run again."
    # Before what the others say: they only tell that they lost their partner.
    if killed := _killing_signal(lines, code):
        hint = ", most often because memory ran out: lower micro_batch_size" if killed == "SIGKILL" else ""
        return f"Training failed: a worker process was ended by {killed}{hint}."
    if failure is not None:
        hint = " Lower micro_batch_size." if "OutOfMemoryError" in failure.message else ""
        return f"Training failed in process {failure.rank}: {failure.message}.{hint}"
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return f"Training failed with exit code {code}: {' | '.join(errors[-1:] or lines[-3:]) or 'no output'}"


def _killing_signal(lines: list[str], code: int) -> str | None:
    """What ended the worker that failed first; torchrun itself ends the others by signals."""
    if code < 0:
        return signal.Signals(-code).name
    root = next((number for number, line in enumerate(lines) if line.startswith("Root Cause")), 0)
    return next((match[1] for line in lines[root:] if (match := _KILLED_WORKER.search(line))), None)
