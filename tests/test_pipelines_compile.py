"""The compiled pipeline."""

import getpass
import re
import socket
from pathlib import Path

import pytest
import yaml

from components.common.settings import get_settings
from pipelines.compile import compile_pipeline
from pipelines.recipe import load_recipe, recipe_names

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "sentinel-secret-key",
    "AWS_ACCESS_KEY_ID": "sentinel-key-id",
    "MLFLOW_TRACKING_URI": "postgresql://user:sentinel-password@db/mlflow",
    "MLFLOW_TRACKING_TOKEN": "sentinel-token",
    "HF_TOKEN": "sentinel-hub-token",
    "S2_API_KEY": "sentinel-s2-key",
    "PMC_STORE_URI": "s3://sentinel-bucket/x",
}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_compiles_to_what_kfp_loads_again(name: str, tmp_path: Path) -> None:
    from kfp import components

    path = compile_pipeline(load_recipe(name), tmp_path / "deep" / "pipeline.yaml")
    loaded = components.load_component_from_file(str(path))
    assert loaded.name == "pmc-llama"
    inputs = loaded.component_spec.inputs
    assert set(inputs) == {"recipe", "download", "preprocess", "train", "evaluate", "register"}
    assert inputs["train"].default["epochs"] == load_recipe(name).train.epochs


def test_it_carries_no_secret_and_nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SECRETS.items():
        monkeypatch.setenv(key, value)
    get_settings.cache_clear()
    text = compile_pipeline(load_recipe("paper"), tmp_path / "pipeline.yaml").read_text()
    assert "sentinel" not in text
    for mine in (str(Path(__file__).parents[1]), str(Path.home()), str(tmp_path), socket.gethostname()):
        assert mine not in text
    assert not re.search(rf"/(home|Users)/|\b{re.escape(getpass.getuser())}@", text)


def test_every_step_has_a_name_a_person_understands(tmp_path: Path) -> None:
    document = next(yaml.safe_load_all(compile_pipeline(load_recipe("tiny"), tmp_path / "p.yaml").read_text()))
    dags = [document["root"]["dag"], *(c["dag"] for c in document["components"].values() if "dag" in c)]
    names = {task["taskInfo"]["name"] for dag in dags for task in dag["tasks"].values()}
    assert names >= {"Plan the download", "Train the model", "Evaluate the candidate", "Summarise the run", "Tokenise"}
    assert all(" " in name or name in {"PMC-LLaMA", "Tokenise"} for name in names)


def test_no_step_installs_anything_when_it_starts(tmp_path: Path) -> None:
    assert "pip install" not in compile_pipeline(load_recipe("tiny"), tmp_path / "p.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "settings", "cached"),
    [("tiny", (), True), ("paper", (), False), ("paper", ("download.version=2026-11-20",), True)],
)
def test_the_plan_is_cached_only_where_the_state_of_the_source_is_known(
    name: str, settings: tuple[str, ...], cached: bool, tmp_path: Path
) -> None:
    path = compile_pipeline(load_recipe(name, settings), tmp_path / "p.yaml")
    document = next(yaml.safe_load_all(path.read_text()))
    dags = [document["root"]["dag"], *(c["dag"] for c in document["components"].values() if "dag" in c)]
    (plan,) = [task for dag in dags for name, task in dag["tasks"].items() if name == "plan-download"]
    assert plan["cachingOptions"].get("enableCache", False) is cached
