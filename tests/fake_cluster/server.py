"""The API over HTTP: verbs, selectors, watches with bookmarks, logs that are followed, faults."""

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_cluster import catalogue, validation
from tests.fake_cluster.store import Object, Refused

if TYPE_CHECKING:
    from tests.fake_cluster.cluster import FakeCluster, Fault

# plural: (group and version, kind)
KINDS = {
    "pytorchjobs": ("kubeflow.org/v1", "PyTorchJob"),
    "trainjobs": ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
}
_REVIEWS = {
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": "SelfSubjectReview",
}
# API groups with the version of each that this server speaks.
SERVED = {
    tuple(group.split("/"))
    for group, *_ in [*KINDS.values(), *catalogue.KINDS.values(), ("authorization.k8s.io/v1",)]
    if "/" in group
}
_GROUP = r"/(?:api/v1|apis/(?P<group>[^/]+/[^/]+))"
_ROUTE = re.compile(
    _GROUP + r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)
_DISCOVERY = re.compile(r"/apis/(?P<group>[^/]+)(?:/(?P<version>[^/]+))?|(?P<core>/api/v1)")
_BOOKMARK_SECONDS = 1.0


class _QuietServer(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that has gone
            super().handle_error(request, client_address)


class Server:
    """Serves a cluster on a port of the loopback."""

    def __init__(self, cluster: "FakeCluster") -> None:
        handler = type("Bound", (_Handler,), {"cluster": cluster})
        self._http = _QuietServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._http.closing = False  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.closing = True  # type: ignore[attr-defined]
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: "FakeCluster"
    wbufsize = -1
    streams = 0

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as http.server calls them

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else {}
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            fault = self._fault()
            if fault is not None and fault.status == 0:
                return self._hang_up()
            if fault is not None and fault.status > 0:
                raise Refused(fault.status, "InternalError", "the fake was asked to fail")
            if self.headers.get("Authorization") != "Bearer test-token":
                raise Refused(401, "Unauthorized", "Unauthorized")
            answer = self._route(url.path)
            if fault is not None:
                return self._hang_up()
            if answer is not None:
                self._answer(*answer)
        except Refused as refused:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refused.code}
            self._answer(refused.code, status | {"reason": refused.reason, "message": refused.message})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        return None

    def _fault(self) -> "Fault | None":
        for fault in self.cluster.faults:
            if fault.times > 0 and fault.method == self.command and re.search(fault.path, self.path):
                fault.times -= 1
                time.sleep(fault.seconds)
                return fault
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _answer(self, code: int, found: Object) -> None:
        content = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _route(self, path: str) -> tuple[int, Object] | None:
        if path in _REVIEWS and self.command == "POST":
            return self._review(_REVIEWS[path])
        if path == "/version":
            return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.1"}
        if (discovery := _DISCOVERY.fullmatch(path)) and self.command == "GET":
            return self._discover(discovery)
        route = _ROUTE.fullmatch(path)
        if route is None:
            raise _not_found()
        self.plural, self.name = route["plural"], route["name"]
        verb = self._verb()
        resource = f"{self.plural}/log" if route["log"] else self.plural
        self.cluster.requests.append((verb, resource))
        # Rights come first: who has none does not learn what there is.
        if (verb, resource) in self.cluster.denied or route["namespace"] not in ("team-a", None):
            where = f'in the namespace "{route["namespace"]}"' if route["namespace"] else "at the cluster scope"
            message = f'{resource} is forbidden: User "step" cannot {verb} resource "{resource}" {where}'
            raise Refused(403, "Forbidden", message)
        if not self._served(route["group"] or "v1", self.plural, bool(route["namespace"])):
            raise _not_found()
        if route["log"]:
            return self._log()
        if self.plural in catalogue.KINDS:
            return self._show(verb)
        return getattr(self, f"_{verb}")()

    def _served(self, group_version: str, plural: str, namespaced: bool) -> bool:
        """Whether there is such a kind, in a version that the cluster serves; its objects are the same in all."""
        known = {name: (group, True) for name, (group, _) in KINDS.items()}
        known |= {name: (group, scoped) for name, (group, _, scoped) in catalogue.KINDS.items()}
        if plural in self.cluster.absent or plural not in known:
            return False
        group, _, version = group_version.rpartition("/")
        own_group = known[plural][0].rpartition("/")[0]
        scoped = known[plural][1] and plural != "namespaces"
        versions = self.cluster.served.get(group, []) if group else ["v1"]
        return (group, namespaced) == (own_group, scoped) and version in versions

    def _review(self, kind: str) -> tuple[int, Object]:
        group = "authorization.k8s.io/v1" if kind == "SelfSubjectAccessReview" else "authentication.k8s.io/v1"
        if (self.body.get("apiVersion", group), self.body.get("kind", kind)) != (group, kind):
            raise Refused(400, "BadRequest", f"the object provided is no {group}/{kind}")
        if kind == "SelfSubjectReview":
            return 201, self.body | {"status": {"userInfo": {"username": "step"}}}
        wanted = (self.body.get("spec") or {}).get("resourceAttributes")
        if not wanted:
            message = "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or"
            raise Refused(422, "Invalid", f"{message} resourceAttributes must be specified")
        resource = "/".join(filter(None, [wanted["resource"], wanted.get("subresource")]))
        allowed = (wanted["verb"], resource) not in self.cluster.denied
        allowed = allowed and wanted.get("namespace") in ("team-a", None)
        return 201, self.body | {"status": {"allowed": allowed}}

    def _discover(self, asked: re.Match[str]) -> tuple[int, Object]:
        group, version = asked["group"], asked["version"] or "v1"
        versions = self.cluster.served.get(group, []) if group else ["v1"]
        if not versions or ((asked["version"] or asked["core"]) and version not in versions):
            raise _not_found()
        if group and not asked["version"]:
            found = [{"groupVersion": f"{group}/{each}", "version": each} for each in versions]
            return 200, {"kind": "APIGroup", "name": group, "versions": found, "preferredVersion": found[0]}
        place = f"{group}/{version}" if group else version
        plurals = [
            each for each in [*KINDS, *catalogue.KINDS] if any(self._served(place, each, s) for s in (True, False))
        ]
        return 200, {
            "kind": "APIResourceList",
            "groupVersion": place,
            "resources": [{"name": each} for each in plurals],
        }

    def _show(self, verb: str) -> tuple[int, Object]:
        if verb == "get":
            return 200, catalogue.one(self.cluster, self.plural, self.name)
        if verb != "list":
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        group, kind, _ = catalogue.KINDS[self.plural]
        items = list(catalogue.objects(self.cluster, self.plural).values())
        return 200, {"apiVersion": group, "kind": f"{kind}List", "metadata": {"resourceVersion": "1"}, "items": items}

    def _verb(self) -> str:
        if self.command == "GET":
            if self.name:
                return "get"
            return "watch" if self.query.get("watch") in ("true", "1") else "list"
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[self.command]

    def _get(self) -> tuple[int, Object]:
        return 200, self.cluster.store.get(self.plural, self.name)

    def _list(self) -> tuple[int, Object]:
        store = self.cluster.store
        with store.changed:
            found = [each for each in store.all(self.plural) if self._selected(each)]
            metadata = {"resourceVersion": str(store.version)}
        group, kind = KINDS[self.plural]
        return 200, {"apiVersion": group, "kind": f"{kind}List", "metadata": metadata, "items": found}

    def _create(self) -> tuple[int, Object]:
        group, kind = KINDS[self.plural]
        if self.plural in validation.FILES:
            validation.check_object(self.body, self.plural, group, kind, self.query.get("fieldValidation") == "Strict")
        if "resourceVersion" in self.body["metadata"]:
            raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        return 201, self.cluster.store.add(self.plural, self.cluster.admit(self.plural, self.body))

    def _update(self) -> tuple[int, Object]:
        found = self.cluster.store.get(self.plural, self.name)
        version = self.body["metadata"].get("resourceVersion")
        if not version:
            message = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            raise Refused(422, "Invalid", message)
        if version != found["metadata"]["resourceVersion"]:
            raise Refused(
                409, "Conflict", "the object has been modified; please apply your changes to the latest version"
            )
        return 200, self.cluster.store.change(self.plural, self.name, lambda each: each.update(self.body))

    def _patch(self) -> tuple[int, Object]:
        if self.headers["Content-Type"] != "application/merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        self.cluster.store.get(self.plural, self.name)
        return 200, self.cluster.store.change(self.plural, self.name, lambda each: _merge(each, self.body))

    def _delete(self) -> tuple[int, Object]:
        found = self.cluster.store.get(self.plural, self.name)
        uid = (self.body.get("preconditions") or {}).get("uid")
        if uid and uid != found["metadata"]["uid"]:
            raise Refused(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        if self.plural == "pods":
            self.cluster.delete_pod(self.name)
        else:
            self.cluster.delete_job(self.plural, self.name)
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _watch(self) -> None:
        store, group_kind = self.cluster.store, KINDS[self.plural]
        version = int(self.query.get("resourceVersion") or 0)
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old resource version: {version}"}
        if version < store.oldest:
            _Handler.streams += 1
            if _Handler.streams % 2:  # both ways exist
                raise Refused(410, "Expired", gone["message"])
            self._stream(iter([json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"]))
        else:
            self._stream(self._changes(version, group_kind))

    def _changes(self, version: int, group_kind: tuple[str, str]) -> Iterator[bytes | None]:
        store = self.cluster.store
        end = time.monotonic() + float(self.query.get("timeoutSeconds", 300))
        bookmark = time.monotonic() + _BOOKMARK_SECONDS
        while time.monotonic() < end:
            with store.changed:
                entries = [each for each in store.history if each.version > version]
                if not entries:
                    store.changed.wait(0.05)
            for each in entries:
                version = each.version
                if each.plural == self.plural and self._selected(each.found):
                    yield json.dumps({"type": each.type, "object": each.found}).encode() + b"\n"
            if self.query.get("allowWatchBookmarks") == "true" and time.monotonic() > bookmark:
                bookmark = time.monotonic() + _BOOKMARK_SECONDS
                mark = {"apiVersion": group_kind[0], "kind": group_kind[1]}
                mark_meta = {"metadata": {"resourceVersion": str(version)}}
                yield json.dumps({"type": "BOOKMARK", "object": mark | mark_meta}).encode() + b"\n"
            yield None

    def _log(self) -> None:
        pod = self.cluster.store.get("pods", self.name)
        container = self.cluster.containers.get(pod["metadata"]["uid"])
        with self.cluster.store.changed:
            logs, waiting = (list(container.logs), container.waiting) if container else ([], False)
        wanted = -2 if self.query.get("previous") == "true" else -1
        if wanted == -2 and waiting:
            wanted = -1  # between two starts the newest log is the previous one too
        if len(logs) < -wanted:
            which = "previous terminated container" if wanted == -2 else "container"
            message = f'{which} "{self.query["container"]}" in pod "{self.name}" is waiting to start'
            raise Refused(400, "BadRequest", message)
        since = self.query.get("sinceTime", "")[:19].encode()  # the node rounds down to the second
        self._stream(self._lines(logs[wanted], since, self.query.get("follow") == "true"))

    def _lines(self, log: Any, since: bytes, follow: bool) -> Iterator[bytes | None]:
        done = 0
        while True:
            with self.cluster.store.changed:
                lines, ended = log.lines[done:], log.ended
                if not lines and follow and not ended:
                    self.cluster.store.changed.wait(0.05)
            done += len(lines)
            for line in lines:
                if line[:19] >= since:
                    yield line if self.query.get("timestamps") == "true" else line.partition(b" ")[2]
            if not lines and (ended or not follow):
                return
            yield None

    def _stream(self, pieces: Iterator[bytes | None]) -> None:
        """Send pieces as they come; None only gives a chance to break."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        follows = self.query.get("follow") == "true" or "watch" in self.query
        start = time.monotonic()
        for piece in pieces:
            if self.server.closing:  # type: ignore[attr-defined]
                return self._hang_up()
            if follows and time.monotonic() - start > (self.cluster.stream_seconds or 10**6):
                return self._cut(piece)
            if piece:
                self._chunk(piece)
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def _cut(self, piece: bytes | None) -> None:
        """Break off: in the middle of a line, or as if it were the end, in turn."""
        _Handler.streams += 1
        if piece:
            self._chunk(piece[: len(piece) // 2])
        if _Handler.streams % 2:
            return self._hang_up()
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _selected(self, found: Object) -> bool:
        labels = found["metadata"].get("labels") or {}
        for term in filter(None, self.query.get("labelSelector", "").split(",")):
            name, _, value = term.partition("=")
            if labels.get(name) != value:
                return False
        for term in filter(None, self.query.get("fieldSelector", "").split(",")):
            name, _, value = term.partition("=")
            if name != "metadata.name":  # custom resources have no other
                raise Refused(400, "BadRequest", f"field label not supported: {name}")
            if found["metadata"]["name"] != value:
                return False
        return True


def _not_found() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource")


def _merge(found: Object, patch: Object) -> None:
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict):
            _merge(found.setdefault(name, {}), value)
        else:
            found[name] = value
