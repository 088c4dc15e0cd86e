"""Whether the cluster can hold the job: the namespace's quota, and nodes that are large enough for a pod."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from components.common.cluster.connection import Cluster, Kind, NotAllowed, amount
from components.common.cluster.settings import ClusterSettings, quantity
from components.preflight.cluster.look import unseen
from components.preflight.findings import Finding, failed, ok, warning
from components.preflight.settings import Situation, TrainPart

_QUOTAS = Kind("ResourceQuota", "resourcequotas")
_NODES = Kind("Node", "nodes", namespaced=False)
_DISK = "ephemeral-storage"
_DISK_SHARE = Decimal("1.2")  # the scratch disk, /tmp and the log, as the launcher asks for them
_KEEPS_AWAY = {"NoSchedule", "NoExecute"}
_NAMED_AT_MOST = 5


def look_at_quota(cluster: Cluster, situation: Situation) -> Iterator[Finding]:
    """Say whether the job fits into each quota of its namespace."""
    try:
        quotas, _ = cluster.find(_QUOTAS)
    except NotAllowed:
        yield unseen(cluster, _QUOTAS, "", "Quota", "describe")
        return
    settings = situation.train.cluster
    wanted = {name: need * settings.nodes for name, need in per_pod(situation.train).items()}
    wanted["pods"] = Decimal(settings.nodes)
    concerned = [quota for quota in quotas if _concerns(quota, settings)]
    for quota in concerned:
        yield _quota(quota, wanted)
    if not concerned:
        yield ok("Quota", f"Namespace {cluster.namespace} has none that concerns the job.")


def look_at_nodes(cluster: Cluster, situation: Situation) -> Iterator[Finding]:
    """Say whether there are as many nodes as the job has pods, each large enough and open to them."""
    try:
        nodes, _ = cluster.find(_NODES)
    except NotAllowed:
        yield unseen(cluster, _NODES, "", "Nodes", "describe")
        return
    settings = situation.train.cluster
    wanted = per_pod(situation.train)
    pod = ", ".join(f"{_shown(name, need)} {name}" for name, need in wanted.items())
    obstacles = {each["metadata"]["name"]: _obstacle(each, wanted, settings) for each in nodes}
    fitting = [name for name, obstacle in obstacles.items() if not obstacle]
    if len(fitting) >= settings.nodes:
        yield ok("Nodes", f"{len(fitting)} of {len(nodes)} are large enough for a pod ({pod}), if they are free.")
        return
    seen = [f"{name} {obstacle}" for name, obstacle in sorted(obstacles.items()) if obstacle][:_NAMED_AT_MOST]
    yield warning(
        "Nodes",
        f"{len(fitting)} of {len(nodes)} can take a pod ({pod}), and the job has {settings.nodes}: {'; '.join(seen)}.",
        "Nothing is wrong if an autoscaler adds such nodes; otherwise ask for less in train.cluster and "
        "train.processes_per_node, or correct its node_selector and tolerations.",
    )


def per_pod(train: TrainPart) -> dict[str, Decimal]:
    """What a pod of the job requests, as the launcher writes it."""
    cluster = train.cluster
    amounts = {"cpu": quantity(cluster.cpu), "memory": quantity(cluster.memory)}
    amounts[_DISK] = quantity(cluster.scratch) * _DISK_SHARE
    amounts |= {name: quantity(need) for name, need in cluster.extra_resources.items()}
    if cluster.gpu_resource and train.device != "cpu":
        amounts[cluster.gpu_resource] = Decimal(train.processes_per_node)
    return amounts


def _quota(quota: dict[str, Any], wanted: dict[str, Decimal]) -> Finding:
    name = quota["metadata"]["name"]
    subject = f"Quota {name}"
    status = quota.get("status") or {}
    hard, used = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}, status.get("used") or {}
    too_small: list[str] = []
    taken: list[str] = []
    free: list[str] = []
    for limit, most in hard.items():
        resource = limit.removeprefix("requests.").removeprefix("limits.")
        if resource not in wanted:
            continue
        need, left = wanted[resource], amount(most) - amount(used.get(limit, "0"))
        numbers = f"{limit} {_shown(resource, need)} of {most}, {_shown(resource, left)} left"
        (too_small if need > amount(most) else taken if need > left else free).append(numbers)
    if too_small:
        remedy = "Ask for less in train.cluster, or have the quota raised."
        return failed(subject, f"The job is larger than the whole quota: {'; '.join(too_small)}.", remedy)
    if taken:
        remedy = "The job waits until others in the namespace have ended; or have the quota raised."
        return warning(subject, f"Others use what the job needs: {'; '.join(taken)}.", remedy)
    return ok(subject, f"The job fits: {'; '.join(free)}." if free else "It limits nothing that the job asks for.")


def _concerns(quota: dict[str, Any], settings: ClusterSettings) -> bool:
    """Whether a quota counts our pods: they have requests, no deadline of their own, and a priority class or none."""
    spec = quota.get("spec") or {}
    if {"BestEffort", "Terminating", "CrossNamespacePodAffinity"} & set(spec.get("scopes") or []):
        return False
    for term in (spec.get("scopeSelector") or {}).get("matchExpressions") or []:
        scope, operator, values = term["scopeName"], term["operator"], term.get("values") or []
        if scope in ("BestEffort", "Terminating", "CrossNamespacePodAffinity"):
            return False
        if scope != "PriorityClass":
            continue
        ours = settings.priority_class
        holds = {"In": ours in values, "NotIn": ours not in values, "Exists": bool(ours), "DoesNotExist": not ours}
        if not holds.get(operator, True):
            return False
    return True


def _obstacle(node: dict[str, Any], wanted: dict[str, Decimal], settings: ClusterSettings) -> str:
    """Why a node cannot take a pod; empty if it can."""
    labels = node["metadata"].get("labels") or {}
    for name, value in settings.node_selector.items():
        if labels.get(name) != value:
            return f"has not the label {name}={value}"
    spec, status = node.get("spec") or {}, node.get("status") or {}
    if spec.get("unschedulable"):
        return "is cordoned"
    ready = [each["status"] for each in status.get("conditions") or [] if each["type"] == "Ready"]
    if ready != ["True"]:
        return "is not ready"
    for taint in spec.get("taints") or []:
        if taint.get("effect") in _KEEPS_AWAY and not any(_tolerates(each, taint) for each in settings.tolerations):
            return f"has the taint {taint['key']}={taint.get('value', '')}:{taint['effect']}"
    allocatable = status.get("allocatable") or {}
    for name, need in wanted.items():
        there = amount(allocatable.get(name, "0"))
        if there < need and (name in allocatable or name != _DISK):
            return f"has {_shown(name, there)} {name}"
    return ""


def _tolerates(toleration: Any, taint: dict[str, Any]) -> bool:
    if toleration.key is not None and toleration.key != taint["key"]:
        return False
    if toleration.effect is not None and toleration.effect != taint["effect"]:
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == taint.get("value", "")


def _shown(resource: str, number: Decimal) -> str:
    if resource in ("memory", _DISK):
        return f"{number / 1024**3:,.1f} GiB"
    return f"{number.normalize():f}"
