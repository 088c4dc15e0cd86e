"""What no schema says: rules that every object of an installation keeps."""

import re
from collections.abc import Iterator
from typing import Any

EXTERNAL_SECRETS = {
    "pmc-llama-s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "pmc-llama-mlflow-database": {"uri", "password"},
    "pmc-llama-hub": {"HF_TOKEN"},
}
"""Secrets that are made outside, with their keys; no manifest holds one."""

_AMOUNTS = ("cpu", "memory")
# A GPU server's sizes are the model's; KServe's own agents share the pod.
_WRITABLE_ROOT = frozenset({"kserve-container"})
_PINNED = re.compile(r".+(@sha256:[0-9a-f]{64}|:(?!latest$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")


def policy_problems(objects: list[dict[str, Any]]) -> list[str]:
    """What the objects of an installation do against the rules; empty when they keep all."""
    problems: list[str] = []
    for each in objects:
        about = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "Secret":
            problems.append(f"{about}: a manifest holds no secret; make it on the cluster")
        problems += [f"{about}: {problem}" for problem in _rights(each)]
        for pod in _pods(each):
            problems += [f"{about}: {problem}" for problem in _pod(each["kind"], pod, objects)]
    return problems + _services(objects) + _open_to_all(objects)


def _pods(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The specification of the pods that an object makes."""
    spec = found.get("spec") or {}
    if found["kind"] == "ServingRuntime":
        yield {"spec": spec, "metadata": {}}
    elif found["kind"] == "CronJob":
        yield spec["jobTemplate"]["spec"]["template"]
    elif "template" in spec:
        yield spec["template"]


def _pod(kind: str, template: dict[str, Any], objects: list[dict[str, Any]]) -> Iterator[str]:
    spec = template["spec"]
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is set"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a path of the node"
    if kind != "ServingRuntime":  # its account and token are the InferenceService's
        account = spec.get("serviceAccountName")
        if ("ServiceAccount", account) not in _names(objects):
            yield f"its service account {account!r} is not among the manifests"
        if spec.get("automountServiceAccountToken") is not False:
            yield "it holds a token of the Kubernetes API"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for problem in [*_security(spec, container), *_amounts(container), *_references(container, objects)]:
            yield f"container {container['name']}: {problem}"


def _security(spec: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    pod, own = spec.get("securityContext") or {}, container.get("securityContext") or {}
    both = pod | own
    if both.get("runAsNonRoot") is not True or both.get("runAsUser") in (None, 0):
        yield "it may run as root"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "it may gain privileges"
    capabilities = own.get("capabilities") or {}
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "it keeps capabilities"
    if (both.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "it has no seccomp profile"
    if own.get("readOnlyRootFilesystem") is not True and container["name"] not in _WRITABLE_ROOT:
        yield "its root file system can be written"
    if not _PINNED.fullmatch(container["image"]):
        yield f"its image {container['image']} has no tag that stays"


def _amounts(container: dict[str, Any]) -> Iterator[str]:
    resources = container.get("resources") or {}
    for part in ("requests", "limits"):
        for amount in _AMOUNTS:
            if amount not in (resources.get(part) or {}):
                yield f"it has no {part} of {amount}"


def _references(container: dict[str, Any], objects: list[dict[str, Any]]) -> Iterator[str]:
    maps = {each["metadata"]["name"]: each.get("data") or {} for each in objects if each["kind"] == "ConfigMap"}
    known = {"secret": {name: dict.fromkeys(keys) for name, keys in EXTERNAL_SECRETS.items()}, "configMap": maps}
    for variable in container.get("env", []):
        for kind, there in known.items():
            wanted = (variable.get("valueFrom") or {}).get(f"{kind}KeyRef")
            if wanted and wanted["key"] not in there.get(wanted["name"], {}):
                yield f"{variable['name']} comes from {kind} {wanted['name']}, key {wanted['key']}, which nothing makes"
    for source in container.get("envFrom", []):
        for kind, there in known.items():
            wanted = source.get(f"{kind}Ref")
            if wanted and wanted["name"] not in there:
                yield f"variables come from {kind} {wanted['name']}, which nothing makes"
    names = [variable["name"] for variable in container.get("env", [])]
    if doubled := {name for name in names if names.count(name) > 1}:
        yield f"variables are set twice: {', '.join(sorted(doubled))}"


def _rights(found: dict[str, Any]) -> Iterator[str]:
    if found["kind"] not in ("Role", "ClusterRole"):
        return
    for rule in found["rules"]:
        if "*" in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]:
            yield f"it grants everything of something: {rule}"
        if "secrets" in rule["resources"] and not rule.get("resourceNames"):
            yield "it opens every secret of the namespace"
        if set(rule["verbs"]) & {"bind", "escalate", "impersonate"}:
            yield f"it can become more than it is: {rule}"


def _services(objects: list[dict[str, Any]]) -> list[str]:
    """A service that leads nowhere."""
    problems = []
    templates = [pod for each in objects for pod in _pods(each)]
    for each in objects:
        if each["kind"] != "Service":
            continue
        chosen = [pod for pod in templates if _selected(pod, {"matchLabels": each["spec"]["selector"]})]
        ports = {
            port.get("name")
            for pod in chosen
            for container in pod["spec"]["containers"]
            for port in container.get("ports", [])
        }
        if lost := [str(port["targetPort"]) for port in each["spec"]["ports"] if port["targetPort"] not in ports]:
            problems.append(f"Service {each['metadata']['name']}: no pod has the port {', '.join(lost)}")
    return problems


def _open_to_all(objects: list[dict[str, Any]]) -> list[str]:
    """Pods of ours that anybody in the cluster could call."""
    guards = [
        each["spec"] for each in objects if each["kind"] == "NetworkPolicy" and "Ingress" in each["spec"]["policyTypes"]
    ]
    problems = [
        f"{each['kind']} {each['metadata']['name']}: no NetworkPolicy says who may call it"
        for each in objects
        if each["kind"] != "ServingRuntime"
        for pod in _pods(each)
        if not any(_selected(pod, guard["podSelector"]) for guard in guards)
    ]
    for each in objects:
        rules = (each["spec"].get("ingress") or []) if each["kind"] == "NetworkPolicy" else []
        if any(not rule.get("from") for rule in rules):
            problems.append(f"NetworkPolicy {each['metadata']['name']}: it lets everybody in")
    return problems


def _selected(template: dict[str, Any], selector: dict[str, Any]) -> bool:
    """Whether a pod has a selector's labels; expressions are about labels that others give, so they choose none."""
    labels = (template.get("metadata") or {}).get("labels") or {}
    wanted = selector.get("matchLabels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


def _names(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in objects}
