"""What the API says of a pod, in our words."""

import json
from dataclasses import dataclass
from typing import Any

# Reasons for which a container waits and that waiting does not mend.
BROKEN = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "ImageInspectError",
    "InvalidImageName",
    "RegistryUnavailable",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}
_HOPELESS_ERRORS = {"InputError", "TrainingError"}


@dataclass(frozen=True)
class Cause:
    """The failure that a worker left in its termination message.

    Attributes:
        rank: Of the process that failed first on its node.
        message: What it raised.
        clear: Whether that is a sentence for the user as it is.
        time: When, in seconds of the epoch.
        hopeless: Whether it would fail in the same way again.
    """

    rank: int
    message: str
    clear: bool
    time: float
    hopeless: bool


@dataclass(frozen=True)
class Ending:
    """How a container ended.

    Attributes:
        replica: Of its pod, such as worker-0.
        restarts: How often it had been started again before.
        exit_code: Of the process.
        reason: Kubernetes' word for it, such as OOMKilled.
        message: The termination message.
        finished_at: RFC 3339, in seconds.
    """

    replica: str
    restarts: int
    exit_code: int
    reason: str
    message: str
    finished_at: str

    @property
    def failed(self) -> bool:
        """Whether it was no success."""
        return self.exit_code != 0

    @property
    def cause(self) -> Cause | None:
        """What the worker itself said of it."""
        try:
            found = json.loads(self.message)
            hopeless = bool(found["clear"]) and found.get("error") in _HOPELESS_ERRORS
            return Cause(
                int(found["rank"]), str(found["message"]), bool(found["clear"]), float(found["time"]), hopeless
            )
        except (ValueError, KeyError, TypeError):
            return None  # another program's words, or the end of the log


@dataclass(frozen=True)
class Pod:
    """A pod of the job.

    Attributes:
        name: Of the pod.
        uid: Of the pod: another one of the same name has another.
        replica: Its part in the job, such as worker-0.
        node: Where it runs; empty until it is placed.
        phase: Pending, Running, Succeeded, Failed or Unknown.
        lost: Why the cluster took it away: evicted, preempted; empty if it did not.
        unschedulable: Why no node takes it; empty if one did.
        waiting: Reason for which its container does not run, and the message.
        running: Whether its container runs.
        restarts: Of its container.
        ending: How its container ended, last time.
        ended: Whether its container has ended and was not started again, yet.
    """

    name: str
    uid: str
    replica: str
    node: str
    phase: str
    lost: str
    unschedulable: str
    waiting: tuple[str, str]
    running: bool
    restarts: int
    ending: Ending | None
    ended: bool

    @property
    def started(self) -> bool:
        """Whether its container has run."""
        return self.running or self.ended or self.restarts > 0

    @property
    def broken(self) -> bool:
        """Whether its container cannot start, and will not by itself."""
        return self.waiting[0] in BROKEN


def read_pod(found: dict[str, Any], replica: str, container: str) -> Pod:
    """Read a pod.

    Args:
        found: As the API gives it.
        replica: What the operator's labels say it is.
        container: Name of the one that trains.
    """
    status = found.get("status") or {}
    statuses: list[dict[str, Any]] = status.get("containerStatuses") or []
    own: dict[str, Any] = next((each for each in statuses if each["name"] == container), {})
    state, last = own.get("state") or {}, own.get("lastState") or {}
    restarts = int(own.get("restartCount", 0))
    # Between two starts the container waits, and its last state is how the latest start ended.
    latest = last if "waiting" in state else state
    ended = "terminated" in latest
    return Pod(
        name=found["metadata"]["name"],
        uid=found["metadata"]["uid"],
        replica=replica,
        node=(found.get("spec") or {}).get("nodeName", ""),
        phase=status.get("phase", "Pending"),
        lost=_lost(status),
        unschedulable=_unschedulable(status),
        waiting=_waiting(status, state),
        running="running" in state,
        restarts=restarts,
        ending=_ending(replica, restarts, latest) if ended else _ending(replica, restarts - 1, last),
        ended=ended,
    )


def _ending(replica: str, restarts: int, state: dict[str, Any]) -> Ending | None:
    found = state.get("terminated")
    if not found:
        return None
    return Ending(
        replica=replica,
        restarts=restarts,
        exit_code=int(found.get("exitCode", -1)),
        reason=found.get("reason", ""),
        message=(found.get("message") or "").strip(),
        finished_at=found.get("finishedAt") or "",
    )


def _lost(status: dict[str, Any]) -> str:
    for condition in status.get("conditions") or []:
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason', 'disrupted')}: {condition.get('message', '')}".strip(": ")
    if status.get("phase") == "Failed" and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".strip(": ")
    return ""


def _unschedulable(status: dict[str, Any]) -> str:
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "no reason is given")
    return ""


def _waiting(status: dict[str, Any], state: dict[str, Any]) -> tuple[str, str]:
    """Of the container, or of the first initial container that keeps it from starting."""
    states = [each.get("state") or {} for each in status.get("initContainerStatuses") or []]
    for each in [*states, state]:
        if waiting := each.get("waiting"):
            return waiting.get("reason", ""), waiting.get("message") or ""
    return "", ""
