"""What the launcher asks of an operator: how its job is written, and how its state is read."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from components.common.cluster.connection import Kind
from components.common.cluster.settings import ClusterSettings
from components.train.launching.cluster.naming import Identity
from components.train.launching.job import TrainJob

Phase = Literal["new", "queued", "active", "succeeded", "failed"]


@dataclass(frozen=True)
class JobState:
    """Where a job is in its life.

    Attributes:
        phase: `new`: the operator has not seen it; `queued`: suspended; `active`: it has or gets pods.
        message: The operator's words for it.
    """

    phase: Phase
    message: str

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.phase in ("succeeded", "failed")


class Operator(Protocol):
    """One of the two operators.

    Attributes:
        kind: Of its jobs.
        container: Name of the one that trains.
        label: Of a pod: the name of its job.
    """

    kind: Kind
    container: str
    label: str

    def check(self, cluster: ClusterSettings) -> None:
        """Raise InputError for a setting that this operator cannot honour."""

    def manifest(
        self, identity: Identity, job: TrainJob, cluster: ClusterSettings, command: list[str]
    ) -> dict[str, Any]:
        """The job as the API takes it."""

    def state(self, found: dict[str, Any]) -> JobState:
        """Where a job is, as the API gives it."""

    def replica(self, pod: dict[str, Any]) -> str:
        """The part that a pod plays, such as worker-0."""


def true_conditions(found: dict[str, Any]) -> dict[str, str]:
    """Conditions of an object that hold, with their messages."""
    conditions = (found.get("status") or {}).get("conditions") or []
    return {
        each["type"]: each.get("message") or each.get("reason") or "" for each in conditions if each["status"] == "True"
    }
