"""The frame around every step: logs, the MLflow run, the record of the run, and errors as one sentence."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from components.common import logs, parent, storage, tracking
from components.common.errors import PipelineError
from components.common.settings import get_settings

log = logging.getLogger(__name__)


class Step:
    """A running step: its MLflow run and the numbers that the run's summary shows."""

    def __init__(self, name: str, run: tracking.Run) -> None:
        """Bind the step's name and run."""
        self.name = name
        self.run = run
        self.numbers: dict[str, Any] = {}

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Record the numbers of the step in MLflow and in the run's record."""
        self.numbers.update(metrics)
        self.run.log_metrics({k: float(v) for k, v in metrics.items() if isinstance(v, int | float)})


@contextlib.contextmanager
def step(name: str, tracked: bool = True) -> Iterator[Step]:
    """Run the body as a named step.

    A :class:`PipelineError` ends the process with status 1 and its one sentence; anything else keeps its traceback.

    Args:
        name: Unique within the pipeline run, such as ``Extract text (shard-00001)``.
        tracked: Whether it has a run in MLflow, if there is one; false where MLflow is known not to answer.
    """
    logs.configure()
    parent.follow_runner()
    started = time.time()
    outcome: dict[str, Any] = {"step": name, "status": "FAILED", "started": started}
    # A step that is killed leaves this behind, and the summary can name it.
    _record(outcome | {"status": "RUNNING", "seconds": 0})
    log.info("%s: started", name)
    try:
        with tracking.step(name) if tracked else contextlib.nullcontext(tracking.Run(None, "")) as run:
            current = Step(name, run)
            yield current
        outcome |= {"status": "SUCCEEDED", "numbers": current.numbers}
        log.info("%s: done in %.1f s", name, time.time() - started)
    except PipelineError as error:
        outcome["error"] = logs.without_credentials(str(error))
        log.error("%s failed: %s", name, error)
        sys.exit(1)
    except Exception as error:
        outcome["error"] = logs.without_credentials(f"{type(error).__name__}: {error}")
        log.exception("%s failed with an error of the pipeline itself; please report it.", name)
        sys.exit(1)
    finally:
        _record(outcome | {"seconds": round(time.time() - started, 3)})


def records_of_run() -> list[dict[str, Any]]:
    """Return what the steps of this pipeline run recorded, in the order they started."""
    folder = _records_folder()
    records = [json.loads(storage.read(entry.uri)) for entry in storage.list_files(folder)] if folder else []
    return sorted(records, key=lambda record: record["started"])


def _record(outcome: dict[str, Any]) -> None:
    folder = _records_folder()
    if not folder:
        return
    name = "".join(char if char.isalnum() else "-" for char in outcome["step"].lower())
    try:
        storage.write(storage.join(folder, f"{name}.json"), json.dumps(outcome, default=str).encode())
    except PipelineError as error:
        # The outcome of the step itself must not change because its record could not be kept.
        log.warning("The record of this step was not kept: %s", error)


def _records_folder() -> str:
    settings = get_settings()
    return storage.join(storage.to_uri(settings.store_uri), "runs", settings.run_id, "steps") if settings.run_id else ""
