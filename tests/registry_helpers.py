"""Registered versions that cost nothing to make, and processes that are killed in the middle of changing them."""

import functools
import itertools
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from components.common import storage
from components.common.settings import get_settings
from components.register.registry.registry import Registry

PROCESSES = multiprocessing.get_context("forkserver")
# A process starts with what takes a second to import, and with nothing that a process may not share.
PROCESSES.set_forkserver_preload(
    [
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
        "components.register.register",
        "tests.registry_scenarios",
    ]
)

KEPT = ("PMC_", "MLFLOW_", "AWS_")
MLFLOW_CHANGES = (
    "create_registered_model",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "create_model_version",
    "update_model_version",
    "delete_model_version",
    "set_model_version_tag",
    "delete_model_version_tag",
)
STORE_CHANGES = ("create", "write", "delete")
_names = itertools.count(1)


@functools.cache
def _migrated() -> bytes:
    """An empty MLflow database: made once, its migrations take seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        MlflowClient(f"sqlite:///{path}").search_registered_models()
        return path.read_bytes()


def empty_database(folder: Path) -> str:
    """Make an MLflow database in a folder; returns its address."""
    (folder / "mlflow.db").write_bytes(_migrated())
    return f"sqlite:///{folder}/mlflow.db"


@dataclass(frozen=True)
class Place:
    """An MLflow and a store; several tests share them, each with models of its own."""

    tracking_uri: str
    store_uri: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri, self.tracking_uri)

    def registry(self, name: str) -> Registry:
        return Registry(self.tracking_uri, name)

    def aliases(self, name: str) -> dict[str, str]:
        return self.registry(name).aliases()

    def add(self, name: str, verdict: str = "passed", against: str = "any") -> str:
        """Register a version with weights of a few bytes; returns its number."""
        registry = self.registry(name)
        mark = f"{name}-{next(_names)}"
        uri = storage.join(self.store_uri, "models", mark)
        for file in ("MLmodel", "config.json", "model.safetensors"):
            storage.write(storage.join(uri, file), b"{}")
        with registry.lock(self.store_uri):
            tags = {"verdict": verdict, "verdict_reason": f"It {verdict}.", "judged_against": against}
            return str(registry.add_version(uri, mark, tags, "").version)


def in_process(function: Callable[..., Any], *arguments: Any, die_before: int = 0) -> int:
    """Call a function in a process of its own; returns the exit code, which is -9 if it was killed.

    Args:
        function: Of a module, so that another process finds it.
        arguments: For it.
        die_before: The process is killed right before its so-many-th change of MLflow or of the store; 0 is never.
    """
    process = start(function, *arguments, die_before=die_before)
    process.join(120)
    assert process.exitcode is not None, "the process does not end"
    return process.exitcode


def start(function: Callable[..., Any], *arguments: Any, die_before: int = 0) -> Any:
    """Start a process that calls a function, as :func:`in_process` does, without waiting for it."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    process = PROCESSES.Process(target=_call, args=(function, arguments, environment, die_before), daemon=True)
    process.start()
    return process


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], environment: Mapping[str, str], die: int) -> None:
    for name in [name for name in os.environ if name.startswith(KEPT)]:
        del os.environ[name]
    os.environ.update(environment)
    get_settings.cache_clear()
    if die:
        count = itertools.count(1)
        for owner, names in ((MlflowClient, MLFLOW_CHANGES), (storage, STORE_CHANGES)):
            for name in names:
                setattr(owner, name, _deadly(getattr(owner, name), count, die))
    function(*arguments)


def _deadly(function: Callable[..., Any], count: "itertools.count[int]", die: int) -> Callable[..., Any]:
    @functools.wraps(function)
    def counted(*arguments: Any, **named: Any) -> Any:
        if next(count) == die:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return counted
