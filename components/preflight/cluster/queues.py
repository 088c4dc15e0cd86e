"""What lies between the job and its pods: Kueue's or Volcano's queue, and a TrainJob's runtime."""

from collections.abc import Iterator
from typing import Any

from components.common.cluster.connection import TRAINJOBS, Cluster, Kind
from components.preflight.cluster.look import look_up
from components.preflight.findings import Finding, failed, ok
from components.preflight.settings import Situation

_KUEUE, _VOLCANO = "kueue.x-k8s.io", "scheduling.volcano.sh"
_RUNTIMES = Kind("ClusterTrainingRuntime", "clustertrainingruntimes", TRAINJOBS.group, TRAINJOBS.version, False)
# The launcher's changes to a runtime are for the replicated job and the container of that name.
_PART = "node"


def look_at_queues(cluster: Cluster, situation: Situation) -> Iterator[Finding]:
    """Say of each queue and priority that the job names whether it is there and takes jobs."""
    settings = situation.train.cluster
    if settings.queue:
        yield _in_group(cluster, _KUEUE, "LocalQueue", "localqueues", settings.queue, "queue", namespaced=True)
    if settings.queue_priority:
        yield _in_group(
            cluster,
            _KUEUE,
            "WorkloadPriorityClass",
            "workloadpriorityclasses",
            settings.queue_priority,
            "queue_priority",
        )
    if settings.volcano_queue:
        yield _in_group(cluster, _VOLCANO, "Queue", "queues", settings.volcano_queue, "volcano_queue")


def look_at_runtime(cluster: Cluster, situation: Situation) -> Iterator[Finding]:
    """Say whether a TrainJob's runtime is there and is one for PyTorch."""
    if situation.train.launcher != "trainjob":
        return
    name = situation.train.cluster.runtime
    subject = f"ClusterTrainingRuntime {name}"
    remedy = "Install Kubeflow Trainer's runtimes (torch-distributed is among them), or correct train.cluster.runtime."
    found, problem = look_up(cluster, _RUNTIMES, name, subject, remedy)
    if problem is not None:
        yield problem
    elif found is not None and not _has_part(found):
        wanted = f"a replicated job {_PART} with a container {_PART}"
        yield failed(subject, f"It has not {wanted}, to which the launcher's settings apply.", remedy)
    else:
        yield ok(subject, "It is there, and is made for PyTorch.")


def _in_group(
    cluster: Cluster, group: str, kind: str, plural: str, name: str, setting: str, namespaced: bool = False
) -> Finding:
    subject = f"{kind} {name}"
    wrong = f"correct train.cluster.{setting}, or leave it out"
    versions = cluster.versions(group)
    if not versions:
        return failed(subject, f"The cluster has no {group}.", f"Install it, or {wrong}.")
    place = Kind(kind, plural, group, versions[0], namespaced)
    found, problem = look_up(cluster, place, name, subject, f"Make it, or {wrong}.")
    if found is None:
        return problem or ok(subject, "It is there.")
    if closed := _closed(found):
        return failed(subject, f"It takes no jobs: {closed.rstrip('.')}.", "Have its administrator open it.")
    return ok(subject, "It is there.")


def _closed(found: dict[str, Any]) -> str:
    """Why Kueue's queue admits nothing, if that is so."""
    for each in (found.get("status") or {}).get("conditions") or []:
        if each["type"] == "Active" and each["status"] == "False":
            return str(each.get("message") or each.get("reason") or "it is not active")
    return ""


def _has_part(runtime: dict[str, Any]) -> bool:
    template = (runtime.get("spec") or {}).get("template") or {}
    for job in (template.get("spec") or {}).get("replicatedJobs") or []:
        pod = ((job.get("template") or {}).get("spec") or {}).get("template") or {}
        containers = (pod.get("spec") or {}).get("containers") or []
        if job.get("name") == _PART and any(each.get("name") == _PART for each in containers):
            return True
    return False
