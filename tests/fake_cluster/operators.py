"""The two training operators: from a job to its pods, and from its pods to its status."""

import json
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.fake_cluster.store import Object, now
from tests.ports import free_ports

if TYPE_CHECKING:
    from tests.fake_cluster.cluster import FakeCluster


def reconcile_pytorchjob(cluster: "FakeCluster", job: Object) -> None:
    """As the Training Operator 1.9."""
    pods = _pods_of(cluster, job)
    policy = job["spec"].get("runPolicy", {})
    done = _holds(job, "Succeeded") or _holds(job, "Failed")
    if done:
        if policy.get("cleanPodPolicy", "None") == "Running":
            _delete(cluster, [pod for pod in pods if pod["status"]["phase"] in ("Running", "Pending")])
        if _age(job, "completionTime") > policy.get("ttlSecondsAfterFinished", 10**9):
            cluster.delete_job("pytorchjobs", job["metadata"]["name"])
        return
    if policy.get("suspend"):
        _delete(cluster, pods)
        _condition(cluster, "pytorchjobs", job, "Suspended", "PyTorchJobSuspended", "PyTorchJob is suspended.")
        return
    if _holds(job, "Suspended"):
        _condition(cluster, "pytorchjobs", job, "Suspended", "PyTorchJobResumed", "PyTorchJob is resumed.", "False")
        cluster.store.change("pytorchjobs", job["metadata"]["name"], lambda each: each["status"].pop("startTime", None))
    _condition(cluster, "pytorchjobs", job, "Created", "PyTorchJobCreated", "PyTorchJob is created.")
    restarts = sum(_restarts(pod) for pod in pods if pod["status"]["phase"] in ("Running", "Pending"))
    limit = policy.get("backoffLimit")
    if limit is not None and (restarts > 0 if limit == 0 else restarts >= limit):
        _fail(cluster, job, pods, "it has reached the specified backoff limit")
    elif _age(job, "startTime") > policy.get("activeDeadlineSeconds", 10**9):
        _fail(cluster, job, pods, "it was active longer than specified deadline")
    else:
        _make_pytorch_pods(cluster, job, pods)
        _pytorch_status(cluster, job, pods)


def _fail(cluster: "FakeCluster", job: Object, pods: list[Object], why: str) -> None:
    name = job["metadata"]["name"]
    _delete(cluster, pods)  # whatever cleanPodPolicy says: the job is not finished yet
    message = f"Job {name} has failed because {why}"
    _condition(cluster, "pytorchjobs", job, "Failed", "PyTorchJobFailed", message, completionTime=now())


def _make_pytorch_pods(cluster: "FakeCluster", job: Object, pods: list[Object]) -> None:
    name, specs = job["metadata"]["name"], job["spec"]["pytorchReplicaSpecs"]
    total = sum(spec.get("replicas", 1) for spec in specs.values())
    present = {pod["metadata"]["name"] for pod in pods}
    for role, spec in specs.items():
        for index in range(spec.get("replicas", 1)):
            pod_name = f"{name}-{role.lower()}-{index}"
            if pod_name in present or cluster.store.has("pods", pod_name):
                continue
            rank = index + (role == "Worker")
            labels = {
                "training.kubeflow.org/job-name": name,
                "training.kubeflow.org/replica-type": role.lower(),
                "training.kubeflow.org/replica-index": str(index),
            }
            injected = {
                "PYTHONUNBUFFERED": "1",
                "MASTER_ADDR": "127.0.0.1",  # the service of the master, if there were a name server
                "MASTER_PORT": str(_port(cluster, job)),
                "WORLD_SIZE": str(total),
                "RANK": str(rank),
                "PET_NNODES": str(total),
                "PET_NODE_RANK": str(rank),
                "PET_NPROC_PER_NODE": job["spec"].get("nprocPerNode", "1"),
            }
            pod = _pod(job, pod_name, spec["template"], labels, injected)
            pod["spec"]["restartPolicy"] = spec.get("restartPolicy", "Never")
            pod["metadata"]["ownerReferences"] = [_owner(job)]
            if all(each["name"] != "pytorch" for each in pod["spec"]["containers"]):
                raise AssertionError("the operator's webhook wants a container named pytorch")
            cluster.make_pod(pod, job)


def _pytorch_status(cluster: "FakeCluster", job: Object, pods: list[Object]) -> None:
    phases = [pod["status"]["phase"] for pod in pods]
    masters = [pod for pod in pods if pod["metadata"]["labels"]["training.kubeflow.org/replica-type"] == "master"]
    if any(pod["status"]["phase"] == "Succeeded" for pod in masters):
        message = f"PyTorchJob {job['metadata']['name']} is successfully completed."
        _condition(cluster, "pytorchjobs", job, "Succeeded", "PyTorchJobSucceeded", message, completionTime=now())
    elif "Failed" in phases:
        message = f"PyTorchJob {job['metadata']['name']} is failed because {phases.count('Failed')} replica(s) failed."
        _condition(cluster, "pytorchjobs", job, "Failed", "PyTorchJobFailed", message, completionTime=now())
    elif "Running" in phases:
        _condition(
            cluster, "pytorchjobs", job, "Running", "PyTorchJobRunning", "PyTorchJob is running.", startTime=now()
        )


