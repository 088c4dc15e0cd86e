"""Looking an object up where the right to do so may be missing, which is no fault."""

from typing import Any, Literal

from components.common.cluster.connection import Cluster, Kind, NotAllowed
from components.preflight.findings import Finding, failed, unknown


def look_up(
    cluster: Cluster, kind: Kind, name: str, subject: str, remedy: str
) -> tuple[dict[str, Any], None] | tuple[None, Finding]:
    """An object, or the finding that it is not there or may not be read.

    Args:
        cluster: Where.
        kind: Of the object.
        name: Of the object.
        subject: Of the finding.
        remedy: For when it is not there.
    """
    try:
        found = cluster.get(kind, name)
    except NotAllowed:
        return None, unseen(cluster, kind, name, subject)
    if found is None:
        return None, failed(subject, f"There is none of that name{_where(cluster, kind)}.", remedy)
    return found, None


def unseen(cluster: Cluster, kind: Kind, name: str, subject: str, verb: Literal["get", "describe"] = "get") -> Finding:
    """The finding that we may not look, with the command by which a person does."""
    resource = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    place = f" -n {cluster.namespace}" if kind.namespaced else ""
    return unknown(
        subject,
        f"We may not read {resource}, which is no fault.",
        f"Look by hand: kubectl {' '.join(filter(None, [verb, resource, name]))}{place}.",
    )


def _where(cluster: Cluster, kind: Kind) -> str:
    return f" in namespace {cluster.namespace}" if kind.namespaced else " in the cluster"
