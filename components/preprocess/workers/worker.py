"""The program of a worker process: takes batches from the process that started it, gives back what became of them.

It runs as a program of its own (`python -m components.preprocess.workers.worker DESCRIPTOR`), not by multiprocessing:
it need not import the program that started it, shares no lock with the other workers, and gets an environment of its
own.
"""

import contextlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from enum import Enum, auto
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any


class Answer(Enum):
    """What a worker's message is."""

    READY = auto()  # to take batches
    DONE = auto()  # with a batch: its result
    NO_MEMORY = auto()  # for a batch: nothing; the worker ends
    FAILED = auto()  # by a fault of ours: the exception, and its traceback as text


def main(connection: Connection) -> None:
    """Serve until there is nobody left to serve, or memory runs out.

    Args:
        connection: To the process that started this one; its first message says what the work is, how many bytes of
            memory it may take, and how many seconds of CPU time a batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the step, which ends its workers
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the step is gone
        work, memory_bytes, seconds = connection.recv()
        _bound_memory(memory_bytes)
        connection.send((Answer.READY, None))
        try:
            while True:
                connection.send_bytes(_served(connection, work, seconds))
        except MemoryError:
            # It ends here: what C libraries make of a failed allocation is nothing to go on with.
            connection.send((Answer.NO_MEMORY, None))


def _served(connection: Connection, work: Callable[[Any], Any], seconds: float) -> memoryview:
    """Return the answer to the next batch, ready to be sent."""
    batch = connection.recv()
    # Of CPU time, so that a crowded machine makes no article slow; it ends the process whatever C code that is in.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return ForkingPickler.dumps((Answer.DONE, work(batch)))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - it is raised again in the step
        return ForkingPickler.dumps((Answer.FAILED, (_portable(error), traceback.format_exc())))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _bound_memory(size: int) -> None:
    """Have allocations beyond a size fail, so that one article cannot take the memory of all."""
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = size if hard == resource.RLIM_INFINITY else min(size, hard)
    # Of all limits this one is closest to what counts: it leaves out files that are only mapped and reserved addresses.
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _portable(error: Exception) -> Exception:
    """Return the exception if it can travel, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its class does in there
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    # Under its own name, by which the other side knows the classes of its messages.
    from components.preprocess.workers import worker

    os.set_inheritable(int(sys.argv[1]), False)
    worker.main(Connection(int(sys.argv[1])))
