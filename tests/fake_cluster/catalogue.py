"""What the cluster has besides jobs, pods and events: read only, made of the lists that a test fills."""

import base64
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.fake_cluster.store import Object, Refused

if TYPE_CHECKING:
    from tests.fake_cluster.cluster import FakeCluster

# plural: (group and version, kind, in a namespace)
KINDS = {
    "secrets": ("v1", "Secret", True),
    "configmaps": ("v1", "ConfigMap", True),
    "serviceaccounts": ("v1", "ServiceAccount", True),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim", True),
    "resourcequotas": ("v1", "ResourceQuota", True),
    "nodes": ("v1", "Node", False),
    "namespaces": ("v1", "Namespace", False),
    "priorityclasses": ("scheduling.k8s.io/v1", "PriorityClass", False),
    "localqueues": ("kueue.x-k8s.io/v1beta1", "LocalQueue", True),
    "workloadpriorityclasses": ("kueue.x-k8s.io/v1beta1", "WorkloadPriorityClass", False),
    "queues": ("scheduling.volcano.sh/v1beta1", "Queue", False),
    "clustertrainingruntimes": ("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime", False),
}
PULL_SECRET_KEY = ".dockerconfigjson"


def objects(cluster: "FakeCluster", plural: str) -> dict[str, Object]:
    """Objects of a kind by name."""
    group, kind, namespaced = KINDS[plural]
    found = {}
    for name, content in _contents(cluster, plural).items():
        metadata = {"name": name, "resourceVersion": "1"} | ({"namespace": "team-a"} if namespaced else {})
        metadata |= content.pop("metadata", {})
        found[name] = {"apiVersion": group, "kind": kind, "metadata": metadata, **content}
    return found


def one(cluster: "FakeCluster", plural: str, name: str) -> Object:
    """An object by its name."""
    found = objects(cluster, plural)
    if name not in found:
        raise Refused(404, "NotFound", f'{plural} "{name}" not found')
    return found[name]


def _contents(cluster: "FakeCluster", plural: str) -> dict[str, Object]:
    if plural == "secrets":
        return {name: _secret(values) for name, values in cluster.secrets.items()}
    if plural == "configmaps":
        return {name: {"data": dict(values)} for name, values in cluster.configmaps.items()}
    if plural == "persistentvolumeclaims":
        return {name: _claim(cluster.claim_modes.get(name, "ReadWriteMany")) for name in cluster.claims}
    if plural == "nodes":
        return {name: _node(cluster, name) for name in cluster.nodes}
    if plural == "resourcequotas":
        return dict(cluster.quotas) | ({"gpus": _quota(cluster)} if cluster.quota else {})
    if plural == "localqueues":
        return {name: _queue(cluster, name) for name in cluster.local_queues}
    if plural == "clustertrainingruntimes":
        return {name: _runtime(part) for name, part in cluster.runtimes.items()}
    names = {
        "serviceaccounts": cluster.accounts,
        "namespaces": {"team-a"},
        "priorityclasses": cluster.priority_classes,
        "workloadpriorityclasses": cluster.queue_priorities,
        "queues": cluster.volcano_queues,
    }
    return {name: {} for name in sorted(names[plural])}


def _secret(values: dict[str, str]) -> Object:
    kind = "kubernetes.io/dockerconfigjson" if PULL_SECRET_KEY in values else "Opaque"
    return {"type": kind, "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}}


def _claim(mode: str) -> Object:
    return {"spec": {"accessModes": [mode]}, "status": {"phase": "Bound", "accessModes": [mode]}}


def _node(cluster: "FakeCluster", name: str) -> Object:
    ready = "False" if name in cluster.unready_nodes else "True"
    return {
        "metadata": {"labels": {"kubernetes.io/hostname": name} | cluster.node_labels.get(name, {})},
        "spec": {"taints": cluster.node_taints.get(name, [])},
        "status": {"allocatable": cluster.nodes[name], "conditions": [{"type": "Ready", "status": ready}]},
    }


def _quota(cluster: "FakeCluster") -> Object:
    hard = {f"requests.{resource}": most for resource, most in cluster.quota.items()}
    used = {f"requests.{resource}": _text(cluster.used(resource)) for resource in cluster.quota}
    return {"spec": {"hard": hard}, "status": {"hard": hard, "used": used}}


def _queue(cluster: "FakeCluster", name: str) -> Object:
    active = {"type": "Active", "status": "True", "reason": "Ready", "message": "Can submit new workloads"}
    if problem := cluster.local_queues[name]:
        active |= {"status": "False", "reason": "ClusterQueueDoesNotExist", "message": problem}
    return {"spec": {"clusterQueue": "gpus"}, "status": {"conditions": [active], "pendingWorkloads": 0}}


def _runtime(part: str) -> Object:
    """A runtime of one replicated job, whose container has the same name."""
    pod = {"spec": {"containers": [{"name": part, "image": "pytorch/pytorch"}]}}
    jobs = [{"name": part, "template": {"spec": {"template": pod}}}]
    return {"spec": {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": {"replicatedJobs": jobs}}}}


def _text(number: Decimal) -> str:
    return f"{number:f}"
