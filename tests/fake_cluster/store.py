"""Objects with resource versions and their history, as etcd and the watch cache keep them."""

import copy
import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    version: int
    plural: str
    type: str
    found: Object


class Refused(Exception):
    """An answer of the API that is a Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Store:
    """All objects of the namespace."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.history: list[Entry] = []
        self.oldest = 0
        self.version = 0
        self._objects: dict[tuple[str, str], Object] = {}

    def all(self, plural: str) -> list[Object]:
        with self.changed:
            return [copy.deepcopy(found) for (each, _), found in sorted(self._objects.items()) if each == plural]

    def get(self, plural: str, name: str) -> Object:
        with self.changed:
            if (plural, name) not in self._objects:
                raise Refused(404, "NotFound", f'{plural} "{name}" not found')
            return copy.deepcopy(self._objects[plural, name])

    def has(self, plural: str, name: str) -> bool:
        return (plural, name) in self._objects

    def add(self, plural: str, found: Object) -> Object:
        found = copy.deepcopy(found)
        meta = found["metadata"]
        if "generateName" in meta and "name" not in meta:
            meta["name"] = meta["generateName"] + secrets.token_hex(3)
        with self.changed:
            if self.has(plural, meta["name"]):
                raise Refused(409, "AlreadyExists", f'{plural} "{meta["name"]}" already exists')
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            return self._put(plural, found, "ADDED")

    def change(self, plural: str, name: str, action: Callable[[Object], object]) -> Object:
        """Change an object in place; nothing is written if nothing changed, or it is gone."""
        with self.changed:
            found = self._objects.get((plural, name))
            if found is None:
                return {}
            new = copy.deepcopy(found)
            action(new)
            return self._put(plural, new, "MODIFIED") if new != found else new

    def remove(self, plural: str, name: str) -> None:
        with self.changed:
            found = self._objects.get((plural, name))
            if found is not None:
                self._put(plural, found, "DELETED")
                del self._objects[plural, name]

    def compact(self) -> None:
        """Forget all history: watches that resume get 410 Gone."""
        with self.changed:
            self.version += 1
            self.history.clear()
            self.oldest = self.version

    def _put(self, plural: str, found: Object, change: str) -> Object:
        self.version += 1
        found = copy.deepcopy(found)
        found["metadata"]["resourceVersion"] = str(self.version)
        self._objects[plural, found["metadata"]["name"]] = found
        self.history.append(Entry(self.version, plural, change, found))
        self.changed.notify_all()
        return copy.deepcopy(found)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
