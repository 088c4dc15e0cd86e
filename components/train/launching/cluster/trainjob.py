"""TrainJob (trainer.kubeflow.org/v1alpha1) of Kubeflow Trainer v2: a change to a runtime that the cluster offers."""

from typing import Any

from components.common.cluster.connection import TRAINJOBS
from components.common.cluster.labels import MANAGER
from components.common.cluster.settings import ClusterSettings
from components.common.errors import InputError
from components.train.launching.cluster import pod_template
from components.train.launching.cluster.naming import Identity
from components.train.launching.cluster.operators import JobState, true_conditions
from components.train.launching.job import TrainJob

_NODE = "node"  # what the runtimes of PyTorch call the replicated job, and the container in it
_INDEX = "batch.kubernetes.io/job-completion-index"
_NOT_HERE = ("priority_class", "volcano_queue")


class TrainJobs:
    """Kubeflow Trainer v2."""

    kind = TRAINJOBS
    container = _NODE
    label = "jobset.sigs.k8s.io/jobset-name"

    def check(self, cluster: ClusterSettings) -> None:
        """Raise InputError for a setting that a TrainJob has no place for."""
        for name in _NOT_HERE:
            if value := getattr(cluster, name):
                raise InputError(
                    f"cluster.{name} is {value}, but a TrainJob has no place for it: write it into the runtime "
                    f"{cluster.runtime} and leave it out here, or set launcher to pytorchjob."
                )

    def manifest(
        self, identity: Identity, job: TrainJob, cluster: ClusterSettings, command: list[str]
    ) -> dict[str, Any]:
        """The job as the API takes it."""
        return {
            "apiVersion": f"{self.kind.group}/{self.kind.version}",
            "kind": self.kind.name,
            "metadata": {"name": identity.name, "labels": identity.labels | pod_template.queue_labels(cluster)},
            "spec": {
                "runtimeRef": {"name": cluster.runtime},
                "activeDeadlineSeconds": round(cluster.deadline_hours * 3600),
                "trainer": {
                    "image": pod_template.image(cluster),
                    "command": command,
                    "env": pod_template.environment(job, cluster),
                    "numNodes": cluster.nodes,
                    "numProcPerNode": job.settings.processes_per_node,
                    "resourcesPerNode": pod_template.resources(job, cluster),
                },
                "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": _patch(identity, job, cluster)}],
            },
        }

    def state(self, found: dict[str, Any]) -> JobState:
        """Where a job is."""
        conditions = true_conditions(found)
        if "Complete" in conditions:
            return JobState("succeeded", conditions["Complete"])
        if "Failed" in conditions:
            return JobState("failed", conditions["Failed"])
        if "Suspended" in conditions or found["spec"].get("suspend"):
            return JobState("queued", conditions.get("Suspended", ""))
        return JobState("active" if found.get("status") else "new", "")

    def replica(self, pod: dict[str, Any]) -> str:
        """Such as node-3."""
        marks = (pod["metadata"].get("labels") or {}) | (pod["metadata"].get("annotations") or {})
        return f"{_NODE}-{marks.get(_INDEX, '?')}"


def _patch(identity: Identity, job: TrainJob, cluster: ClusterSettings) -> dict[str, Any]:
    container = {
        "name": _NODE,
        "volumeMounts": pod_template.mounts(cluster),
        "securityContext": pod_template.container_rights(cluster),
    }
    pod = {
        "metadata": {"labels": cluster.pod_labels | identity.labels, "annotations": cluster.pod_annotations},
        "spec": {**pod_template.placement(job, cluster), "containers": [container]},
    }
    replicated_job = {"name": _NODE, "template": {"spec": {"template": pod}}}
    return {"template": {"spec": {"replicatedJobs": [replicated_job]}}}
