"""The compiled pipeline."""

import functools
import getpass
import re
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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


@functools.cache
def compiled(name: str, *settings: str) -> list[dict[str, Any]]:
    """The pipeline's specification, and what is of Kubernetes alone."""
    with TemporaryDirectory() as folder:
        text = compile_pipeline(load_recipe(name, settings), Path(folder) / "p.yaml").read_text()
    return [*yaml.load_all(text, Loader=yaml.CSafeLoader)]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_compiles_to_what_kfp_loads_again(name: str, tmp_path: Path) -> None:
    from kfp import components

    path = compile_pipeline(load_recipe(name), tmp_path / "deep" / "pipeline.yaml")
    loaded = components.load_component_from_file(str(path))
    assert loaded.name == "pmc-llama"
    inputs = loaded.component_spec.inputs
    assert set(inputs) >= {"recipe", "download", "preprocess", "train", "evaluate", "register", "default_memory"}
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


def test_every_step_has_a_name_a_person_understands() -> None:
    document, _ = compiled("tiny")
    dags = [document["root"]["dag"], *(c["dag"] for c in document["components"].values() if "dag" in c)]
    names = {task["taskInfo"]["name"] for dag in dags for task in dag["tasks"].values()}
    assert names >= {"Plan the download", "Train the model", "Evaluate the candidate", "Summarise the run", "Tokenise"}
    assert all(" " in name or name in {"PMC-LLaMA", "Tokenise"} for name in names)


def _loops(name: str, *settings: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The pipeline's parameters, and the tasks in each of its loops."""
    document, _ = compiled(name, *settings)
    dags = {key: part["dag"] for key, part in document["components"].items() if "dag" in part}
    titles = {
        task["componentRef"]["name"]: task["taskInfo"]["name"]
        for dag in dags.values()
        for task in dag["tasks"].values()
    }
    tasks = {titles[key]: sorted(dag["tasks"]) for key, dag in dags.items() if key.startswith("comp-for-loop")}
    return document["root"]["inputDefinitions"]["parameters"], tasks


def test_the_fine_tuning_runs_are_a_list_that_can_be_changed_when_a_run_starts() -> None:
    parameters, loops = _loops("paper")
    assert [run["name"] for run in parameters["finetune"]["defaultValue"]] == ["in-domain", "out-of-domain"]
    assert loops["Fine-tune and compare"] == [
        "evaluate-model-4",
        "evaluate-model-5",
        "finetune-model",
        "finetune-model-2",
    ]
    assert "instruct" not in parameters and "Follow instructions" not in loops


def test_a_recipe_without_fine_tuning_has_neither_its_boxes_nor_its_parameters() -> None:
    parameters, loops = _loops("paper", "finetune=null", "register.judged_on=as_is")
    assert set(loops) == {"Articles to text", "Text to tokens"}
    assert not {"finetune", "instruct", "finetune_cpu"} & set(parameters)


def test_learning_to_follow_instructions_is_of_the_candidate_alone() -> None:
    parameters, loops = _loops("tiny", "finetune.questions=null")
    assert loops["Follow instructions"] == ["evaluate-model-4", "finetune-model", "register-answering-model"]
    assert "Fine-tune and compare" not in loops and "finetune" not in parameters


def test_what_answers_is_registered_after_its_evaluation_and_the_registration_of_its_parent() -> None:
    document, platform = compiled("tiny", "finetune.questions=null")
    dags = {key: part["dag"] for key, part in document["components"].items() if "dag" in part}
    (loop,) = [dag for dag in dags.values() if "register-answering-model" in dag["tasks"]]
    step = loop["tasks"]["register-answering-model"]
    assert step["taskInfo"]["name"] == "Register the model that answers"
    assert step["dependentTasks"] == ["evaluate-model-4", "finetune-model"]
    given = step["inputs"]["artifacts"]
    assert given["evaluation"]["taskOutputArtifact"]["producerTask"] == "evaluate-model-4"
    outside = given["parent_registration"]["componentInputArtifact"]
    (around,) = [dag for dag in dags.values() if "register-model" in dag["tasks"]]
    (box,) = [task for task in around["tasks"].values() if outside in task.get("inputs", {}).get("artifacts", {})]
    source = box["inputs"]["artifacts"][outside]["taskOutputArtifact"]
    assert (source["producerTask"], source["outputArtifactKey"]) == ("register-model", "registration")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    same = [executors[f"exec-{name}"]["secretAsEnv"] for name in ("register-model", "register-answering-model")]
    assert same[0] == same[1]


def test_no_step_installs_anything_when_it_starts(tmp_path: Path) -> None:
    assert "pip install" not in compile_pipeline(load_recipe("tiny"), tmp_path / "p.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "settings", "cached"),
    # Whoever starts the compiled pipeline may choose another source than the recipe's.
    [("tiny", (), False), ("paper", (), False), ("paper", ("download.version=2026-11-20",), True)],
)
def test_the_plan_is_cached_only_where_the_state_of_the_source_is_known(
    name: str, settings: tuple[str, ...], cached: bool
) -> None:
    document, _ = compiled(name, *settings)
    dags = [document["root"]["dag"], *(c["dag"] for c in document["components"].values() if "dag" in c)]
    (plan,) = [task for dag in dags for name, task in dag["tasks"].items() if name == "plan-download"]
    assert plan["cachingOptions"].get("enableCache", False) is cached
