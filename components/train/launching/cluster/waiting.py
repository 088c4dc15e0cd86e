"""What a job waits for, in sentences, each told once until it changes."""

import logging
from collections.abc import Iterable

from components.train.launching.cluster.diagnosis import ended_with
from components.train.launching.cluster.events import JobEvents
from components.train.launching.cluster.operators import JobState
from components.train.launching.cluster.pods import Pod

log = logging.getLogger(__name__)


class Teller:
    """Tells a set of facts: those that are new or changed, and no other."""

    def __init__(self) -> None:
        """Start with nothing told."""
        self._told: dict[str, str] = {}

    def tell(self, facts: dict[str, str]) -> None:
        """Log each fact that is not what was told of its subject last; subjects that left are forgotten."""
        for subject, sentence in facts.items():
            if self._told.get(subject) != sentence:
                log.info("%s", sentence)
        self._told = facts


def waiting_facts(name: str, state: JobState, pods: Iterable[Pod], events: JobEvents, nodes: int) -> dict[str, str]:
    """What is to be told of a job that has not ended: subject to sentence.

    Args:
        name: Of the job.
        state: Of the job.
        pods: That it has.
        events: That concern it.
        nodes: Pods that it should have.
    """
    if state.phase == "queued":
        return {"job": f"Job {name} is queued: {_queue_reason(events) or state.message or 'it is suspended'}."}
    facts = {f"pod {pod.name}": _pod_fact(pod) for pod in pods}
    if state.phase == "new":
        facts["job"] = f"Job {name} waits for its operator."
    elif len(facts) < nodes:
        refusal = next((said for said in reversed(events.of_job()) if said.warning), None)
        reason = f": {refusal.reason}: {refusal.message}" if refusal else "."
        facts["job"] = f"Job {name} waits for its pods, {len(facts)} of {nodes} are there{reason}"
    return facts


def _queue_reason(events: JobEvents) -> str:
    said = events.of_queue()
    return said[-1].message.rstrip(".") if said else ""


def _pod_fact(pod: Pod) -> str:
    if pod.lost:
        return f"{pod.replica} was taken away by the cluster: {pod.lost}"
    if pod.unschedulable:
        return f"{pod.replica} waits for a node: {pod.unschedulable}"
    if pod.running:
        times = f", started again ({pod.restarts})" if pod.restarts else ""
        return f"{pod.replica} runs on {pod.node or 'a node'}{times}."
    if pod.ended and pod.ending:
        again = " and is started again" if pod.ending.failed and pod.phase == "Running" else ""
        return f"{pod.replica} ended with {ended_with(pod.ending)}{again}."
    if pod.broken:
        return f"{pod.replica} cannot start: {': '.join(filter(None, pod.waiting))}"
    return f"{pod.replica} is set up on {pod.node}." if pod.node else f"{pod.replica} waits for a node."
