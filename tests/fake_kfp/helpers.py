"""What the tests of submitting and scheduling share."""

import functools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipelines import compile as compiling
from pipelines import kubeflow
from pipelines.recipe import Recipe
from tests.fake_kfp.server import FakeKfp


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKfp]:
    """A server for one user, which the environment names; each pipeline is compiled once for all tests."""
    monkeypatch.setattr(kubeflow, "_KFP_CONTEXT", tmp_path / "context.json")
    monkeypatch.setattr("pipelines.upload.compile_pipeline", compiled_once)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with FakeKfp() as running:
        monkeypatch.setenv("KFP_ENDPOINT", running.endpoint)
        yield running


def compiled_once(recipe: Recipe, output: Path, name: str) -> Path:
    """What `compile_pipeline` writes, from memory where it has written the same before."""
    output.write_text(_compiled(recipe.model_dump_json(by_alias=True), name), encoding="utf-8")
    return output


@functools.cache
def _compiled(recipe: str, name: str) -> str:
    with TemporaryDirectory() as folder:
        package = compiling.compile_pipeline(Recipe.model_validate_json(recipe), Path(folder) / "pipeline.yaml", name)
        return package.read_text(encoding="utf-8")
