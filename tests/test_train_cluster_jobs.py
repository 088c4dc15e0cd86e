"""What the launcher writes into a job, against the operators' own schemas; and what it refuses to write."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.common.cluster.labels import run_selector
from components.common.cluster.settings import ClusterSettings, quantity
from components.common.errors import InputError
from components.train.launching.cluster import pod_template
from components.train.launching.cluster.naming import identify
from components.train.launching.cluster.run import OPERATORS
from tests.fake_cluster import validation
from tests.fake_cluster.helpers import small_job
from tests.fake_cluster.store import Refused

FULL: dict[str, Any] = {
    "image": "registry/trainer@sha256:1",
    "image_pull_secrets": ["registry"],
    "nodes": 3,
    "extra_resources": {"rdma/hca": "1"},
    "node_selector": {"gpu": "a100"},
    "tolerations": [
        {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoExecute", "toleration_seconds": 9}
    ],
    "queue": "gpus",
    "queue_priority": "high",
    "service_account": "trainer",
    "secrets": {"s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]},
    "config_maps": {"places": ["AWS_ENDPOINT_URL_S3"]},
    "environment": {"NCCL_DEBUG": "INFO"},
    "volume_claims": {"models": "/models"},
    "pod_labels": {"team": "a"},
    "restarts": 2,
}
SCHEMAS = pytest.mark.parametrize("schemas", ["real", "ours"])


@pytest.fixture
def schemas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "real" and not validation.CRDS.exists():
        pytest.skip("the operators' CRDs are not beside the repository")
    if request.param == "ours":
        monkeypatch.setattr(validation, "CRDS", Path("/nowhere"))
        validation.schema_of.cache_clear()


@pytest.fixture(autouse=True)
def _forget_schemas() -> Any:
    yield
    validation.schema_of.cache_clear()


def manifest(launcher: str, tmp_path: Path, cluster: ClusterSettings, **job: Any) -> dict[str, Any]:
    job = small_job(tmp_path).model_copy(update=job)  # type: ignore[assignment]
    command = pod_template.command(pod_template.WORKER, "s3://bucket/job.json")
    return OPERATORS[launcher].manifest(identify("run-1", job), job, cluster, command)  # type: ignore[arg-type]


@pytest.mark.parametrize("schemas", ["real", "ours"], indirect=True)
@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
@pytest.mark.parametrize("settings", [{}, FULL])
def test_a_job_is_valid_for_its_operator(
    tmp_path: Path, schemas: None, launcher: str, settings: dict[str, Any]
) -> None:
    found = manifest(launcher, tmp_path, ClusterSettings(**settings))
    validation.check_object(found, f"{launcher}s", found["apiVersion"], found["kind"], strict=True)
    # and that is no empty check
    found["spec"]["surprise"] = 1
    with pytest.raises(Refused, match=r'unknown field "spec\.surprise"'):
        validation.check_object(found, f"{launcher}s", found["apiVersion"], found["kind"], strict=True)


def test_one_node_of_eight_gpus_is_the_default(tmp_path: Path) -> None:
    settings = small_job(tmp_path).settings.model_copy(update={"processes_per_node": 8, "device": "auto"})
    spec = manifest("pytorchjob", tmp_path, ClusterSettings(), settings=settings)["spec"]
    assert list(spec["pytorchReplicaSpecs"]) == ["Master"]
    assert spec["nprocPerNode"] == "8"
    pod = spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["name"] == "pytorch"
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}} in pod["volumes"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] > settings.shutdown_seconds
    assert spec["runPolicy"]["backoffLimit"] == 4  # reached by the fourth restart: three are allowed


def test_more_nodes_are_workers_and_their_restarts_add_up(tmp_path: Path) -> None:
    spec = manifest("pytorchjob", tmp_path, ClusterSettings(**FULL, priority_class="p", volcano_queue="v"))["spec"]
    assert {role: each["replicas"] for role, each in spec["pytorchReplicaSpecs"].items()} == {"Master": 1, "Worker": 2}
    assert {each["restartPolicy"] for each in spec["pytorchReplicaSpecs"].values()} == {"OnFailure"}
    assert spec["runPolicy"]["backoffLimit"] == 7
    assert spec["runPolicy"]["schedulingPolicy"] == {"queue": "v", "minAvailable": 3, "priorityClass": "p"}
    assert spec["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["priorityClassName"] == "p"


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_secrets_go_by_name_and_values_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:hush@mlflow")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://from-the-step")
    text = json.dumps(manifest(launcher, tmp_path, ClusterSettings(**FULL)))
    assert "hush" not in text and "from-the-step" not in text
    assert '{"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}' in text
    assert '{"configMapKeyRef": {"name": "places", "key": "AWS_ENDPOINT_URL_S3"}}' in text


def test_a_name_is_a_function_of_run_and_step(tmp_path: Path) -> None:
    one, other = small_job(tmp_path, "f0"), small_job(tmp_path, "f1")
    names = [identify(run, job).name for run in ("run-1", "run-2") for job in (one, other, one)]
    assert len(set(names)) == 4
    assert identify("run-1", one).name == identify("run-1", one).name
    assert all(len(name) <= 40 for name in names)
    assert run_selector("run-1") == "app.kubernetes.io/managed-by=pmc-llama-pipeline,pmc-llama/run=run-1"
    with pytest.raises(InputError, match="the run's id is ''"):
        identify("", one)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"memory": "5 GB"}, "'5 GB' is no quantity of Kubernetes"),
        ({"queue": "My_Queue"}, "'My_Queue' is no name of a Kubernetes object"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "looks like a secret"),
        ({"environment": {"PET_NNODES": "1"}}, "is set by the launcher itself"),
        ({"secrets": {"a": ["X"], "b": ["X"]}}, "variable X comes from secret a and from secret b"),
        ({"memory": "1Gi", "shared_memory": "2Gi"}, "shared_memory 2Gi must be less than memory 1Gi"),
        ({"volume_claims": {"store": "relative/path"}}, "is no absolute path"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "operator Exists takes no value"),
        ({"user": 0}, "greater than or equal to 1"),
        ({"gpus": 8}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused_where_they_are_read(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClusterSettings(**wrong)


def test_quantities_are_compared_as_numbers() -> None:
    assert quantity("1.5Gi") == 1.5 * 2**30
    assert quantity("500m") * 2 == quantity("1")
    assert quantity("1G") < quantity("1Gi")


def test_settings_travel_through_kfp() -> None:
    from components.common.section import without_nulls

    settings = ClusterSettings(**FULL, wait_minutes=None, gpu_resource=None)
    assert ClusterSettings(**without_nulls(settings.model_dump(mode="json"))) == settings
