"""What `make manifests` renders is what Kubernetes takes, what the code needs, and no more than that."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.common.cluster.labels import MANAGER, MANAGER_LABEL
from components.common.cluster.rights import OPTIONAL, STEPS, Right
from components.common.cluster.settings import ClusterSettings, quantity
from components.common.settings import Settings
from pipelines import placing
from pipelines.recipe import load_recipe
from tests.k8s_helpers import ENVIRONMENT, NAMESPACE, Network, find, rendered
from tools.cluster_manifests.installation import ROOT
from tools.cluster_manifests.policy import EXTERNAL_SECRETS, policy_problems
from tools.cluster_manifests.render import as_yaml
from tools.cluster_manifests.schemas import schema_problems

OVERLAYS = ("dev", "production", "serving")
ALL_COMPONENTS = "kueue,cluster-view"
STEP = {"pipeline/runid": "run-1"}
TRAINER = {MANAGER_LABEL: MANAGER}
MLFLOW = {"app.kubernetes.io/name": "pmc-llama-mlflow"}
S3 = {"app.kubernetes.io/name": "pmc-llama-s3"}
DATABASE = {"app.kubernetes.io/name": "pmc-llama-postgresql"}
STRANGER = {"app": "notebook"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_rendered_object_is_one_that_kubernetes_takes(overlay: str) -> None:
    objects = rendered(overlay, COMPONENTS=ALL_COMPONENTS)
    assert len(objects) > 2
    assert [problem for each in objects for problem in schema_problems(each)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_rendered_object_breaks_a_rule(overlay: str) -> None:
    assert policy_problems(rendered(overlay, COMPONENTS=ALL_COMPONENTS)) == []


def test_the_command_writes_what_another_rendering_gives_too(tmp_path: Path) -> None:
    output = tmp_path / "made.yaml"
    command = [sys.executable, "-m", "tools.manifests", "render", "dev", "--output", str(output)]
    given = {**os.environ, **ENVIRONMENT, "PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    objects = rendered("dev")
    assert output.read_text() == as_yaml(objects)
    assert f"{len(objects)} objects for namespace {NAMESPACE}, checked." in done.stdout


def test_the_steps_role_grants_exactly_what_the_code_asks_for() -> None:
    role = find(rendered("production"), "Role", "pmc-llama-steps")
    assert granted(role) == wanted(STEPS)


def test_what_only_the_preflight_asks_for_is_in_roles_of_its_own() -> None:
    objects = rendered("production", COMPONENTS="cluster-view")
    here = find(objects, "Role", "pmc-llama-preflight")
    everywhere = find(objects, "ClusterRole", "pmc-llama-preflight")
    assert granted(here) == wanted(tuple(right for right in OPTIONAL if right.namespaced))
    assert granted(everywhere) == wanted(tuple(right for right in OPTIONAL if not right.namespaced))


def test_nobody_but_the_runner_has_a_right() -> None:
    for overlay in ("dev", "production"):
        subjects = [
            (each["metadata"]["name"], subject)
            for each in rendered(overlay)
            if each["kind"] == "RoleBinding"
            for subject in each["subjects"]
        ]
        account = {"kind": "ServiceAccount", "name": "pmc-llama-steps", "namespace": NAMESPACE}
        names = ["pmc-llama-kfp", "pmc-llama-preflight", "pmc-llama-steps"]
        assert sorted(subjects, key=lambda pair: pair[0]) == [(name, account) for name in names]


def test_a_runner_of_kubeflow_gets_the_same_rights() -> None:
    binding = find(rendered("production", RUNNER="default-editor"), "RoleBinding", "pmc-llama-steps")
    assert [(each["name"], each["namespace"]) for each in binding["subjects"]] == [
        ("pmc-llama-steps", NAMESPACE),
        ("default-editor", NAMESPACE),
    ]


def test_the_trainer_holds_no_token() -> None:
    account = find(rendered("production"), "ServiceAccount", "pmc-llama-trainer")
    assert account["automountServiceAccountToken"] is False


def test_the_endpoints_have_the_names_that_the_steps_read() -> None:
    read = {
        alias
        for each in Settings.model_fields.values()
        for alias in (
            [each.validation_alias]
            if isinstance(each.validation_alias, str)
            else getattr(each.validation_alias, "choices", [])
        )
    }
    endpoints = find(rendered("dev"), "ConfigMap", "pmc-llama-endpoints")["data"]
    assert {"PMC_STORE_URI", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_REGION"} <= endpoints.keys() <= read


def test_production_takes_its_addresses_from_the_environment() -> None:
    objects = rendered("production", AWS_ENDPOINT_URL="https://s3.example.org:9000")
    assert find(objects, "ConfigMap", "pmc-llama-endpoints")["data"] == {
        "AWS_ENDPOINT_URL": "https://s3.example.org:9000",
        "AWS_REGION": "eu-central-1",
        "MLFLOW_EXPERIMENT_NAME": "pmc-llama",
        "MLFLOW_TRACKING_URI": "http://pmc-llama-mlflow:5000",
        "PMC_STORE_URI": "s3://bucket/pmc-llama",
    }
    server = find(objects, "ConfigMap", "pmc-llama-mlflow")["data"]
    assert server["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == "s3://bucket/pmc-llama/mlflow"
    assert Network(objects).lets_out(TRAINER, 9000)
    assert not Network(rendered("production")).lets_out(TRAINER, 9000)


def test_an_identity_of_the_cloud_and_a_pull_secret_reach_every_account() -> None:
    role = "arn:aws:iam::123456789012:role/pmc-llama"
    objects = rendered(
        "production", CLOUD_IDENTITY=f"eks.amazonaws.com/role-arn={role}", IMAGE_PULL_SECRET="registry-key"
    )
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    assert {each["metadata"]["name"] for each in accounts} == {
        "pmc-llama-steps",
        "pmc-llama-trainer",
        "pmc-llama-mlflow",
    }
    for each in accounts:
        assert each["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": role}
        assert each["imagePullSecrets"] == [{"name": "registry-key"}]


def test_a_pull_secret_reaches_the_servers_of_dev_and_an_identity_does_not() -> None:
    objects = rendered("dev", CLOUD_IDENTITY="iam.gke.io/gcp-service-account=a@b", IMAGE_PULL_SECRET="registry-key")
    database = find(objects, "ServiceAccount", "pmc-llama-postgresql")
    assert database["imagePullSecrets"] == [{"name": "registry-key"}]
    assert "annotations" not in database["metadata"]


@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_what_the_recipes_name_is_what_is_deployed(name: str) -> None:
    recipe = load_recipe(name, [])
    objects = rendered("dev")
    endpoints = find(objects, "ConfigMap", "pmc-llama-endpoints")["data"]
    accounts = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    assert recipe.steps.service_account in accounts
    assert recipe.train.cluster.service_account in accounts | {None}
    for settings in (recipe.steps, recipe.train.cluster):
        for source, keys in settings.config_maps.items():
            assert source == "pmc-llama-endpoints" and set(keys) <= endpoints.keys()
        for source, keys in settings.secrets.items():
            assert set(keys) <= EXTERNAL_SECRETS[source]


def test_the_policies_know_a_step_by_the_label_that_the_steps_read_their_run_from() -> None:
    assert f"metadata.labels['{next(iter(STEP))}']" in placing._FROM_THE_POD.values()


def test_images_are_ours_by_name_and_others_by_a_mirror() -> None:
    used = images(rendered("dev", MIRROR="registry.example.org/copies"))
    assert used == {
        "registry.example.org/copies/chrislusf/seaweedfs:4.48",
        "registry.example.org/copies/postgres:17.6-bookworm",
        "registry.example.org/team/pmc-llama-mlflow:0.1.0",
        "registry.example.org/team/pmc-llama-pipeline:0.1.0",
    }


def test_a_pushed_image_is_named_by_its_digest() -> None:
    digest = "registry.example.org:5000/team/pmc-llama-mlflow@sha256:" + "a" * 64
    assert digest in images(rendered("production", TAG="", PMC_MLFLOW_IMAGE=digest))
    assert digest not in images(rendered("production", TAG="0.2.0", PMC_MLFLOW_IMAGE=digest))


def test_no_secret_is_among_the_manifests() -> None:
    for path in sorted((ROOT / "k8s").rglob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            assert each["kind"] != "Secret", path
            assert not {"secretGenerator", "stringData"} & each.keys(), path


def test_mlflow_answers_to_its_names_and_to_no_other() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    data = find(rendered("dev", MLFLOW_HOSTS="mlflow.example.org"), "ConfigMap", "pmc-llama-mlflow")["data"]
    hosts = data["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for host in (
        "localhost:5000",
        "pmc-llama-mlflow:5000",
        f"pmc-llama-mlflow.{NAMESPACE}:5000",
        f"pmc-llama-mlflow.{NAMESPACE}.svc:5000",
        f"pmc-llama-mlflow.{NAMESPACE}.svc.cluster.local:5000",
        "mlflow.example.org",
    ):
        assert is_allowed_host_header(hosts, host), host
    for host in ("evil.example", "pmc-llama-mlflow.evil.example:5000", "10.0.0.7:5000"):
        assert not is_allowed_host_header(hosts, host), host


def test_every_variable_of_mlflow_is_one_that_its_server_reads() -> None:
    from mlflow.cli import server

    known = {parameter.envvar for parameter in server.params if parameter.envvar}
    known |= {"MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"}
    pod = find(rendered("dev"), "Deployment", "pmc-llama-mlflow")["spec"]["template"]["spec"]
    given = {each["name"] for each in pod["containers"][0]["env"]} - {"HOME"}
    data = find(rendered("dev"), "ConfigMap", "pmc-llama-mlflow")["data"]
    assert given | data.keys() <= known
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION" in data


def test_the_bucket_is_prepared_by_a_command_that_exists() -> None:
    pod = find(rendered("dev"), "Deployment", "pmc-llama-mlflow")["spec"]["template"]["spec"]
    first, second = pod["initContainers"]
    assert (first["name"], second["name"]) == ("prepare-bucket", "upgrade-database")
    done = subprocess.run([sys.executable, *first["command"][1:], "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_in_dev_pods_reach_what_they_use_and_nothing_else() -> None:
    network = Network(rendered("dev"))
    pods = {"step": STEP, "trainer": TRAINER, "mlflow": MLFLOW, "s3": S3, "database": DATABASE, "stranger": STRANGER}
    ports = {"step": 8080, "trainer": 29500, "mlflow": 5000, "s3": 8333, "database": 5432}
    reached = {
        (source, target)
        for source, target in itertools.product(pods, ports)
        if source != target and network.lets(pods[source], pods[target], ports[target])
    }
    assert reached == {
        ("step", "mlflow"),
        ("step", "s3"),
        ("trainer", "mlflow"),
        ("trainer", "s3"),
        ("mlflow", "s3"),
        ("mlflow", "database"),
    }


def test_ranks_reach_each_other_on_every_port_and_nobody_else_reaches_them() -> None:
    for overlay in ("dev", "production"):
        network = Network(rendered(overlay))
        assert all(network.lets(TRAINER, TRAINER, port) for port in (29500, 41873))
        assert not network.lets(STRANGER, TRAINER, 29500)
        assert not network.lets(TRAINER, TRAINER, 29500, namespace="another")


def test_the_trainer_leaves_the_cluster_for_s3_only_and_steps_go_anywhere() -> None:
    dev, production = Network(rendered("dev")), Network(rendered("production"))
    assert (dev.lets_out(TRAINER, 443), production.lets_out(TRAINER, 443)) == (False, True)
    assert not production.lets_out(TRAINER, 80)
    assert dev.lets_out(STEP, 443) and production.lets_out(STEP, 443)


def test_kubeflow_and_its_gateway_reach_mlflow_but_other_namespaces_do_not() -> None:
    network = Network(rendered("production"))
    reached = {each for each in ("kubeflow", "istio-system", "default") if network.lets({}, MLFLOW, 5000, each)}
    assert reached == {"kubeflow", "istio-system"}
    assert not network.lets({}, MLFLOW, 22, "kubeflow")


def test_the_queue_holds_the_job_that_the_paper_recipe_makes() -> None:
    queue = find(rendered("production", COMPONENTS="kueue"), "ClusterQueue", "pmc-llama")
    (group,) = queue["spec"]["resourceGroups"]
    quotas = {each["name"]: quantity(each["nominalQuota"]) for each in group["flavors"][0]["resources"]}
    cluster = ClusterSettings.model_validate({})
    assert quotas["cpu"] >= quantity(cluster.cpu) and quotas["memory"] >= quantity(cluster.memory)
    assert quotas["ephemeral-storage"] >= quantity(cluster.scratch) * 12 / 10
    assert quotas["nvidia.com/gpu"] >= 8
    assert set(group["coveredResources"]) == quotas.keys()
    assert "namespace" not in queue["metadata"]


def images(objects: list[dict[str, Any]]) -> set[str]:
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("Deployment", "StatefulSet")]
    return {container["image"] for pod in pods for container in [*pod.get("initContainers", []), *pod["containers"]]}


def granted(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        triple
        for rule in role["rules"]
        for triple in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


def wanted(rights: tuple[Right, ...]) -> set[tuple[str, str, str]]:
    return {(each.group, each.resource, verb) for each in rights for verb in each.verbs}
