"""Each rule of the manifests is broken once, and each break is found; so is each kind of wrong field."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s_helpers import Objects, find, rendered
from tools.cluster_manifests.policy import policy_problems
from tools.cluster_manifests.schemas import schema_problems

Break = Callable[[Objects], Any]


def pod(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = find(objects, "Deployment", "pmc-llama-mlflow")["spec"]["template"]["spec"]
    return spec


def container(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = pod(objects)["containers"][0]
    return found


def role(objects: Objects) -> dict[str, Any]:
    return find(objects, "Role", "pmc-llama-steps")


BREAKS: dict[str, tuple[Break, str]] = {
    "root": (lambda all_: pod(all_)["securityContext"].update(runAsUser=0), "it may run as root"),
    "root by image": (lambda all_: pod(all_)["securityContext"].pop("runAsNonRoot"), "it may run as root"),
    "escalation": (
        lambda all_: container(all_)["securityContext"].pop("allowPrivilegeEscalation"),
        "it may gain privileges",
    ),
    "privileged": (lambda all_: container(all_)["securityContext"].update(privileged=True), "it may gain privileges"),
    "capabilities": (
        lambda all_: container(all_)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
        "it keeps capabilities",
    ),
    "seccomp": (lambda all_: pod(all_)["securityContext"].pop("seccompProfile"), "it has no seccomp profile"),
    "writable root": (
        lambda all_: container(all_)["securityContext"].pop("readOnlyRootFilesystem"),
        "its root file system can be written",
    ),
    "latest": (lambda all_: container(all_).update(image="mlflow:latest"), "has no tag that stays"),
    "no tag": (lambda all_: container(all_).update(image="host:5000/mlflow"), "has no tag that stays"),
    "no limit": (lambda all_: container(all_)["resources"]["limits"].pop("memory"), "it has no limits of memory"),
    "no request": (lambda all_: container(all_)["resources"]["requests"].pop("cpu"), "it has no requests of cpu"),
    "host network": (lambda all_: pod(all_).update(hostNetwork=True), "hostNetwork is set"),
    "host path": (
        lambda all_: pod(all_)["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
        "volume node is a path of the node",
    ),
    "token": (lambda all_: pod(all_).pop("automountServiceAccountToken"), "it holds a token"),
    "account": (lambda all_: pod(all_).update(serviceAccountName="default"), "service account 'default' is not among"),
    "secret key": (
        lambda all_: container(all_)["env"][0]["valueFrom"]["secretKeyRef"].update(key="url"),
        "secret pmc-llama-mlflow-database, key url, which nothing makes",
    ),
    "config map": (
        lambda all_: container(all_)["envFrom"][0]["configMapRef"].update(name="mlflow"),
        "configMap mlflow, which nothing makes",
    ),
    "variable twice": (lambda all_: container(all_)["env"].append({"name": "HOME", "value": "/"}), "set twice: HOME"),
    "secret": (
        lambda all_: all_.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}}),
        "a manifest holds no secret",
    ),
    "every verb": (lambda all_: role(all_)["rules"][0].update(verbs=["*"]), "it grants everything of something"),
    "all secrets": (
        lambda all_: role(all_)["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}),
        "it opens every secret",
    ),
    "escalating verb": (lambda all_: role(all_)["rules"][0]["verbs"].append("bind"), "it can become more than it is"),
    "lost port": (
        lambda all_: find(all_, "Service", "pmc-llama-mlflow")["spec"]["ports"][0].update(targetPort="web"),
        "no pod has the port web",
    ),
    "unguarded": (
        lambda all_: all_.remove(find(all_, "NetworkPolicy", "pmc-llama-mlflow")),
        "Deployment pmc-llama-mlflow: no NetworkPolicy says who may call it",
    ),
    "open door": (
        lambda all_: find(all_, "NetworkPolicy", "pmc-llama-mlflow")["spec"]["ingress"].append({}),
        "it lets everybody in",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_rule_is_found(name: str) -> None:
    objects = rendered("production")
    do_break, expected = BREAKS[name]
    do_break(objects)
    problems = policy_problems(objects)
    assert problems and all(expected in each for each in problems), problems


@pytest.mark.parametrize(
    ("kind", "name", "spoil", "expected"),
    [
        ("Deployment", "pmc-llama-mlflow", lambda it: it["spec"].update(replica=1), "'replica' was unexpected"),
        ("Deployment", "pmc-llama-mlflow", lambda it: it["spec"].update(replicas="two"), "'two' is not of type"),
        ("Deployment", "pmc-llama-mlflow", lambda it: it["spec"].pop("selector"), "'selector' is a required property"),
        ("ConfigMap", "pmc-llama-endpoints", lambda it: it["data"].update(PORT=1), "data.PORT: 1 is not of type"),
        ("ConfigMap", "pmc-llama-endpoints", lambda it: it.update(apiVersion="v2"), "knows no v2/ConfigMap"),
        ("ClusterQueue", "pmc-llama", lambda it: it["spec"].update(cohort="a"), "'cohort' was unexpected"),
        ("LocalQueue", "pmc-llama", lambda it: it["spec"].clear(), "'clusterQueue' is a required property"),
    ],
)
def test_a_field_that_kubernetes_would_refuse_or_drop_is_found(
    kind: str, name: str, spoil: Break, expected: str
) -> None:
    found = find(rendered("production", COMPONENTS="kueue"), kind, name)
    assert schema_problems(found) == []
    spoil(found)
    assert any(expected in each for each in schema_problems(found)), schema_problems(found)


def test_a_runtimes_pods_are_read_as_kubernetes_reads_pods() -> None:
    runtime = find(rendered("serving"), "ServingRuntime", "pmc-llama-vllm")
    runtime["spec"]["containers"][0]["securityContexts"] = {}
    (first, *_) = schema_problems(runtime)
    assert first.startswith("ServingRuntime pmc-llama-vllm: ") and "'securityContexts' was unexpected" in first
