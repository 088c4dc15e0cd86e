"""Events of the cluster that concern a job: what the operators, the scheduler, the nodes and Kueue say of it."""

from dataclasses import dataclass
from typing import Any

_KEPT = 200


@dataclass(frozen=True)
class Said:
    """One event.

    Attributes:
        about: Kind and name of the object.
        reason: Such as FailedScheduling.
        message: In words.
        warning: Whether it is one.
        time: RFC 3339, of the last time it was said.
    """

    about: tuple[str, str]
    reason: str
    message: str
    warning: bool
    time: str


class JobEvents:
    """The events of a job, its pods and its workload in a queue."""

    def __init__(self, job_kind: str, job_name: str) -> None:
        """Start with none."""
        self._job = (job_kind, job_name)
        self._found: dict[str, Said] = {}

    def take(self, found: dict[str, Any]) -> bool:
        """Keep an event if it concerns the job; returns whether it does."""
        about = found.get("involvedObject") or found.get("regarding") or {}
        said = Said(
            about=(about.get("kind", ""), about.get("name", "")),
            reason=found.get("reason", ""),
            message=(found.get("message") or found.get("note") or "").strip(),
            warning=found.get("type") == "Warning",
            time=found.get("lastTimestamp")
            or found.get("eventTime")
            or found["metadata"].get("creationTimestamp")
            or "",
        )
        if not self._concerns(said):
            return False
        self._found[found["metadata"]["uid"]] = said
        if len(self._found) > _KEPT:
            del self._found[min(self._found, key=lambda uid: self._found[uid].time)]
        return True

    def of_job(self) -> list[Said]:
        """What was said of the job itself, or of the objects between it and its pods; oldest first."""
        return [said for said in self._sorted() if said.about[0] not in ("Pod", "Workload")]

    def of_queue(self) -> list[Said]:
        """What Kueue said of the job's workload; oldest first."""
        return [said for said in self._sorted() if said.about[0] == "Workload"]

    def warnings(self) -> list[Said]:
        """All warnings; oldest first."""
        return [said for said in self._sorted() if said.warning]

    def _sorted(self) -> list[Said]:
        return sorted(self._found.values(), key=lambda said: said.time)

    def _concerns(self, said: Said) -> bool:
        kind, name = said.about
        if said.about == self._job:
            return True
        if kind == "Workload":  # Kueue calls it by kind and name of the job, and a hash
            return name.startswith(f"{self._job[0].lower()}-{self._job[1]}-")
        # A TrainJob makes a JobSet of its name, that makes Jobs, and they make the pods.
        return kind in ("Pod", "JobSet", "Job", "PodGroup") and (name + "-").startswith(f"{self._job[1]}-")
