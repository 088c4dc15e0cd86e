"""What a pod of a training job runs: torchrun, and if it fails, the cause where Kubernetes shows it."""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from components.train.launching.process import FAILURE_FOLDER_VARIABLE, first_failure

_MOST_BYTES = 4096  # of a termination message; Kubernetes cuts it there
_ROOT = Path(__file__).parents[4]


def main() -> None:
    """Run this node's workers, described by the operator's variables, in the scratch folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", required=True, help="address of a TrainJob's JSON file")
    parser.add_argument("--scratch", type=Path, required=True, help="folder on the node's disk")
    parser.add_argument("--termination-message", type=Path, required=True, help="file in which Kubernetes looks")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)  # the first process of a container ignores it otherwise
    os.chdir(arguments.scratch)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, str(_ROOT))
    with _failure_told(arguments.termination_message):
        from torch.distributed.run import main as torchrun

        torchrun([*_rendezvous(), "-m", "components.train.trainer", "--job", arguments.job])


def _end(number: int, _frame: FrameType | None) -> None:
    """Until torchrun listens itself."""
    sys.exit(128 + number)


def _rendezvous() -> list[str]:
    """How the nodes find each other; torchrun reads their number and ours from PET_* by itself."""
    if os.environ.get("PET_NNODES", "1") == "1":
        return ["--standalone"]
    # The Training Operator names the master without the prefix that torchrun reads.
    places = {each: os.environ.get(f"PET_MASTER_{each}") or os.environ[f"MASTER_{each}"] for each in ("ADDR", "PORT")}
    return ["--master-addr", places["ADDR"], "--master-port", places["PORT"]]


@contextlib.contextmanager
def _failure_told(message_file: Path) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="failures-", dir=Path.cwd()) as folder:
        os.environ[FAILURE_FOLDER_VARIABLE] = folder
        try:
            yield
        except BaseException:
            if failure := first_failure(Path(folder)):
                message_file.write_text(_fitting(dataclasses.asdict(failure)), encoding="utf-8")
            raise


def _fitting(failure: dict[str, object]) -> str:
    """The failure as JSON, its message cut so that Kubernetes does not cut the JSON."""
    message = str(failure["message"])
    for length in (len(message), 2000, 500):
        text = json.dumps(failure | {"message": message[:length]}, ensure_ascii=False)
        if len(text.encode()) <= _MOST_BYTES:
            break
    return text


if __name__ == "__main__":
    main()
