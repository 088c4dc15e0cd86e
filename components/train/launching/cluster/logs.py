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

    def knows(self, line: str) -> bool:
        """Whether the line was told."""
        return line in self._counts

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
            old = self._order.popleft()
            self._counts[old] -= 1
            if not self._counts[old]:
                del self._counts[old]


class PodLog(Thread):
    """Follows the log of a pod, and of those that take its place, in a thread of its own.

    The node has the logs of two starts of a container, the current one and the one before, and no answer says of which
    start it is. The pod's status says how often the container was started, but it comes another way and may be late:
    the log of the next start can be there before its status. So the order of the starts rests on the answers alone. An
    answer that begins with a line that was told goes on where we were; before anything else is told, so is what the
    earlier log has left. The status only says when there is something to read, and when that was all.
    """

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
        self._uids: set[str] = set()
        self._since: str | None = None  # time of the last line that was told of this pod
        self._told = 0
        self._stream: Stream | None = None
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
            told = self._told
            whole = self._read(pod)
            pause = _LEAST_PAUSE if self._told > told else pause
            with self._changed:
                if whole and pod.ended:
                    self._read_whole = _Instance(pod.uid, pod.restarts)
                elif not self._changed.wait_for(lambda: self._gone or self._state is not pod, pause):
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

    def _read(self, pod: Pod) -> bool:
        """Tell what is new in both logs; returns whether the answers were whole."""
        if pod.uid not in self._uids:  # it may be on another node, whose clock is another
            self._uids.add(pod.uid)
            self._since = None
        try:
            # The current log may not answer before its first line. Should its container end without one, the node has
            # forgotten the earlier log: that one is asked for at once.
            self._read_previous(expected=False)
            self._read_current(follow=not pod.ended)
            return True
        except HTTPError as error:
            log.debug("The log of %s broke: %s", self._pod, cause(error))
            return False
        except ApiException as error:
            self._tell_refusal(error)
            return not is_passing(error) and error.status != 400  # 400: the container is not there

    def _read_current(self, follow: bool) -> None:
        is_new: Callable[[str], bool] | None = None
        for line in (stream := self._open(follow=follow)):
            if not _is_line(line):
                self._tell_hole(line)
                continue
            if is_new is None:
                if not self._seen.knows(line):
                    self._read_previous(expected=True)
                    self._bind(stream)
                is_new = self._seen.reading()
            self._take(line, is_new)

    def _read_previous(self, expected: bool) -> None:
        """Tell what is left of the log before the current one.

        Args:
            expected: Whether there may be something left, so that it is worth a word if the node has that log no more.
        """
        is_new = self._seen.reading()
        try:
            for line in self._open(previous=True):
                if _is_line(line):
                    self._take(line, is_new)
                elif expected:
                    self._tell_hole(line)
        except ApiException as error:
            if is_passing(error):
                raise
            self._tell_refusal(error)  # most often there is none

    def _open(self, follow: bool = False, previous: bool = False) -> Stream:
        return self._bind(self._cluster.log(self._pod, self._container, self._since, follow, previous))

    def _bind(self, stream: Stream) -> Stream:
        self._stream = stream
        if self._closing and self._gone:  # since this thread waited for another answer
            stream.shut()
        return stream

    def _take(self, line: str, is_new: Callable[[str], bool]) -> None:
        if is_new(line):
            self._since, _, text = line.partition(" ")
            self._told += 1
            self._tell(text)

    def _tell_hole(self, line: str) -> None:
        log.warning("The log of %s has a hole: %s", self._pod, line)

    def _tell_refusal(self, error: ApiException) -> None:
        log.debug("The log of %s is refused: %s", self._pod, cause(error))
        if error.status in (401, 403) and not self._told_refusal:
            self._told_refusal = True
            log.warning("The log of %s cannot be shown: %s.", self._pod, cause(error))


def _time(line: str) -> str:
    return line.partition(" ")[0]


def _is_line(line: str) -> bool:
    """Whether a container wrote it; the node's own words have no time."""
    stamp = _time(line)
    return len(stamp) >= 20 and stamp[4:5] == "-" and stamp[10:11] == "T"
