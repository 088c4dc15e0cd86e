"""Following a job from its making to its end: told what it waits for, its logs shown, its failure explained."""

import collections
import contextlib
import logging
import re
import time
from queue import Empty, SimpleQueue
from typing import Any

from components.common.cluster.connection import EVENTS, PODS, Cluster
from components.common.cluster.settings import ClusterSettings
from components.common.errors import TrainingError
from components.train.launching.cluster.diagnosis import diagnosis
from components.train.launching.cluster.events import JobEvents
from components.train.launching.cluster.logs import PodLog
from components.train.launching.cluster.operators import Operator
from components.train.launching.cluster.pods import Ending, Pod, read_pod
from components.train.launching.cluster.waiting import Teller, waiting_facts
from components.train.launching.cluster.watching import Change, Watcher

log = logging.getLogger(__name__)

_LAST_LINES = 20
_DRAIN_SECONDS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.5  # at the clock; changes are seen when they come
_WORKER_TIME = re.compile(r"^\d\d:\d\d:\d\d ")


class JobFailed(TrainingError):
    """The job ended without a model, by itself."""


class GivenUp(TrainingError):
    """The job has not ended, but will come to nothing."""


class JobFollower:
    """Everything known of a job while it lives."""

    def __init__(
        self,
        cluster: Cluster,
        operator: Operator,
        job: dict[str, Any],
        settings: ClusterSettings,
        inbox: "SimpleQueue[Change | Exception]",
    ) -> None:
        """Start with the job as it was made or found.

        Args:
            cluster: Where.
            operator: Whose job.
            job: As the API gives it.
            settings: Limits of the patience.
            inbox: Where changes come in, and what ends the following.
        """
        self._cluster, self._operator, self._settings, self._inbox = cluster, operator, settings, inbox
        self._name, self._uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._made = job["metadata"]["creationTimestamp"]
        self._state = operator.state(job)
        self._pods: dict[str, Pod] = {}
        self._endings: dict[tuple[str, int], Ending] = {}
        self._events = JobEvents(operator.kind.name, self._name)
        self._logs: dict[str, PodLog] = {}
        self._lines: dict[str, collections.deque[str]] = {}
        self._teller = Teller()
        self._idle_since: float | None = None
        self._broken_since: float | None = None

    def follow(self) -> None:
        """Return when the job has succeeded.

        Raises:
            JobFailed: It has failed, with the diagnosis.
            GivenUp: It waits for what will not come, or fails in a way that it would again.
            TrainingError: It was deleted by another, or the cluster cannot be asked.
            Stopped: SIGTERM came.
        """
        selector = f"{self._operator.label}={self._name}"
        watchers = [
            Watcher(self._cluster, self._operator.kind, self._inbox.put, fieldSelector=f"metadata.name={self._name}"),
            Watcher(self._cluster, PODS, self._inbox.put, labelSelector=selector),
            Watcher(self._cluster, EVENTS, self._inbox.put),
        ]
        self._see_what_is_there(selector)
        for watcher in watchers:
            watcher.start()
        try:
            self._until_it_ends()
            self._see_the_end(selector)
        finally:
            for watcher in watchers:
                watcher.shut()
            for each in self._logs.values():
                each.shut()
        if self._state.phase == "failed":
            raise JobFailed(self._diagnosis(self._state.message))

    def _until_it_ends(self) -> None:
        while not self._state.finished:
            try:
                self._take(self._inbox.get(timeout=_SECONDS_BETWEEN_LOOKS))
                while not self._state.finished:  # all that has come, before anything is told of it
                    self._take(self._inbox.get_nowait())
            except Empty:
                pass
            if not self._state.finished:
                pods = list(self._pods.values())
                self._teller.tell(waiting_facts(self._name, self._state, pods, self._events, self._settings.nodes))
                self._lose_patience()

    def _take(self, change: Change | Exception) -> None:
        if isinstance(change, Exception):
            raise change
        if change.kind == EVENTS:
            self._events.take(change.found)
        elif change.kind == PODS:
            self._take_pod(change.found, change.gone)
        elif change.found["metadata"]["uid"] == self._uid:
            self._take_job(change.found, change.gone)

    def _take_job(self, found: dict[str, Any], gone: bool) -> None:
        self._state = self._operator.state(found)
        if gone and not self._state.finished:
            raise TrainingError(
                f"{self._operator.kind.name} {self._name} was deleted while this step followed it; run the step again, "
                "and training goes on from the last checkpoint."
            )

    def _take_pod(self, found: dict[str, Any], gone: bool) -> None:
        if found["metadata"]["creationTimestamp"] < self._made:
            return  # of an earlier job of this name
        pod = read_pod(found, self._operator.replica(found), self._operator.container)
        if pod.ending:
            self._endings[pod.uid, pod.ending.restarts] = pod.ending
        known = self._pods.get(pod.name)
        if gone and known is not None and known.uid != pod.uid:
            return  # another has taken its place
        if gone:
            self._pods.pop(pod.name, None)
        else:
            self._pods[pod.name] = pod
        self._log_of(pod).update(pod, gone)

    def _log_of(self, pod: Pod) -> PodLog:
        if pod.name not in self._logs:
            lines = self._lines.setdefault(pod.replica, collections.deque(maxlen=_LAST_LINES))
            label = f"{pod.replica} | " if self._settings.nodes > 1 else ""

            def tell(line: str) -> None:
                text = _WORKER_TIME.sub("", line)
                lines.append(text)
                log.info("%s%s", label, text)

            self._logs[pod.name] = PodLog(self._cluster, pod.name, self._operator.container, tell)
            self._logs[pod.name].start()
        return self._logs[pod.name]

    def _lose_patience(self) -> None:
        """Give up what will not come, or would come to the same again."""
        for ending in list(self._endings.values()):
            if ending.failed and ending.cause and ending.cause.hopeless:
                self._give_up("it would fail in the same way again, so the launcher ended it")
        now = time.monotonic()
        queued = self._state.phase == "queued"
        complete = len(self._pods) >= self._settings.nodes and all(pod.started for pod in self._pods.values())
        self._idle_since = None if queued or complete else self._idle_since or now
        broken = any(pod.broken for pod in self._pods.values())
        self._broken_since = (self._broken_since or now) if broken else None
        minutes = self._settings.broken_minutes
        if self._broken_since is not None and now - self._broken_since > minutes * 60:
            self._give_up(self._stuck(f"could not be started for {minutes:g} minutes"))
        limit = self._settings.wait_minutes
        if limit is not None and self._idle_since is not None and now - self._idle_since > limit * 60:
            self._give_up(self._stuck(f"did not get its pods running within {limit:g} minutes"))

    def _stuck(self, what: str) -> str:
        facts = waiting_facts(self._name, self._state, self._pods.values(), self._events, self._settings.nodes)
        waits = [fact.rstrip(".") for subject, fact in sorted(facts.items()) if self._is_stuck(subject)]
        return f"job {self._name} {what}; {'; '.join(waits)}"

    def _is_stuck(self, subject: str) -> bool:
        pod = self._pods.get(subject.removeprefix("pod "))
        return pod is None or not pod.started

    def _give_up(self, verdict: str) -> None:
        raise GivenUp(self._diagnosis(verdict))

    def _see_what_is_there(self, selector: str) -> None:
        """A job that is adopted may have ended: its pods and its events say how."""
        for found in self._cluster.find(EVENTS)[0]:
            self._events.take(found)
        for found in self._cluster.find(PODS, labelSelector=selector)[0]:
            self._take_pod(found, gone=False)

    def _see_the_end(self, selector: str) -> None:
        """The job's end may be told before that of its pods and of their logs: see those too, within bounds."""
        self._see_what_is_there(selector)
        for each in self._logs.values():
            each.finish()
        end = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < end and not self._is_told():
            with contextlib.suppress(Empty):
                self._take(self._inbox.get(timeout=0.05))
        for each in self._logs.values():
            each.shut()

    def _is_told(self) -> bool:
        """Whether all logs are at their end and, if the job failed, a pod has that explains it."""
        if any(each.is_alive() for each in self._logs.values()):
            return False
        explained = any(each.failed for each in self._endings.values()) or any(p.lost for p in self._pods.values())
        return explained or self._state.phase != "failed" or not self._pods

    def _diagnosis(self, verdict: str) -> str:
        lines = {replica: list(kept) for replica, kept in self._lines.items()}
        return diagnosis(
            list(self._endings.values()), self._pods.values(), self._events, lines, verdict, self._settings
        )