def reconcile_trainjob(cluster: "FakeCluster", job: Object) -> None:
    """As Trainer v2 with the runtime torch-distributed, by way of a JobSet and its Job."""
    name, spec = job["metadata"]["name"], job["spec"]
    pods = _pods_of(cluster, job)
    if _holds(job, "Complete") or _holds(job, "Failed"):
        return
    if spec.get("suspend"):
        _delete(cluster, pods)
        _condition(cluster, "trainjobs", job, "Suspended", "Suspended", "TrainJob is suspended")
        return
    if _holds(job, "Suspended"):
        _condition(cluster, "trainjobs", job, "Suspended", "Resumed", "TrainJob is resumed", "False")
    failed = [pod for pod in pods if pod["status"]["phase"] == "Failed"]
    restarts = sum(_restarts(pod) for pod in pods)
    phases = [pod["status"]["phase"] for pod in pods]
    if failed or restarts > cluster.trainjob_backoff_limit:
        _delete(cluster, [pod for pod in pods if pod not in failed])
        _condition(cluster, "trainjobs", job, "Failed", "FailedJobs", "jobset failed due to one or more job failures")
    elif _age(job, "startTime") > spec.get("activeDeadlineSeconds", 10**9):
        _delete(cluster, pods)
        _condition(cluster, "trainjobs", job, "Failed", "DeadlineExceeded", "TrainJob was active longer than specified")
    elif phases and all(phase == "Succeeded" for phase in phases) and len(phases) == spec["trainer"]["numNodes"]:
        _condition(cluster, "trainjobs", job, "Complete", "AllJobsCompleted", "jobset completed successfully")
    else:
        cluster.store.change(
            "trainjobs", name, lambda each: each.setdefault("status", {}).setdefault("startTime", now())
        )
        _make_trainjob_pods(cluster, job, pods)


def _make_trainjob_pods(cluster: "FakeCluster", job: Object, pods: list[Object]) -> None:
    name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
    patch = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    assert patch["name"] == "node", "the runtime has this job only"
    template = json.loads(json.dumps(patch["template"]["spec"]["template"]))
    container = template["spec"]["containers"][0]
    assert container["name"] == "node", "the runtime has this container only"
    container |= {key: trainer[key] for key in ("image", "command", "env") if key in trainer}
    container["resources"] = trainer.get("resourcesPerNode", {})
    present = {pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in pods}
    for index in range(trainer["numNodes"]):
        if str(index) in present:
            continue
        labels = {"jobset.sigs.k8s.io/jobset-name": name, "batch.kubernetes.io/job-completion-index": str(index)}
        injected = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(_port(cluster, job)),
        }
        pod = _pod(job, f"{name}-node-0-{index}-{secrets.token_hex(3)[:5]}", template, labels, injected)
        pod["spec"]["restartPolicy"] = "OnFailure"
        # A Job of a JobSet of the TrainJob owns it.
        pod["metadata"]["ownerReferences"] = [
            {"apiVersion": "batch/v1", "kind": "Job", "name": f"{name}-node-0", "uid": job["metadata"]["uid"]}
        ]
        cluster.make_pod(pod, job)


def _pod(job: Object, name: str, template: Object, labels: dict[str, str], injected: dict[str, str]) -> Object:
    template = json.loads(json.dumps(template))
    metadata = template.get("metadata", {})
    metadata |= {"name": name, "labels": metadata.get("labels", {}) | labels}
    container = template["spec"]["containers"][0]
    own = [each for each in container.get("env", []) if each["name"] not in injected]
    container["env"] = own + [{"name": key, "value": value} for key, value in injected.items()]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _port(cluster: "FakeCluster", job: Object) -> int:
    return cluster.ports.setdefault(job["metadata"]["uid"], free_ports(1)[0])


def _owner(job: Object) -> Object:
    meta = {"name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "controller": True,
        "blockOwnerDeletion": True,
        **meta,
    }


def _pods_of(cluster: "FakeCluster", job: Object) -> list[Object]:
    uid = job["metadata"]["uid"]
    return [
        pod for pod in cluster.store.all("pods") if pod["metadata"].get("ownerReferences", [{}])[0].get("uid") == uid
    ]


def _delete(cluster: "FakeCluster", pods: list[Object]) -> None:
    for pod in pods:
        cluster.delete_pod(pod["metadata"]["name"])


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))


def _holds(job: Object, condition: str) -> bool:
    found = job.get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in found)


def _age(job: Object, since: str) -> float:
    start = job.get("status", {}).get(since)
    return (datetime.now(UTC) - datetime.fromisoformat(start)).total_seconds() if start else 0


def _condition(
    cluster: "FakeCluster",
    plural: str,
    job: Object,
    kind: str,
    reason: str,
    message: str,
    status: str = "True",
    **times: Any,
) -> None:
    def change(found: Object) -> None:
        known = found.setdefault("status", {})
        for key, value in times.items():
            known.setdefault(key, value)
        conditions = known.setdefault("conditions", [])
        same = next((each for each in conditions if each["type"] == kind), None)
        new = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}
        if same is None:
            conditions.append(new)
        elif same["status"] != status:
            same.update(new)

    cluster.store.change(plural, job["metadata"]["name"], change)
