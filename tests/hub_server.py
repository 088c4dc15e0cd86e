"""A stand-in for the Hugging Face hub over real HTTP on loopback: repositories, LFS files on another host, faults.

It answers as the hub does in what huggingface_hub reads: ``/api/{models,datasets}/<name>/revision/<revision>`` and
``[/datasets]/<name>/resolve/<revision>/<file>``. LFS files redirect to a second server, as the hub's do to its CDN.
"""

import hashlib
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

_BLOCK = 1 << 18
_API = re.compile(r"/api/(models|datasets)/(.+?)/revision/([^/]+)")
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """A repository: a folder of files at one commit, and the branches that point there.

    Of a gated one nothing is open without the right token; with ``page_open`` its list of files is, as on the hub.
    """

    folder: Path
    commit: str
    branches: tuple[str, ...] = ("main",)
    lfs: tuple[str, ...] = (".safetensors", ".parquet")
    gated: bool = False
    page_open: bool = False


@dataclass
class Fault:
    """What happens instead, the next ``times`` times that a path with ``part`` is asked for.

    ``status`` answers with it; ``cut`` closes the connection after so many bytes of the file; ``flip`` changes a byte.
    """

    part: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    flip: bool = False
    times: int = 1


class Hub:
    """The running stand-in: its address, its repositories and what was asked of it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        self.url = self.cdn_url = ""
        self.ranges = True
        self._hashes: dict[tuple[Path, int], tuple[str, str]] = {}

    def asked(self, part: str) -> list[tuple[str, str, str | None, str | None]]:
        """Return (server, path, Authorization, Range) of the requests whose path has ``part``."""
        return [request for request in self.requests if part in request[1]]

    def fault(self, path: str) -> Fault | None:
        """Take the next fault that is planned for a path."""
        for fault in self.faults:
            if fault.part in path and fault.times:
                fault.times -= 1
                return fault
        return None

    def hashes(self, path: Path) -> tuple[str, str]:
        """Return a file's SHA-256 and its git object id."""
        key = (path, path.stat().st_mtime_ns)
        if key not in self._hashes:
            sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    sha256.update(block)
                    blob.update(block)
            self._hashes[key] = sha256.hexdigest(), blob.hexdigest()
        return self._hashes[key]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run the hub and its CDN while the body runs."""
    hub = Hub()
    servers = [
        _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "server_name": n})) for n in ("hub", "cdn")
    ]
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *request: object) -> None:
        """Say nothing where the client leaves early, as it does when it refuses a file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*request)  # type: ignore[arg-type]


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    server_name: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.server_name, path, self.headers["Authorization"], self.headers["Range"]))
        fault = self.hub.fault(path)
        if fault and fault.status:
            self._answer(fault.status, b"{}", fault.headers)
        elif api := _API.fullmatch(path):
            self._api(api[1], api[2], api[3])
        elif self.server_name == "cdn":
            self._send(Path(path), fault)
        elif resolve := _RESOLVE.fullmatch(path):
            self._resolve(("datasets" if resolve[1] else "models"), resolve[2], resolve[3], resolve[4], fault)
        else:
            self._answer(404, b"Not Found")

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def _repo(self, kind: str, name: str, revision: str, page: bool = False) -> Repo | None:
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repo.gated and not (page and repo.page_open) and self.headers["Authorization"] != "Bearer hf_good":
            self._answer(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif revision not in (repo.commit, *repo.branches):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        else:
            return repo
        return None

    def _api(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name, revision, page=True)
        if repo is None:
            return
        siblings = []
        for path in sorted(p for p in repo.folder.rglob("*") if p.is_file()):
            sha256, blob = self.hub.hashes(path)
            entry = {"rfilename": path.relative_to(repo.folder).as_posix(), "size": path.stat().st_size, "blobId": blob}
            if path.name.endswith(repo.lfs):
                entry["lfs"] = {"sha256": sha256, "size": path.stat().st_size, "pointerSize": 134}
            siblings.append(entry)
        answer = {"_id": "1", "id": name, "sha": repo.commit, "siblings": siblings, "tags": [], "private": False}
        answer["gated"] = "manual" if repo.gated else False
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _resolve(self, kind: str, name: str, revision: str, file: str, fault: Fault | None) -> None:
        repo = self._repo(kind, name, revision)
        if repo is None:
            return
        path = repo.folder / file
        if not path.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        elif path.name.endswith(repo.lfs):
            self._answer(302, b"", {"Location": f"{self.hub.cdn_url}{path}"})
        else:
            self._send(path, fault)

    def _send(self, path: Path, fault: Fault | None) -> None:
        size, start = path.stat().st_size, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked and self.hub.ranges:
            start = int(asked[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        left = size - start if fault is None or fault.cut is None else min(fault.cut, size - start)
        with path.open("rb") as file:
            file.seek(start)
            while left > 0 and (block := file.read(min(_BLOCK, left))):
                left -= len(block)
                self.wfile.write(block[:-1] + bytes([block[-1] ^ 1]) if fault and fault.flip else block)
        if fault and fault.cut is not None:
            self.wfile.flush()
            self.close_connection = True

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
