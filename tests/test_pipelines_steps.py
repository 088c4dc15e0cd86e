"""The steps' pods: what the recipe says of them is in the compiled pipeline, where Kubeflow reads it."""

import functools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from components.common.errors import InputError
from components.common.settings import get_settings
from pipelines.compile import PIPELINES, compile_pipeline
from pipelines.pmc_llama import build_pipeline
from pipelines.recipe import Recipe, load_recipe
from pipelines.step_settings import STEPS
from tests.fake_kfp.checks import parsed_package

MANY = (
    "steps.secrets={keys: [AWS_ACCESS_KEY_ID, HF_TOKEN]}",
    "steps.config_maps={places: [PMC_STORE_URI]}",
    "steps.optional_variables=[HF_TOKEN]",
    "steps.image_pull_secrets=[registry]",
    "steps.default.node_selector={pool: cpu}",
    "steps.evaluate.gpus=2",
    "steps.evaluate.cpu=7",
    "steps.evaluate.memory=48Gi",
    "steps.evaluate.shared_memory=2Gi",
    "steps.evaluate.tolerations=[{key: spot, effect: NoExecute, toleration_seconds: 60}]",
    "steps.extract.cpu_limit=3500m",
    "steps.extract.memory_limit=9Gi",
    "steps.extract.retries=2",
    "steps.extract.timeout_hours=3",
    "steps.train.cpu=2",
)
LAUNCHED = ("train.launcher=pytorchjob", "steps.caching=false")


