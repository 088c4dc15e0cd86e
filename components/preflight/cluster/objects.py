"""The objects that the training job names: secrets, config maps, disks, its service account, its priority."""

from collections.abc import Iterator

from components.common.cluster.connection import Cluster, Kind
from components.preflight.cluster.look import look_up
from components.preflight.findings import Finding, failed, ok, warning
from components.preflight.settings import Situation

SECRETS = Kind("Secret", "secrets")
_CONFIG_MAPS = Kind("ConfigMap", "configmaps")
_ACCOUNTS = Kind("ServiceAccount", "serviceaccounts")
_CLAIMS = Kind("PersistentVolumeClaim", "persistentvolumeclaims")
_PRIORITIES = Kind("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False)
_PULL_TYPES = {"kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"}
_ONE_NODE_MODES = {"ReadWriteOnce", "ReadWriteOncePod"}


def look_at_objects(cluster: Cluster, situation: Situation) -> Iterator[Finding]:
    """Say of each object that the job names whether it is there and holds what the pods take from it."""
    settings = situation.train.cluster
    yield from _variables(cluster, settings.secrets, settings.config_maps, "train.cluster", set())
    for name in settings.image_pull_secrets:
        yield _pull_secret(cluster, name, "train.cluster")
    for name in settings.volume_claims:
        yield _claim(cluster, name, settings.nodes)
    if settings.service_account:
        yield _there(cluster, _ACCOUNTS, settings.service_account, "train.cluster.service_account")
    if settings.priority_class:
        yield _there(cluster, _PRIORITIES, settings.priority_class, "train.cluster.priority_class")


def look_at_objects_of_steps(cluster: Cluster, situation: Situation) -> Iterator[Finding]:
    """Say the same of what the steps' own pods name, before the first of them is there."""
    steps = situation.steps
    yield from _variables(cluster, steps.secrets, steps.config_maps, "steps", set(steps.optional_variables))
    for name in steps.image_pull_secrets:
        yield _pull_secret(cluster, name, "steps")
    if steps.service_account:
        yield _there(cluster, _ACCOUNTS, steps.service_account, "steps.service_account")


def _variables(
    cluster: Cluster,
    secrets: dict[str, list[str]],
    config_maps: dict[str, list[str]],
    section: str,
    optional: set[str],
) -> Iterator[Finding]:
    for kind, setting, named in ((SECRETS, "secrets", secrets), (_CONFIG_MAPS, "config_maps", config_maps)):
        for name, keys in named.items():
            if needed := [key for key in keys if key not in optional]:
                yield _keys(cluster, kind, name, needed, f"{section}.{setting}")


def _there(cluster: Cluster, kind: Kind, name: str, setting: str) -> Finding:
    subject = f"{kind.name} {name}"
    _, problem = look_up(cluster, kind, name, subject, f"Make it, or correct {setting}.")
    return problem or ok(subject, "It is there.")


def _keys(cluster: Cluster, kind: Kind, name: str, keys: list[str], setting: str) -> Finding:
    """Only the names of the keys are looked at; no value is kept."""
    subject = f"{kind.name} {name}"
    wanted = ", ".join(keys)
    found, problem = look_up(
        cluster, kind, name, subject, f"Make it, with {wanted}, in namespace {cluster.namespace}, or correct {setting}."
    )
    if found is None:
        return problem or ok(subject, "It is there.")
    there = {*(found.get("data") or {}), *(found.get("binaryData") or {})}
    if missing := [key for key in keys if key not in there]:
        return failed(subject, f"It has no {', '.join(missing)}.", f"Add that to it, or correct {setting}.")
    return ok(subject, f"It has {wanted}.")


def _pull_secret(cluster: Cluster, name: str, section: str) -> Finding:
    subject = f"Secret {name}, for the image"
    remedy = f"Make it (kubectl create secret docker-registry), or correct {section}.image_pull_secrets."
    found, problem = look_up(cluster, SECRETS, name, subject, remedy)
    if found is None:
        return problem or ok(subject, "It is there.")
    if found.get("type") not in _PULL_TYPES:
        return failed(subject, f"It is of type {found.get('type')}, which holds no registry's credentials.", remedy)
    return ok(subject, "It holds a registry's credentials.")


def _claim(cluster: Cluster, name: str, nodes: int) -> Finding:
    subject = f"PersistentVolumeClaim {name}"
    remedy = "Make it, or correct train.cluster.volume_claims."
    found, problem = look_up(cluster, _CLAIMS, name, subject, remedy)
    if found is None:
        return problem or ok(subject, "It is there.")
    modes = (found.get("spec") or {}).get("accessModes") or []
    phase = (found.get("status") or {}).get("phase", "")
    if phase == "Lost":
        return failed(subject, "Its volume is lost.", "Make it anew; what was on it may have to be restored.")
    if nodes > 1 and modes and set(modes) <= _ONE_NODE_MODES:
        return failed(
            subject,
            f"It can be mounted on one node ({', '.join(modes)}), and the job has {nodes}.",
            "Use a claim with ReadWriteMany, or set train.cluster.nodes to 1.",
        )
    if phase != "Bound":
        remedy = "That is right for a storage class that waits for the first pod; otherwise see why it is not bound."
        return warning(subject, f"It is {phase or 'not bound'} and has no volume yet.", remedy)
    return ok(subject, f"It is bound ({', '.join(modes)}).")
