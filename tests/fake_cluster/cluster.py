"""The cluster: its objects, its controllers' loop, and what a test may do to it."""

import contextlib
import re
import threading
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType

import yaml

from components.common.cluster.settings import quantity
from tests.fake_cluster.kubelet import Container
from tests.fake_cluster.operators import reconcile_pytorchjob, reconcile_trainjob
from tests.fake_cluster.server import SERVED, Server
from tests.fake_cluster.store import Object, Refused, Store, now

NAMESPACE, TOKEN = "team-a", "test-token"
_LOOP_SECONDS = 0.03
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


@dataclass
class Fault:
    """What happens to requests that match, so many times.

    Attributes:
        method: HTTP method.
        path: Regular expression, searched in path and query.
        status: HTTP status; 0 closes the connection without an answer; -1 does the work, then closes it.
        times: How often.
        seconds: To wait before.
    """

    method: str
    path: str
    status: int
    times: int = 1
    seconds: float = 0.0


class FakeCluster:
    """A namespace of a cluster; used as a context manager it runs.

    Attributes:
        nodes: Name to allocatable resources.
        missing_images: Images that no registry has.
        secrets: Name to keys and values; `configmaps` likewise.
        claims: Name of a persistent volume claim to a folder of this machine; `claim_modes`: to its access mode.
        quota: Resource to the most that all pods may request.
        quotas: More resource quotas, by name, which are only shown.
        node_labels: Name of a node to its labels; `node_taints` likewise; `unready_nodes` are not ready.
        accounts: Service accounts; likewise `priority_classes`, `queue_priorities`, `volcano_queues`.
        local_queues: Name to what is wrong with it, if anything.
        runtimes: Name of a ClusterTrainingRuntime to that of its replicated job.
        served: API group to the versions of it that the cluster serves.
        absent: Kinds, in the plural, that no CRD describes.
        queue_open: Whether Kueue admits jobs that name a queue.
        denied: Verb and resource that the token has no right to.
        stream_seconds: Watches and followed logs break after so long; None never.
        restart_seconds: Between two starts of a container.
        operators_work: Whether the training operators run.
        requests: Verb and resource of each request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store()
        self.nodes: dict[str, dict[str, str]] = {"node-a": {"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": "8"}}
        self.missing_images: set[str] = set()
        self.secrets: dict[str, dict[str, str]] = {}
        self.configmaps: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Path] = {}
        self.claim_modes: dict[str, str] = {}
        self.quota: dict[str, str] = {}
        self.quotas: dict[str, Object] = {}
        self.node_labels: dict[str, dict[str, str]] = {}
        self.node_taints: dict[str, list[dict[str, str]]] = {}
        self.unready_nodes: set[str] = set()
        self.accounts = {"default"}
        self.priority_classes: set[str] = set()
        self.queue_priorities: set[str] = set()
        self.volcano_queues: set[str] = set()
        self.local_queues: dict[str, str] = {}
        self.runtimes = {"torch-distributed": "node"}
        self.served = {group: [version] for group, version in sorted(SERVED)}
        self.absent: set[str] = set()
        self.queue_open = True
        self.denied: set[tuple[str, str]] = set()
        self.faults: list[Fault] = []
        self.stream_seconds: float | None = None
        self.restart_seconds = 0.1
        self.trainjob_backoff_limit = 1
        self.operators_work = True
        self.requests: list[tuple[str, str]] = []
        self.ports: dict[str, int] = {}
        self.containers: dict[str, Container] = {}
        self._server = Server(self)
        self._closing = threading.Event()
        self._loop = threading.Thread(target=self._run, daemon=True, name="controllers")
        self.problem: BaseException | None = None

    def __enter__(self) -> "FakeCluster":
        self._server.start()
        self._loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._loop.join(5)
        for container in self.containers.values():
            container.ending.set()
            container._kill()
        self._server.stop()
        if self.problem is not None:
            raise self.problem

    def kubeconfig(self) -> Path:
        """A file by which a client finds this cluster."""
        file = self.folder / "kubeconfig"
        context = {"cluster": "fake", "user": "step", "namespace": NAMESPACE}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self._server.address}}],
            "users": [{"name": "step", "user": {"token": TOKEN}}],
            "contexts": [{"name": "fake", "context": context}],
        }
        file.write_text(yaml.safe_dump(content))
        return file

    def pods(self) -> list[str]:
        """Names of the pods that are there."""
        return [pod["metadata"]["name"] for pod in self.store.all("pods")]

    def jobs(self) -> list[Object]:
        """All training jobs."""
        return [*self.store.all("pytorchjobs"), *self.store.all("trainjobs")]

    def evict(self, pod: str, message: str) -> None:
        """Take a running pod away."""
        self.containers[self.store.get("pods", pod)["metadata"]["uid"]].evict("Evicted", message)

    def fault(self, method: str, path: str, status: int, times: int = 1, seconds: float = 0.0) -> None:
        """Answer the next requests of that kind wrongly."""
        self.faults.append(Fault(method, path, status, times, seconds))

    def admit(self, plural: str, job: Object) -> Object:
        """Kueue's webhook: a job that names a queue starts suspended."""
        if _QUEUE_LABEL in (job["metadata"].get("labels") or {}):
            _suspend(job, plural, True)
        return job

    def delete_job(self, plural: str, name: str) -> None:
        """In the foreground: it goes when its pods are gone."""
        self.store.change(plural, name, lambda job: job["metadata"].setdefault("deletionTimestamp", now()))

    def delete_pod(self, name: str) -> None:
        """It goes when its process has ended."""
        self.store.change("pods", name, lambda pod: pod["metadata"].setdefault("deletionTimestamp", now()))

    def used(self, resource: str) -> Decimal:
        """What all pods together request."""
        return sum((_requested(each, resource) for each in self.store.all("pods")), Decimal())

    def make_pod(self, pod: Object, job: Object) -> None:
        """Create a pod for an operator, within the quota."""
        requests = pod["spec"]["containers"][0].get("resources", {}).get("requests", {})
        for resource, most in list(self.quota.items()):
            used = self.used(resource)
            if used + quantity(requests.get(resource, "0")) > quantity(most):
                message = (
                    f'Error creating: pods "{pod["metadata"]["name"]}" is forbidden: exceeded quota: gpus, requested: '
                    f"requests.{resource}={requests[resource]}, used: {used}, limited: {most}"
                )
                self.say(job["kind"], job, "Warning", "FailedCreatePod", message)
                return
        pod["status"] = {"phase": "Pending", "conditions": []}
        with contextlib.suppress(Refused):
            self.store.add("pods", pod)

    def say(self, kind: str, about: Object, severity: str, reason: str, message: str) -> None:
        """Record an event, once."""
        name = about["metadata"]["name"]
        mark = re.sub(r"[^a-z0-9]", "", f"{reason}{abs(hash(message))}".lower())[:40]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{mark}"},
            "involvedObject": {"kind": kind, "name": name, "uid": about["metadata"].get("uid", "")},
            "type": severity,
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
        }
        if not self.store.has("events", event["metadata"]["name"]):
            self.store.add("events", event)

    def _run(self) -> None:
        try:
            while not self._closing.wait(_LOOP_SECONDS):
                for plural, reconcile in (("pytorchjobs", reconcile_pytorchjob), ("trainjobs", reconcile_trainjob)):
                    for job in self.store.all(plural):
                        self._collect(plural, job)
                        if self.operators_work and not job["metadata"].get("deletionTimestamp"):
                            self._queue(plural, job)
                            reconcile(self, job)
                for pod in self.store.all("pods"):
                    self._place(pod)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.problem = error

    def _collect(self, plural: str, job: Object) -> None:
        if not job["metadata"].get("deletionTimestamp"):
            return
        pods = [pod for pod in self.store.all("pods") if _owner(pod) == job["metadata"]["uid"]]
        for pod in pods:
            self.delete_pod(pod["metadata"]["name"])
        if not pods:
            self.store.remove(plural, job["metadata"]["name"])

    def _queue(self, plural: str, job: Object) -> None:
        queue = (job["metadata"].get("labels") or {}).get(_QUEUE_LABEL)
        if not queue or not _suspended(job, plural):
            return
        if self.queue_open:
            self.store.change(plural, job["metadata"]["name"], lambda each: _suspend(each, plural, False))
            return
        name = f"{job['kind'].lower()}-{job['metadata']['name']}-1a2b3"
        message = f"couldn't assign flavors to pod set master: insufficient unused quota for nvidia.com/gpu in {queue}"
        self.say("Workload", {"metadata": {"name": name}}, "Warning", "Pending", message)

    def _place(self, pod: Object) -> None:
        """The scheduler and the node."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        container = self.containers.get(uid)
        if pod["metadata"].get("deletionTimestamp"):
            if container is not None:
                container.ending.set()
            if container is None or not container.is_alive():
                self.store.remove("pods", name)
            return
        if container is not None or pod["spec"].get("nodeName"):  # it runs, or is none of ours to run
            return
        node = next((node for node in self.nodes if self._fits(pod, node)), None)
        if node is None:
            message = f"0/{len(self.nodes)} nodes are available: {len(self.nodes)} Insufficient nvidia.com/gpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            self.store.change("pods", name, lambda each: each["status"].update(conditions=[condition]))
            self.say("Pod", pod, "Warning", "FailedScheduling", message)
            return

        def bind(each: Object) -> None:
            each["spec"]["nodeName"] = node
            each["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]

        bound = self.store.change("pods", name, bind)
        self.containers[uid] = Container(self, bound, self.folder / "pods" / uid)
        self.containers[uid].start()

    def _fits(self, pod: Object, node: str) -> bool:
        labels = self.node_labels.get(node, {})
        if any(labels.get(name) != value for name, value in (pod["spec"].get("nodeSelector") or {}).items()):
            return False
        if node in self.unready_nodes or any(not _tolerated(pod, taint) for taint in self.node_taints.get(node, [])):
            return False
        others = [each for each in self.store.all("pods") if each["spec"].get("nodeName") == node]
        others = [each for each in others if each["status"]["phase"] in ("Pending", "Running")]
        return all(
            _requested(pod, resource) + sum(_requested(each, resource) for each in others) <= quantity(most)
            for resource, most in {"nvidia.com/gpu": "0", **self.nodes[node]}.items()
        )


def _requested(pod: Object, resource: str) -> Decimal:
    requests = pod["spec"]["containers"][0].get("resources", {}).get("requests", {})
    return quantity(requests.get(resource, "0"))


def _tolerated(pod: Object, taint: dict[str, str]) -> bool:
    return any(
        each.get("key") in (None, taint["key"])
        and each.get("effect") in (None, taint["effect"])
        and (each.get("operator", "Equal") == "Exists" or each.get("value", "") == taint.get("value", ""))
        for each in pod["spec"].get("tolerations") or []
    )


def _owner(pod: Object) -> str | None:
    return pod["metadata"].get("ownerReferences", [{}])[0].get("uid")


def _suspended(job: Object, plural: str) -> bool:
    return bool((job["spec"] if plural == "trainjobs" else job["spec"].get("runPolicy", {})).get("suspend"))


def _suspend(job: Object, plural: str, value: bool) -> None:
    (job["spec"] if plural == "trainjobs" else job["spec"].setdefault("runPolicy", {}))["suspend"] = value
