"""Run the pipeline on this machine: KFP's local runner, files on disk, MLflow on SQLite; no server, no network."""

import contextlib
import errno
import fcntl
import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

from components.common import storage, tracking
from components.common.errors import InputError, PipelineError
from components.common.fingerprint import fingerprint
from components.common.parent import RUNNER_VARIABLE
from components.common.settings import get_settings
from components.common.step import records_of_run
from pipelines.console import LineFilter, show_failure, show_results
from pipelines.recipe import Recipe
from pipelines.revision import git_revision
from pipelines.sources import with_version

_PLACE_IS_UNFIT = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}


@dataclass(frozen=True)
class Place:
    """Where a local run keeps its things, all below one folder unless the environment says otherwise."""

    home: Path

    @property
    def log_folder(self) -> Path:
        """Full logs, one per run."""
        return self.home / "logs"

    @property
    def kfp_root(self) -> Path:
        """KFP's own outputs: manifests and pages."""
        return self.home / "kfp"

    @property
    def workspace(self) -> Path:
        """A folder that KFP offers its steps; without one it would leave another behind in /tmp with every run."""
        return self.home / "workspace"

    def cache_root(self, *identity: str) -> Path:
        """The cache's entries; another store, tracking server or image has its own."""
        settings = get_settings()
        place = (settings.store_uri, settings.tracking_uri, settings.experiment)
        return self.home / "cache" / fingerprint(*place, *identity)


class Runner(Protocol):
    """How the steps of a run on this machine are started."""

    def check(self, place: Place) -> None:
        """Raise PipelineError where something is missing that every step needs; end what a killed run left behind."""

    def identity(self) -> list[str]:
        """What decides the steps' outputs beside their inputs and this code."""

    def opened(self, place: Place) -> contextlib.AbstractContextManager[Any]:
        """Give KFP's runner while the run lasts."""


class Processes:
    """Starts each step as a process of this Python."""

    def check(self, place: Place) -> None:
        """All that a step needs is here, and processes end with their runner (components.common.parent)."""

    def identity(self) -> list[str]:
        """Nothing: the code counts already."""
        return []

    @contextlib.contextmanager
    def opened(self, place: Place) -> Iterator[Any]:  # noqa: ARG002 - containers need it
        """Yield KFP's runner of processes."""
        from kfp import local

        yield local.SubprocessRunner(use_venv=False)


def run_locally(recipe: Recipe, home: Path, runner: Runner | None = None) -> bool:
    """Run the pipeline with a recipe and print what came of it.

    What is done is never done again: steps come from the cache, and an interrupted step goes on at its last shard or
    checkpoint.

    Args:
        recipe: What to run.
        home: Folder for the store, the tracking database, caches and logs.
        runner: How the steps are started; processes of this Python, unless it says otherwise.

    Returns:
        Whether the run succeeded.

    Raises:
        PipelineError: The run could not start (another one is going on, the store cannot be written).
    """
    place, runner = Place(home.resolve()), runner or Processes()
    with _only_run(place.home):
        run_id = _prepare_environment(recipe, place)
        runner.check(place)
        recipe = with_version(recipe)
        storage.check_writable(get_settings().store_uri)
        tracking.initialise()
        place.log_folder.mkdir(parents=True, exist_ok=True)
        try:
            with _marked_open(place.home / "open-run", run_id):
                return _run(recipe, place, runner, place.log_folder / f"{run_id}.log")
        except OSError as error:
            if error.errno not in _PLACE_IS_UNFIT:
                raise
            raise PipelineError(
                f"Cannot write to {place.home}: {error.strerror}; free some space, or set PMC_HOME to another folder."
            ) from error


def set_places(home: Path) -> None:
    """Let the store and MLflow lie below a folder, unless the environment says where they are."""
    os.environ.setdefault("PMC_STORE_URI", storage.to_uri(home / "store"))
    os.environ["PMC_STORE_URI"] = storage.to_uri(os.environ["PMC_STORE_URI"])
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    get_settings.cache_clear()


