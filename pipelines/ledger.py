"""The local runner's cache: keyed by content and code, and a record of what ran and what did not."""

import hashlib
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local.cache import LocalCache

from components.common import storage
from components.common.errors import PipelineError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest

COMPONENTS = Path(__file__).parent.parent / "components"


@dataclass
class StepResult:
    """A task of a local run: its step's name, whether it came from the cache, how long it took, what came out."""

    name: str
    cached: bool
    seconds: float
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, float]:
        """The metadata that are numbers, and ``dropped``, the sum over the reasons."""
        numbers = {k: v for k, v in self.metadata.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        reasons = [value for key, value in numbers.items() if key.startswith("dropped_")]
        return numbers | ({"dropped": sum(reasons)} if reasons else {})


class StepLedger(LocalCache):
    """KFP's local cache, improved in three ways, and with a memory of the run.

    - An artifact counts by the fingerprint in its metadata, not by where it lies, so an output that was made again
      with the same content leaves what depends on it cached.
    - A stage's code is part of the key: a step whose code changed runs again.
    - An entry counts only while every shard that its manifest names is still in the store.
    """

    def __init__(self, cache_root: str, display_names: dict[str, str], stages: dict[str, str]) -> None:
        """Bind the folder of entries, and for each component its display name and its stage."""
        super().__init__(cache_root)
        self.results: list[StepResult] = []
        self._display_names, self._stages = display_names, stages
        self._started: dict[str, tuple[str, float]] = {}
        self._guard = threading.Lock()

    def compute_key(self, component_name: str, *_: Any, **rest: Any) -> str:  # type: ignore[override]
        """Key a task by its component, its stage's code and the content of its inputs."""
        # KFP numbers equal components (comp-x, comp-x-2): what they do is the same.
        base_name = re.sub(r"-\d+$", "", component_name)
        stage = self._stages.get(base_name, "")
        arguments = {name: _content(value) for name, value in rest["arguments"].items()}
        key = fingerprint(base_name, _code_hash(("common", stage)), arguments)
        with self._guard:
            self._started[key] = (self._display_names.get(component_name, base_name), time.monotonic())
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a task's cached outputs if they and the shards behind them are still there."""
        outputs = super().get(key)
        if outputs is None or not all(_shards_exist(artifact) for artifact in _artifacts(outputs)):
            return None
        self._note(key, outputs, cached=True)
        return outputs

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep the outputs of a task that ran."""
        super().put(key, outputs)
        self._note(key, outputs, cached=False)

    def _note(self, key: str, outputs: dict[str, Any], cached: bool) -> None:
        with self._guard:
            name, started = self._started[key]
            metadata = {k: v for artifact in _artifacts(outputs) for k, v in artifact.metadata.items()}
            self.results.append(StepResult(name, cached, time.monotonic() - started, metadata))


def _artifacts(outputs: dict[str, Any]) -> Iterable[dsl.Artifact]:
    for value in outputs.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dsl.Artifact):
                yield each


def _content(value: Any) -> Any:
    if isinstance(value, dsl.Artifact):
        return value.metadata.get("fingerprint") or value.uri
    if isinstance(value, list):
        return [_content(each) for each in value]
    return value


def _shards_exist(artifact: dsl.Artifact) -> bool:
    if "fingerprint" not in artifact.metadata:
        return True
    try:
        return all(storage.exists(shard.uri) for shard in Manifest.load(artifact.uri).shards)
    except PipelineError:
        return False


def _code_hash(stages: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for stage in stages:
        for path in sorted((COMPONENTS / stage).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(COMPONENTS).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
