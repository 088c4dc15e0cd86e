"""A pod's log as one stream: without gaps or doubles, across broken connections and restarted containers."""

import collections
import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.common.cluster.connection import Cluster, Stream, cause, is_passing
from components.train.launching.cluster.pods import Pod

log = logging.getLogger(__name__)

# Lines by which a repeated reading is recognised: a reading starts at a whole second, so these must cover one.
_REMEMBERED = 20_000
_LEAST_PAUSE, _MOST_PAUSE = 0.1, 5.0  # seconds between two readings


@dataclass(frozen=True)
class _Instance:
    """One start of a pod's container."""

    uid: str
    restarts: int


class SeenLines:
    """Which lines of a log were told: a line is known by its time and its text, and how often that pair came."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        """Start with none.

        Args:
            remembered: The newest so many lines are known.
        """
        self._order: collections.deque[str] = collections.deque()
        self._counts: collections.Counter[str] = collections.Counter()
        self._remembered = remembered
        self._forgotten = False

    @property
    def newest(self) -> str | None:
        """Time of the last line that was told."""
        return _time(self._order[-1]) if self._order else None

    @property
    def oldest(self) -> str | None:
        """Time from which every line is known; None is the start."""
        return _time(self._order[0]) if self._forgotten else None

    def reading(self) -> Callable[[str], bool]:
        """For one reading of the log from some time on: tells of each of its lines whether it is new, and keeps it."""
        read: collections.Counter[str] = collections.Counter()
        latest = max(map(_time, self._order), default="")

        def is_new(line: str) -> bool:
            if _time(line) <= latest:  # later lines cannot have been told
                read[line] += 1
                if read[line] <= known[line]:
                    return False
            self._keep(line)
            return True

        known = self._counts.copy()
        return is_new

    def _keep(self, line: str) -> None:
        self._counts[line] += 1
        self._order.append(line)
        if len(self._order) > self._remembered:
            self._forgotten = True
            old = self._order.popleft()
            self._counts[old] -= 1
            if not self._counts[old]:
                del self._counts[old]


class PodLog(Thread):
    """Follows the log of a pod, and of those that take its place, in a thread of its own."""

    def __init__(self, cluster: Cluster, pod: str, container: str, tell: Callable[[str], None]) -> None:
        """Prepare to follow.

        Args:
            cluster: Where.
            pod: Its name.
            container: Whose log.
            tell: Called in this thread with every line.
        """
        super().__init__(daemon=True, name=f"log-{pod}")
        self._cluster, self._pod, self._container, self._tell = cluster, pod, container, tell
        self._seen = SeenLines()
        self._changed = Condition()
        self._state: Pod | None = None
        self._gone = False
        self._closing = False
        self._read_whole: _Instance | None = None  # the last start of the container that was read to its end
        self._reading: _Instance | None = None
        self._stream: Stream | None = None
        self._is_new = self._seen.reading()
        self._told_refusal = False

    def update(self, pod: Pod, gone: bool) -> None:
        """Tell what became of the pod."""
        with self._changed:
            self._state, self._gone = pod, gone
            self._changed.notify_all()

    def finish(self) -> None:
        """End as soon as all that there is has been read."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def shut(self) -> None:
        """End now."""
        with self._changed:
            self._closing = self._gone = True
            self._changed.notify_all()
        if self._stream is not None:
            self._stream.shut()

    def run(self) -> None:
        """Follow until finished or shut."""
        pause = _LEAST_PAUSE
        while (pod := self._next()) is not None:
            instance = _Instance(pod.uid, pod.restarts)
            whole = True
            if self._missed(instance):
                pause = _LEAST_PAUSE  # a node keeps one earlier log only, until the next restart
                whole, _ = self._read(follow=False, previous=True, since=self._seen.oldest)
            if whole:
                self._reading = instance
                whole, count = self._read(follow=not pod.ended, previous=False, since=self._seen.newest)
                pause = _LEAST_PAUSE if count else pause
            with self._changed:
                if whole and pod.ended:
                    self._read_whole = instance
                else:
                    self._changed.wait(pause)
                    pause = min(pause * 2, _MOST_PAUSE)

    def _next(self) -> Pod | None:
        """The pod when its container has something to be read; None when there will be nothing more."""
        with self._changed:
            while True:
                pod = self._state
                if pod is not None and not self._gone and self._unread(pod):
                    return pod
                if self._closing:
                    return None
                self._changed.wait()

    def _unread(self, pod: Pod) -> bool:
        return (pod.running or pod.ended) and _Instance(pod.uid, pod.restarts) != self._read_whole

    def _missed(self, instance: _Instance) -> bool:
        """Whether the end of an earlier start may be unread.

        It may even if its end was seen: what was read then can have been the log of the next start already, which the
        status told only later.
        """
        return instance.restarts > 0 and instance != self._reading

    def _read(self, follow: bool, previous: bool, since: str | None) -> tuple[bool, int]:
        """Tell the new lines; returns whether the answer was whole, and how many came."""
        count = 0
        try:
            for line in self._open(follow, previous, since):
                count += self._take(line)
            return True, count
        except HTTPError as error:
            log.debug("The log of %s broke: %s", self._pod, cause(error))
            return False, count
        except ApiException as error:
            return self._refused(error, previous), 0

    def _open(self, follow: bool, previous: bool, since: str | None) -> Stream:
        self._is_new = self._seen.reading()
        self._stream = self._cluster.log(self._pod, self._container, since, follow, previous)
        return self._stream

    def _take(self, line: str) -> bool:
        stamp, _, text = line.partition(" ")
        if not _is_time(stamp):  # the node's own words
            log.warning("The log of %s has a hole: %s", self._pod, line)
            return False
        if not self._is_new(line):
            return False
        self._tell(text)
        return True

    def _refused(self, error: ApiException, previous: bool) -> bool:
        """Whether there is nothing to be had, which counts as whole: 400 says that the container is not there."""
        log.debug("The log of %s is refused: %s", self._pod, cause(error))
        if error.status in (401, 403) and not self._told_refusal:
            self._told_refusal = True
            log.warning("The log of %s cannot be shown: %s.", self._pod, cause(error))
        return not is_passing(error) and (previous or error.status != 400)


def _time(line: str) -> str:
    return line.partition(" ")[0]


def _is_time(stamp: str) -> bool:
    return len(stamp) >= 20 and stamp[4:5] == "-" and stamp[10:11] == "T"