def _run(recipe: Recipe, place: Place, runner: Runner, log: Path) -> bool:
    from kfp import local
    from kfp.local import cache as kfp_cache

    from pipelines.ledger import StepLedger
    from pipelines.pmc_llama import build_pipeline

    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    warnings.filterwarnings("ignore", message=".*have no effect in the current local runner")
    warnings.filterwarnings("ignore", category=FutureWarning)
    started = time.monotonic()
    pipeline = build_pipeline(recipe)
    cache_root = str(place.cache_root(*runner.identity()))
    ledger = StepLedger(cache_root, *_names_and_stages(pipeline))
    for folder in (place.kfp_root, place.workspace):
        folder.mkdir(exist_ok=True)
    with (
        runner.opened(place) as kfp_runner,
        log.open("w", encoding="utf-8") as file,
        _captured(file) as lines,
    ):
        local.init(
            runner=kfp_runner,
            pipeline_root=str(place.kfp_root),
            workspace_root=str(place.workspace),
            enable_caching=True,
            cache_root=cache_root,
        )
        # KFP offers no hook for a cache of one's own; the orchestrator asks this function for it.
        kfp_cache.get_local_cache = lambda: ledger
        try:
            pipeline(**recipe.arguments())
            succeeded = True
        except RuntimeError as error:
            file.write(f"{error}\n")
            succeeded = False
    if succeeded:
        show_results(ledger.results, time.monotonic() - started, get_settings().tracking_uri, log)
    else:
        show_failure(lines.causes or _causes(), log)
    return succeeded


@contextlib.contextmanager
def _captured(file: TextIO) -> Iterator[LineFilter]:
    """Send KFP's own output and log lines to the file, and only the steps' lines to the terminal."""
    handler = logging.StreamHandler(file)
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    root.handlers[:], root.level = [handler], logging.INFO
    # On a full disk each line of KFP's log would print a traceback of its own.
    logging.raiseExceptions = False
    try:
        lines = LineFilter(file, sys.stdout)
        with contextlib.redirect_stdout(lines):
            yield lines
    finally:
        root.handlers[:], root.level, logging.raiseExceptions = before


def _causes() -> list[str]:
    """Name the steps that ended without a word: they were killed."""
    causes = [
        f"{record['step']} failed: {record.get('error') or 'its process was killed.'}"
        for record in records_of_run()
        if record["status"] != "SUCCEEDED"
    ]
    return causes or ["The run failed before a step could say why; see the log."]


def _prepare_environment(recipe: Recipe, place: Place) -> str:
    """Fill in what the environment leaves open and give the run its id; steps inherit it."""
    place.home.mkdir(parents=True, exist_ok=True)
    run_id = f"{recipe.recipe}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
    set_places(place.home)
    os.environ.setdefault("PMC_GIT_REVISION", git_revision())
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.update({"PMC_RUN_ID": run_id, "PMC_RUN_NAME": run_id, RUNNER_VARIABLE: str(os.getpid())})
    # A step finds the components by their package; they are installed, or stand in the current folder.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    get_settings.cache_clear()
    return run_id


@contextlib.contextmanager
def _only_run(home: Path) -> Iterator[None]:
    """Hold the folder's lock: two runs in one place would train into the same checkpoints."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "run.lock").open("w")
    except OSError as error:
        raise PipelineError(f"Cannot write to {home}: {error.strerror}; give another folder with PMC_HOME.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"Another run is going on in {home}; wait for it, or set PMC_HOME to another folder."
            ) from error
        yield


@contextlib.contextmanager
def _marked_open(mark: Path, run_id: str) -> Iterator[None]:
    """Name the run in a file while it lasts; a name that is found there is that of a run that was killed."""
    if mark.exists():
        tracking.close_killed_run(mark.read_text(encoding="utf-8"))
    mark.write_text(run_id, encoding="utf-8")
    yield
    mark.unlink()


def _names_and_stages(pipeline: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Read from the compiled pipeline each component's display name; the stage is the component's package."""
    spec = pipeline.pipeline_spec
    names: dict[str, str] = {}
    for tasks in [spec.root.dag.tasks, *(c.dag.tasks for c in spec.components.values())]:
        for task in tasks.values():
            names[task.component_ref.name] = task.task_info.name
    return names, _stages()


def _stages() -> dict[str, str]:
    """Map KFP's component names to the stage whose folder defines them."""
    from kfp.dsl.python_component import PythonComponent

    from pipelines import pmc_llama

    components = [each for each in vars(pmc_llama).values() if isinstance(each, PythonComponent)]
    return {f"comp-{each.name}": each.python_func.__module__.split(".")[1] for each in components}
