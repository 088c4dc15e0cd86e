"""End with the runner: a step whose local runner was killed must not go on unseen beside the next run."""

import os
import signal
import threading
import time

RUNNER_VARIABLE = "PMC_RUNNER_PID"
_SECONDS_BETWEEN_LOOKS = 0.5


def follow_runner() -> None:
    """Watch the process named by ``PMC_RUNNER_PID`` (set by the local runner only) and end when it is gone.

    A parent-death signal would not do: KFP runs a step below a shell that outlives the runner.
    """
    runner = os.environ.get(RUNNER_VARIABLE, "")
    if runner:
        threading.Thread(target=_watch, args=(int(runner),), daemon=True, name="follow-runner").start()


def _watch(pid: int) -> None:
    while _alive(pid):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
