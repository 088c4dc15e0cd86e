"""How a run's processes live and die together; Linux, no torch."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from components.common.errors import PipelineError

FAILURE_FOLDER_VARIABLE = "TRAIN_FAILURE_FOLDER"
STOPPED_EXIT_CODE = 128 + signal.SIGTERM
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Failure:
    """Why a worker process ended.

    Attributes:
        rank: Of the process.
        message: Of what it raised.
        clear: Whether the message is for the user as it is.
        time: When, in seconds since 1970.
        error: Type of what it raised.
    """

    rank: int
    message: str
    clear: bool
    time: float
    error: str = ""


class StopSignal:
    """Remembers that SIGTERM came, so that a step can be ended in order."""

    def __init__(self) -> None:
        """Listen from now on."""
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.received = True


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies, even by SIGKILL."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), number)


def end_with(main: Callable[[], None]) -> NoReturn:
    """Run a worker, then end its process at once, without Python's own clearing up.

    gloo's threads may be about to let go of their last tensors, for which they need Python's lock. Asked for while
    Python clears up, it ends the process by SIGABRT (https://github.com/pytorch/pytorch/pull/179291), and a finished
    training would count as a failed one. Exceptions pass.
    """
    code = 0
    try:
        main()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def failure_recorded(rank: int) -> Iterator[None]:
    """Leave the exception that ends this process where the launcher finds it."""
    try:
        yield
    except Exception as error:
        if folder := os.environ.get(FAILURE_FOLDER_VARIABLE):
            clear = isinstance(error, PipelineError)
            message = str(error) if clear else "".join(traceback.format_exception_only(error)).strip()
            failure = Failure(rank, message, clear, time.time(), type(error).__name__)
            Path(folder, f"rank-{rank}.json").write_text(json.dumps(asdict(failure)))
        raise


def first_failure(folder: Path) -> Failure | None:
    """The failure that came first: those after it are mostly processes that lost their partner."""
    failures = [Failure(**json.loads(file.read_text())) for file in folder.glob("rank-*.json")]
    return min(failures, key=lambda failure: failure.time, default=None)
