"""PyTorchJob (kubeflow.org/v1) of the Training Operator: a Master, and Workers where there are more nodes."""

from typing import Any

from components.common.cluster.connection import PYTORCHJOBS
from components.common.cluster.settings import ClusterSettings
from components.train.launching.cluster import pod_template
from components.train.launching.cluster.naming import Identity
from components.train.launching.cluster.operators import JobState, true_conditions
from components.train.launching.job import TrainJob

_POD_LABEL = "training.kubeflow.org"


class PyTorchJobs:
    """The Training Operator."""

    kind = PYTORCHJOBS
    container = "pytorch"  # the operator looks for this name
    label = f"{_POD_LABEL}/job-name"

    def check(self, cluster: ClusterSettings) -> None:
        """Raise InputError for a setting that it cannot honour: there is none."""

    def manifest(
        self, identity: Identity, job: TrainJob, cluster: ClusterSettings, command: list[str]
    ) -> dict[str, Any]:
        """The job as the API takes it."""
        replicas = {"Master": 1, "Worker": cluster.nodes - 1}
        template = _template(identity, job, cluster, command)
        return {
            "apiVersion": f"{self.kind.group}/{self.kind.version}",
            "kind": self.kind.name,
            "metadata": {"name": identity.name, "labels": identity.labels | pod_template.queue_labels(cluster)},
            "spec": {
                "nprocPerNode": str(job.settings.processes_per_node),
                "runPolicy": _run_policy(cluster),
                "pytorchReplicaSpecs": {
                    role: {"replicas": count, "restartPolicy": "OnFailure", "template": template}
                    for role, count in replicas.items()
                    if count
                },
            },
        }

    def state(self, found: dict[str, Any]) -> JobState:
        """Where a job is."""
        conditions = true_conditions(found)
        if "Succeeded" in conditions:
            return JobState("succeeded", conditions["Succeeded"])
        if "Failed" in conditions:
            return JobState("failed", conditions["Failed"])
        if "Suspended" in conditions or found["spec"].get("runPolicy", {}).get("suspend"):
            return JobState("queued", conditions.get("Suspended", ""))
        return JobState("active" if conditions else "new", "")

    def replica(self, pod: dict[str, Any]) -> str:
        """Such as master-0 or worker-3."""
        labels = pod["metadata"].get("labels") or {}
        role, index = (labels.get(f"{_POD_LABEL}/replica-{each}", "?") for each in ("type", "index"))
        return f"{role.lower()}-{index}"


def _run_policy(cluster: ClusterSettings) -> dict[str, Any]:
    policy: dict[str, Any] = {
        # Ended pods stay for their logs; those that still run hold GPUs.
        "cleanPodPolicy": "Running",
        # The operator adds up the restarts of all pods and gives up when they reach the limit.
        "backoffLimit": cluster.restarts * cluster.nodes + 1,
        "activeDeadlineSeconds": round(cluster.deadline_hours * 3600),
        "ttlSecondsAfterFinished": round(cluster.keep_hours * 3600),
    }
    if cluster.volcano_queue:
        scheduling = {"queue": cluster.volcano_queue, "minAvailable": cluster.nodes}
        if cluster.priority_class:
            scheduling["priorityClass"] = cluster.priority_class
        policy["schedulingPolicy"] = scheduling
    return policy


def _template(identity: Identity, job: TrainJob, cluster: ClusterSettings, command: list[str]) -> dict[str, Any]:
    container = {
        "name": PyTorchJobs.container,
        "image": pod_template.image(cluster),
        "command": command,
        "env": pod_template.environment(job, cluster),
        "resources": pod_template.resources(job, cluster),
        "volumeMounts": pod_template.mounts(cluster),
        "securityContext": pod_template.container_rights(cluster),
        "terminationMessagePath": str(pod_template.TERMINATION_MESSAGE),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    specification = {
        **pod_template.placement(job, cluster),
        "containers": [container],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }
    if cluster.priority_class:
        specification["priorityClassName"] = cluster.priority_class
    metadata = {"labels": cluster.pod_labels | identity.labels, "annotations": cluster.pod_annotations}
    return {"metadata": metadata, "spec": specification}
