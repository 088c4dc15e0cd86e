"""Watching objects: nothing is missed when a watch breaks, and no change is told twice."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.common.cluster.connection import (
    GONE,
    Cluster,
    Kind,
    Stream,
    cause,
    explained,
    is_passing,
    unreachable,
)

log = logging.getLogger(__name__)

_LEAST_PAUSE, _MOST_PAUSE = 0.05, 5.0  # seconds between two attempts
_RELIST_PAUSE = 0.5


@dataclass(frozen=True)
class Change:
    """An object that came, changed or went.

    Attributes:
        kind: Of the object.
        found: The object; its last state if it went.
        gone: Whether it went.
    """

    kind: Kind
    found: dict[str, Any]
    gone: bool = False


class Watcher(Thread):
    """Follows the objects of a kind in a thread of its own.

    A watch is resumed from the last version that it told. Where the server no longer has that version (410 Gone), all
    objects are listed again, and those that are missing are told as gone.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        tell: Callable[[Change | Exception], None],
        **selectors: str,
    ) -> None:
        """Prepare to watch.

        Args:
            cluster: Where.
            kind: Of the objects.
            tell: Called in this thread with every change, and with the error that ends the watching.
            selectors: `labelSelector`, `fieldSelector`.
        """
        super().__init__(daemon=True, name=f"watch-{kind.plural}")
        self._cluster, self._kind, self._tell, self._selectors = cluster, kind, tell, selectors
        self._known: dict[str, dict[str, Any]] = {}
        self._closing = Event()
        self._stream: Stream | None = None

    def run(self) -> None:
        """Watch until shut."""
        try:
            while not self._closing.is_set():
                self._follow(self._list())
                self._closing.wait(_RELIST_PAUSE)
        except Exception as error:  # noqa: BLE001 - whoever started this thread raises it
            self._tell(error)

    def shut(self) -> None:
        """End the watching, from any thread."""
        self._closing.set()
        if self._stream is not None:
            self._stream.shut()

    def _list(self) -> str:
        """Tell what is there, and what is no longer; returns the version to watch from."""
        found, version = self._cluster.find(self._kind, **self._selectors)
        listed = {each["metadata"]["uid"]: each for each in found}
        for uid in self._known.keys() - listed.keys():
            self._tell(Change(self._kind, self._known[uid], gone=True))
        for uid, each in listed.items():
            if _version(each) != _version(self._known.get(uid)):
                self._tell(Change(self._kind, each))
        self._known = listed
        return version

    def _follow(self, version: str) -> None:
        """Tell changes until the server has forgotten our version."""
        pause = _LEAST_PAUSE
        answered = time.monotonic()
        while not self._closing.is_set():
            try:
                for event in self._events(version):
                    answered, pause = time.monotonic(), _LEAST_PAUSE
                    if event["type"] == "ERROR":
                        if event["object"].get("code") == GONE:
                            return
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["type"], event["object"])
                else:
                    answered = time.monotonic()  # it ended in order
            except (HTTPError, ApiException, ValueError) as error:
                if isinstance(error, ApiException) and not is_passing(error):
                    if error.status == GONE:
                        return
                    raise explained("watch", self._kind, self._cluster.namespace, error) from error
                if time.monotonic() - answered > self._cluster.patience:
                    raise unreachable(self._cluster.patience, error) from error
                log.debug("The watch of %s broke: %s", self._kind.plural, cause(error))
            self._closing.wait(pause)
            pause = min(pause * 2, _MOST_PAUSE)

    def _events(self, version: str) -> Any:
        self._stream = self._cluster.watch(self._kind, version, **self._selectors)
        if self._closing.is_set():
            self._stream.shut()
        return map(json.loads, self._stream)

    def _take(self, change: str, found: dict[str, Any]) -> None:
        if change == "BOOKMARK":
            return
        if change == "DELETED":
            self._known.pop(found["metadata"]["uid"], None)
        else:
            self._known[found["metadata"]["uid"]] = found
        self._tell(Change(self._kind, found, gone=change == "DELETED"))


def _version(found: dict[str, Any] | None) -> str | None:
    return found["metadata"]["resourceVersion"] if found else None
