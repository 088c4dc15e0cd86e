"""What the tests of the manifests share: rendered installations, and a judge of NetworkPolicies."""

import functools
import tempfile
from pathlib import Path
from typing import Any

from tools.cluster_manifests.installation import read_installation
from tools.cluster_manifests.render import render
from tools.manifests import find_kubectl

NAMESPACE = "team-a"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "NAMESPACE": NAMESPACE,
    "REGISTRY": "registry.example.org/team",
    "TAG": "0.1.0",
    "PMC_STORE_URI": "s3://bucket/pmc-llama",
    "AWS_REGION": "eu-central-1",
}
Objects = list[dict[str, Any]]


def rendered(overlay: str, **environment: str) -> Objects:
    """The objects of an overlay; rendered once for each environment, each caller gets its own copy."""
    return _copy(_rendered(overlay, tuple(sorted((ENVIRONMENT | environment).items()))))


def find(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    """The one object of a kind and name."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


@functools.cache
def _rendered(overlay: str, environment: tuple[tuple[str, str], ...]) -> Objects:
    with tempfile.TemporaryDirectory() as folder:
        return render(read_installation(overlay, dict(environment)), find_kubectl(), Path(folder))


def _copy(objects: Any) -> Any:
    if isinstance(objects, dict):
        return {key: _copy(value) for key, value in objects.items()}
    return [_copy(each) for each in objects] if isinstance(objects, list) else objects


class Network:
    """Says which pods may talk to which, by Kubernetes' rules for NetworkPolicies."""

    def __init__(self, objects: Objects) -> None:
        """Take the policies among the objects; all of their pods are in one namespace."""
        self._policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]

    def lets(self, source: dict[str, str], target: dict[str, str], port: int, namespace: str = NAMESPACE) -> bool:
        """Whether a pod may open a TCP connection.

        Args:
            source: Labels of the pod that calls.
            target: Labels of the pod that is called, in the policies' namespace.
            port: Of the target.
            namespace: Of the source.
        """
        leaves = namespace != NAMESPACE or self._passes("Egress", source, target, NAMESPACE, port)
        return leaves and self._passes("Ingress", target, source, namespace, port)

    def lets_out(self, source: dict[str, str], port: int) -> bool:
        """Whether a pod may open a TCP connection to an address outside the cluster."""
        return self._passes("Egress", source, None, "", port)

    def _passes(self, way: str, own: dict[str, str], other: dict[str, str] | None, namespace: str, port: int) -> bool:
        guards = [spec for spec in self._policies if way in spec["policyTypes"] and _fits(spec["podSelector"], own)]
        side = "from" if way == "Ingress" else "to"
        rules = [rule for spec in guards for rule in spec.get(way.lower()) or []]
        return not guards or any(_allows(rule, side, other, namespace, port) for rule in rules)


def _allows(rule: dict[str, Any], side: str, other: dict[str, str] | None, namespace: str, port: int) -> bool:
    wanted = [each["port"] for each in rule.get("ports", []) if each.get("protocol", "TCP") == "TCP"]
    if "ports" in rule and port not in wanted:
        return False
    return side not in rule or any(other is not None and _is_peer(peer, other, namespace) for peer in rule[side])


def _is_peer(peer: dict[str, Any], labels: dict[str, str], namespace: str) -> bool:
    if "namespaceSelector" in peer:
        place = {"kubernetes.io/metadata.name": namespace}
        return _fits(peer["namespaceSelector"], place) and _fits(peer.get("podSelector", {}), labels)
    return namespace == NAMESPACE and _fits(peer["podSelector"], labels)


def _fits(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] in ("Exists", "In") for each in expressions)
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        each["key"] in labels and (each["operator"] == "Exists" or labels[each["key"]] in each["values"])
        for each in expressions
    )