@functools.cache
def compiled(name: str, *settings: str, pipeline: str = "pmc-llama") -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline's specification, and its executors' for Kubernetes."""
    with TemporaryDirectory() as folder:
        text = compile_pipeline(load_recipe(name, settings), Path(folder) / "p.yaml", pipeline).read_text()
    parsed_package(text)
    spec, platform = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def container(spec: dict[str, Any], executor: str) -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][executor]["container"]


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    dags = [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]
    return {name: task for dag in dags for name, task in dag["tasks"].items()}


def test_a_step_has_its_own_settings_and_the_defaults_for_the_rest() -> None:
    steps = load_recipe("tiny", MANY).steps
    evaluate, tokenize = steps.of("evaluate"), steps.of("tokenize")
    assert (evaluate.cpu, evaluate.retries, evaluate.node_selector) == ("7", 1, {"pool": "cpu"})
    assert (tokenize.cpu, tokenize.gpus, tokenize.tolerations) == ("250m", 0, [])


def test_resources_reach_the_step_through_parameters_of_the_pipeline() -> None:
    spec, _ = compiled("tiny", *MANY)
    resources = container(spec, "exec-evaluate-model")["resources"]
    assert resources["resourceCpuRequest"] == "{{$.inputs.parameters['pipelinechannel--evaluate_cpu']}}"
    assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
    assert resources["resourceMemoryLimit"] == "{{$.inputs.parameters['pipelinechannel--evaluate_memory']}}"
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "2"
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["evaluate_memory"]["defaultValue"] == "48Gi"
    extract = container(spec, "exec-extract-shard")["resources"]
    assert extract["resourceCpuLimit"].endswith("--extract_cpu_limit']}}")
    assert extract["resourceMemoryLimit"].endswith("--extract_memory_limit']}}")
    assert "resourceCpuLimit" not in container(spec, "exec-tokenize-shard")["resources"]


@pytest.mark.parametrize("pipeline", list(PIPELINES))
def test_every_parameter_that_a_step_reads_is_handed_down_to_it(pipeline: str) -> None:
    spec, platform = compiled("tiny", *MANY, pipeline=pipeline)
    checked = 0
    for component in [spec["root"], *spec["components"].values()]:
        known = set(component.get("inputDefinitions", {}).get("parameters", {}))
        for task in component.get("dag", {}).get("tasks", {}).values():
            read = [
                each.get("componentInputParameter") for each in task.get("inputs", {}).get("parameters", {}).values()
            ]
            executor = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            read += list(parameters_in(platform.get(executor, {})))
            assert {each for each in read if each} <= known, task["taskInfo"]["name"]
            checked += len([each for each in read if each])
    assert checked > 10


def parameters_in(data: Any) -> list[str]:
    if isinstance(data, list):
        return [name for each in data for name in parameters_in(each)]
    if not isinstance(data, dict):
        return []
    own = [data["componentInputParameter"]] if "componentInputParameter" in data else []
    return own + [name for each in data.values() for name in parameters_in(each)]


def test_placement_and_names_of_secrets_are_parameters_and_their_keys_are_not() -> None:
    spec, platform = compiled("tiny", *MANY)
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    given = {name: each["defaultValue"] for name, each in inputs.items() if each["parameterType"] != "STRUCT"}
    assert given["secret_keys"] == "keys"
    assert given["config_map_places"] == "places"
    assert given["pull_secret_registry"] == "registry"
    assert inputs["default_node_selector"]["defaultValue"] == {"pool": "cpu"}
    assert given["evaluate_tolerations"] == [
        {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    ]
    evaluate = platform["exec-evaluate-model"]
    assert [
        (each["secretNameParameter"]["componentInputParameter"], each["keyToEnv"][0]["envVar"], each["optional"])
        for each in evaluate["secretAsEnv"]
    ] == [
        ("pipelinechannel--secret_keys", "AWS_ACCESS_KEY_ID", False),
        ("pipelinechannel--secret_keys", "HF_TOKEN", True),
    ]
    assert evaluate["tolerations"][0]["tolerationJson"]["componentInputParameter"] == (
        "pipelinechannel--evaluate_tolerations"
    )
    assert evaluate["securityContext"] == {"runAsUser": "1000", "runAsNonRoot": True}
    assert {(each["mountPath"], each.get("medium")) for each in evaluate["emptyDirMounts"]} == {
        ("/tmp", None),
        ("/dev/shm", "Memory"),
    }


def test_each_pod_learns_its_run_from_its_labels_and_its_image_for_the_lineage(monkeypatch) -> None:
    monkeypatch.setenv("PMC_TRAINER_IMAGE", "registry/trainer@sha256:12")
    monkeypatch.setenv("KFP_ENDPOINT", "https://me:hidden@kubeflow.example.org/pipeline")
    get_settings.cache_clear()
    compiled.cache_clear()
    spec, platform = compiled("tiny", "steps.evaluate.gpus=1")
    compiled.cache_clear()
    labels = {each["name"]: each["fieldPath"] for each in platform["exec-summarise-run"]["fieldPathAsEnv"]}
    assert labels["PMC_RUN_ID"] == "metadata.labels['pipeline/runid']"
    assert labels["PMC_RUN_NAME"] == "metadata.labels['workflows.argoproj.io/workflow']"
    assert len(platform) == len(spec["deploymentSpec"]["executors"])
    images = {name: each["container"]["image"] for name, each in spec["deploymentSpec"]["executors"].items()}
    # Training on the spot, and what has a GPU.
    assert {name for name, image in images.items() if "trainer" in image} == {
        "exec-train-model",
        "exec-finetune-model",
        "exec-finetune-model-2",
        "exec-finetune-model-3",
        *(f"exec-evaluate-model{number}" for number in ("", "-2", "-3", "-4", "-5", "-6")),
    }
    environment = {each["name"]: each["value"] for each in container(spec, "exec-train-model")["env"]}
    assert environment["PMC_IMAGE"] == environment["PMC_TRAINER_IMAGE"] == "registry/trainer@sha256:12"
    assert environment["KFP_UI_URL"].endswith("kubeflow.example.org/pipeline")
    assert "hidden" not in str(spec)


def test_the_step_that_only_launches_the_training_needs_no_trainer_image() -> None:
    spec, _ = compiled("tiny", *LAUNCHED)
    here = get_settings()
    assert container(spec, "exec-train-model")["image"] == here.image
    assert container(spec, "exec-finetune-model")["image"] == here.trainer_image != here.image
    assert container(compiled("paper")[0], "exec-finetune-model")["image"] == here.image


def test_retries_wait_longer_each_time_and_have_the_time_that_they_need() -> None:
    spec, platform = compiled("tiny", *MANY)
    policy = tasks(spec)["extract-shard"]["retryPolicy"]
    assert (policy["maxRetryCount"], policy["backoffDuration"], policy["backoffFactor"]) == (2, "10s", 2.0)
    # Argo kills the attempt that runs at its end: three attempts of three hours, each a day for a node, and the waits.
    assert policy["backoffMaxDuration"] == f"{3 * (3 + 24) * 3600 + 10 + 20}s"
    assert platform["exec-extract-shard"]["activeDeadlineSeconds"] == str(3 * 3600)


def test_training_has_no_time_out_unless_it_is_given_one() -> None:
    _, platform = compiled("tiny", *MANY)
    assert "activeDeadlineSeconds" not in platform["exec-train-model"]
    assert load_recipe("tiny", ["steps.train.timeout_hours=5"]).steps.of("train").timeout_seconds() == 5 * 3600


def test_a_preflight_that_fails_is_not_tried_again() -> None:
    found = tasks(compiled("tiny")[0])
    assert "retryPolicy" not in found["run-preflight"]
    assert found["extract-shard"]["retryPolicy"]["maxRetryCount"] == 1


def test_no_step_asks_the_cache_for_how_things_are_now() -> None:
    cached = {
        name: task["cachingOptions"].get("enableCache", False)
        for name, task in tasks(compiled("tiny")[0]).items()
        if "cachingOptions" in task and "dag" not in task
    }
    assert not any(cached[name] for name in ("run-preflight", "plan-download", "champion-model", "summarise-run"))
    assert all(cached[name] for name in ("extract-shard", "train-model", "finetune-model", "evaluate-model"))
    without = tasks(compiled("tiny", *LAUNCHED)[0])
    steps = [
        task for task in without.values() if not task["componentRef"]["name"].startswith(("comp-exit", "comp-for"))
    ]
    assert len(steps) > 12 and not any(task["cachingOptions"].get("enableCache") for task in steps)


def test_everything_comes_after_the_preflight() -> None:
    found = tasks(compiled("tiny")[0])
    first = [name for name, task in found.items() if task.get("dependentTasks") == ["run-preflight"]]
    assert set(first) == {"plan-download", "download-benchmarks", "download-base-model"}
    free = [n for n, t in found.items() if "dependentTasks" not in t and not n.startswith(("exit-handler", "for-loop"))]
    # Inside the loops, what their iteration is made of.
    loops = {"download-shard", "tokenize-shard", "finetune-model", "finetune-model-2", "finetune-model-3"}
    assert set(free) == {"run-preflight"} | loops


def test_a_local_run_has_the_recipes_parameters_alone_and_is_never_retried() -> None:
    recipe = load_recipe("tiny", MANY)
    spec = build_pipeline(recipe).pipeline_spec
    assert set(spec.root.input_definitions.parameters) == set(recipe.arguments())
    dags = [spec.root.dag, *(each.dag for each in spec.components.values())]
    assert not any(task.HasField("retry_policy") for dag in dags for task in dag.tasks.values())


def test_the_section_survives_being_written_and_read_again() -> None:
    recipe = load_recipe("tiny", MANY)
    again = Recipe.model_validate(recipe.model_dump(mode="json", by_alias=True))
    assert all(again.steps.of(step) == recipe.steps.of(step) for step in STEPS)
    assert all(again.steps.own(step) == recipe.steps.own(step) for step in STEPS)


@pytest.mark.parametrize(
    "override", ["steps.default.scratch=32", "train.cluster.cpu=32", "finetune.questions.cluster.cpu=32"]
)
def test_a_quantity_may_be_a_plain_number(override: str) -> None:
    recipe = load_recipe("tiny", [override])
    quantities = recipe.steps.default.scratch, recipe.train.cluster.cpu, recipe.finetune["questions"].cluster.cpu
    assert quantities.count("32") == 1
    # KFP makes 32.0 of the number in its parameters.
    assert type(recipe.train.cluster)(cpu=32.0, memory="64Gi", shared_memory="1Gi").cpu == "32"


def test_a_part_of_the_section_can_be_written_alone() -> None:
    assert set(load_recipe("tiny", MANY).steps.model_dump(include={"user", "evaluate"})) == {"user", "evaluate"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps.extract.memory=1.5Gi", r"steps\.extract\.memory: .*not '1\.5Gi'"),
        ("steps.extract.cpu=two", r"steps\.extract\.cpu: .*not 'two'"),
        ("steps.extract.memory_limit=1Gi", r"steps: extract: memory_limit 1Gi is less than memory 2Gi"),
        ("steps.extract.cpu_limit=100m", r"steps: extract: cpu_limit 100m is less than cpu 250m"),
        ("steps.evaluate.shared_memory=2Gi", r"steps: evaluate: shared_memory 2Gi must be less than memory 2Gi"),
        ("steps.default.deadline_hours=0.5", r"deadline_hours 0\.5 is less than timeout_hours 1"),
        ("steps.secrets={a: [X], b: [X]}", "variable X comes from a and from b"),
        ("steps.secrets={a.b: [X], a-b: [Y]}", r"two of a\.b, a-b would be the same parameter"),
        ("steps.optional_variables=[NOPE]", "NOPE comes from no secret or config map"),
        ("steps.secrets={Upper: [X]}", "'Upper' is no name of a Kubernetes object"),
        ("steps.extrct.cpu=1", r"no setting 'steps\.extrct\.cpu' \(did you mean 'steps\.extract\.cpu'\?\)"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("tiny", [setting])


def test_the_paper_recipe_asks_for_a_gpu_only_where_one_is_used() -> None:
    recipe = load_recipe("paper")
    assert {step for step in STEPS if recipe.steps.of(step).gpus} == {"evaluate"}
    assert recipe.train.launcher == "pytorchjob"
    assert recipe.steps.of("evaluate").tolerations[0].key == "nvidia.com/gpu"


def test_a_compilation_does_not_read_the_sources_of_whoever_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("KFP has asked for the source of a frame")

    monkeypatch.setattr("inspect.findsource", read)
    build_pipeline(load_recipe("tiny"), on_cluster=True)
