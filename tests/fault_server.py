"""An S3 bucket over real HTTP on loopback, made of a folder, which can be told to misbehave.

    with FaultServer(folder) as server:
        server.fault(r"\\.xml$", "reset", times=2)   # each XML breaks off twice, then comes
        ... read from server.endpoint, bucket server.bucket ...
        assert server.counts["reset"] == ...

Path-style addresses, HTTP/1.1 with keep-alive: GET and HEAD of objects (ranges, If-Match, If-None-Match), PUT, and
ListObjectsV2. Anyone may read and write. By hand: ``python -m tests.fault_server FOLDER [--port 9000]``.
"""

import argparse
import asyncio
import contextlib
import hashlib
import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

Kind = Literal[
    "status", "slow_down", "not_found", "reset", "truncate", "stall", "stall_before", "wrong_bytes", "content", "late"
]

REASONS = {
    200: "OK", 206: "Partial Content", 301: "Moved Permanently", 304: "Not Modified", 400: "Bad Request",
    403: "Forbidden", 404: "Not Found", 412: "Precondition Failed", 416: "Range Not Satisfiable",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Slow Down",
}  # fmt: skip
CODES = {
    301: "PermanentRedirect", 400: "InvalidRequest", 403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed",
    416: "InvalidRange", 500: "InternalError", 501: "NotImplemented", 503: "SlowDown",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request as the server saw it; ``played`` names the fault it got, if any."""

    time: float
    method: str
    key: str
    status: int
    played: str
    headers: dict[str, str]


@dataclass
class Fault:
    """A rule: which keys go wrong, how, and how often; see `FaultServer.fault`."""

    pattern: re.Pattern[str]
    kind: Kind
    times: int | None
    total: int | None
    methods: tuple[str, ...]
    status: int
    retry_after: float | None
    content: bytes
    seconds: float
    played: Counter[str] = field(default_factory=Counter)

    def takes(self, method: str, key: str) -> bool:
        """Say whether this request goes wrong, and count it."""
        if method not in self.methods or not self.pattern.search(key):
            return False
        if self.times is not None and self.played[key] >= self.times:
            return False
        if self.total is not None and self.played.total() >= self.total:
            return False
        self.played[key] += 1
        return True


@dataclass
class _Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


class FaultServer:
    """Serves ``folder`` as the bucket ``bucket`` until the ``with`` block ends.

    Attributes:
        requests: The newest 200,000 requests, in the order they were answered.
        counts: How many got each status, and how many each kind of fault.
        most_concurrent: Most requests that were open at a time (most are answered at once: give it a ``latency``).
        connections: Connections accepted.
    """

    def __init__(self, folder: Path, bucket: str = "pmc-oa-opendata", port: int = 0, latency: float = 0.0) -> None:
        self.folder = Path(folder)
        self.bucket = bucket
        self.latency = latency
        self.requests: deque[Request] = deque(maxlen=200_000)
        self.counts: Counter[str] = Counter()
        self.most_concurrent = 0
        self.connections = 0
        self._faults: list[Fault] = []
        self._limit: _Limit | None = None
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", port), backlog=2048)
        self._thread = threading.Thread(target=self._serve, name="fault-server", daemon=True)

    @property
    def endpoint(self) -> str:
        """``http://127.0.0.1:port``, without the bucket."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def fault(
        self,
        pattern: str,
        kind: Kind,
        times: int | None = None,
        *,
        total: int | None = None,
        methods: tuple[str, ...] = ("GET",),
        status: int = 500,
        retry_after: float | None = None,
        content: bytes = b"",
        seconds: float = 1.0,
    ) -> Fault:
        """Let requests go wrong from now on; of several rules the first that holds is played.

        Args:
            pattern: Searched in the key; listing has the key ``?list:<prefix>``.
            kind: ``status`` answers ``status``; ``slow_down`` 503 SlowDown (with ``Retry-After`` where ``retry_after``
                says so); ``not_found`` 404; ``reset`` breaks the connection amid the body; ``truncate`` promises more
                than it sends and closes; ``stall`` sends half of the body and then nothing; ``stall_before`` sends
                nothing at all; ``wrong_bytes`` a body of the right length with flipped bits; ``content`` the bytes of
                ``content``; ``late`` the right answer after ``seconds``.
            times: So many times for each key; None for ever.
            total: So many times over all keys; None for ever.
            methods: HTTP methods that the rule is for.
            status: See ``kind``.
            retry_after: Seconds of the ``Retry-After`` header.
            content: See ``kind``.
            seconds: See ``kind``.
        """
        rule = Fault(re.compile(pattern), kind, times, total, methods, status, retry_after, content, seconds)
        self._faults.append(rule)
        return rule

    def heal(self) -> None:
        """Forget every fault and limit."""
        self._faults.clear()
        self._limit = None

    def limit(self, requests_per_second: float, retry_after: float | None = None, burst: float | None = None) -> None:
        """Answer 503 SlowDown to what comes faster; ``burst`` requests (a tenth of a second's) may come at once."""
        self._limit = _Limit(requests_per_second, burst or max(requests_per_second / 10, 1), retry_after)

    def forget(self) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.counts.clear()
        self.most_concurrent = 0

    def keys(self, method: str = "GET", status: int | None = None) -> list[str]:
        """Return the keys that were asked for, in order, listings excepted."""
        return [
            each.key
            for each in list(self.requests)
            if each.method == method and not each.key.startswith("?") and status in (None, each.status)
        ]

    def __enter__(self) -> "FaultServer":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, sock=self._socket, limit=65536))
        self._loop.call_soon(self._ready.set)
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._answer_next(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _answer_next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read a request and answer it; returns whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self._open += 1
        self.most_concurrent = max(self.most_concurrent, self._open)
        try:
            return await self._answer(method, target, headers, body, writer)
        finally:
            self._open -= 1

    async def _answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        if self.latency:
            await asyncio.sleep(self.latency)
        path, _, query = target.partition("?")
        bucket, _, key = unquote(path).removeprefix("/").partition("/")
        arguments = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        if method == "GET" and not key:
            key = f"?list:{arguments.get('prefix', '')}"
        if self._limit is not None and not self._limit.admits(time.monotonic()):
            answer = _error(503, key) if self._limit.retry_after is None else _slow_down(key, self._limit.retry_after)
            return await self._send(writer, method, key, headers, answer, "limit")
        if bucket != self.bucket:
            return await self._send(writer, method, key, headers, _error(404, key, "NoSuchBucket"))
        rule = next((rule for rule in self._faults if rule.takes(method, key)), None)
        if rule is None:
            return await self._send(writer, method, key, headers, self._right(method, key, arguments, headers, body))
        return await self._misbehave(rule, writer, method, key, headers, arguments, body)

    def _right(self, method: str, key: str, arguments: dict[str, str], headers: dict[str, str], body: bytes) -> _Answer:
        if key.startswith("?list:"):
            return self._list(arguments)
        if not key and method == "HEAD":
            return _Answer(200)
        if ".." in key.split("/") or method not in ("GET", "HEAD", "PUT"):
            return _error(501 if method not in ("GET", "HEAD", "PUT") else 400, key)
        return self._put(key, body) if method == "PUT" else self._get(key, headers)

    def _get(self, key: str, headers: dict[str, str]) -> _Answer:
        path = self.folder / key
        try:
            body = path.read_bytes()
            state = path.stat()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return _error(404, key)
        etag = f'"{_md5(str(path), state.st_mtime_ns, state.st_size)}"'
        if headers.get("if-match", etag) not in (etag, "*"):
            return _error(412, key)
        if headers.get("if-none-match") in (etag, "*"):
            return _Answer(304, headers={"ETag": etag})
        found = {
            "ETag": etag,
            "Last-Modified": formatdate(state.st_mtime, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Type": "binary/octet-stream",
        }
        return _ranged(body, found, headers.get("range", ""), key)

    def _put(self, key: str, body: bytes) -> _Answer:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return _Answer(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def _list(self, arguments: dict[str, str]) -> _Answer:
        prefix, delimiter = arguments.get("prefix", ""), arguments.get("delimiter", "")
        after = arguments.get("continuation-token", arguments.get("start-after", ""))
        most = int(arguments.get("max-keys", 1000))
        names: list[str] = []
        for key in self._keys_below(prefix, delimiter):
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            name = prefix + head + delimiter if found else key
            if name > after and (not names or names[-1] != name):
                names.append(name)
        page, rest = names[:most], names[most:]
        return _Answer(200, _listing(self.bucket, prefix, page, bool(rest), self.folder, delimiter))

    def _keys_below(self, prefix: str, delimiter: str) -> list[str]:
        """Return the keys with that prefix, in order; with a delimiter of a slash one key per folder is enough."""
        folder = self.folder / prefix.rpartition("/")[0]
        if not folder.is_dir():
            return []
        if delimiter == "/":
            found = [f"{each.name}/" if each.is_dir() else each.name for each in folder.iterdir()]
            keys = [(folder.relative_to(self.folder) / name).as_posix() + "/" * name.endswith("/") for name in found]
        else:
            keys = [each.relative_to(self.folder).as_posix() for each in folder.rglob("*") if each.is_file()]
        return sorted(key for key in keys if key.startswith(prefix))

    async def _misbehave(
        self,
        rule: Fault,
        writer: asyncio.StreamWriter,
        method: str,
        key: str,
        headers: dict[str, str],
        arguments: dict[str, str],
        body: bytes,
    ) -> bool:
        kind = rule.kind
        if kind == "stall_before":
            self._log(method, key, 0, kind, headers)
            await _for_ever()
        if kind == "late":
            await asyncio.sleep(rule.seconds)
        answer = self._right(method, key, arguments, headers, body)
        if kind == "status":
            answer = _error(rule.status, key)
        if kind == "not_found":
            answer = _error(404, key)
        if kind == "slow_down":
            answer = _error(503, key) if rule.retry_after is None else _slow_down(key, rule.retry_after)
        if kind == "content":
            answer = _Answer(200, rule.content)
        if kind == "wrong_bytes":
            answer.body = bytes(byte ^ 0x01 for byte in answer.body[:64]) + answer.body[64:]
        if kind not in ("reset", "truncate", "stall"):
            return await self._send(writer, method, key, headers, answer, kind)
        answer.length, answer.body = len(answer.body), answer.body[: len(answer.body) // 2]
        await self._send(writer, method, key, headers, answer, kind)
        if kind == "stall":
            await _for_ever()
        if kind == "reset":
            # A linger time of zero makes the close a reset (RST) in place of an end (FIN).
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return False

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        key: str,
        headers: dict[str, str],
        answer: _Answer,
        played: str = "",
    ) -> bool:
        self._log(method, key, answer.status, played, headers)
        length = len(answer.body) if answer.length is None else answer.length
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}"]
        # A 304 has no body, and no length.
        lines += [f"Content-Length: {length}"] * (answer.status != 304)
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        head = ("\r\n".join([*lines, "Date: " + formatdate(usegmt=True), "Server: FaultServer"]) + "\r\n\r\n").encode()
        writer.write(head if method == "HEAD" or answer.status == 304 else head + answer.body)
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    def _log(self, method: str, key: str, status: int, played: str, headers: dict[str, str]) -> None:
        self.requests.append(Request(time.monotonic(), method, key, status, played, headers))
        self.counts[str(status)] += 1
        if played:
            self.counts[played] += 1


class _Limit:
    """A token bucket."""

    def __init__(self, rate: float, burst: float, retry_after: float | None) -> None:
        self.rate, self.burst, self.retry_after = rate, burst, retry_after
        self._tokens, self._since = burst, time.monotonic()

    def admits(self, now: float) -> bool:
        self._tokens = min(self.burst, self._tokens + (now - self._since) * self.rate)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _error(status: int, key: str, code: str = "") -> _Answer:
    code = code or CODES.get(status, "InternalError")
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}</Message>'
        f"<Key>{escape(key)}</Key><RequestId>0123456789ABCDEF</RequestId></Error>"
    )
    return _Answer(status, body.encode(), {"Content-Type": "application/xml"})


def _slow_down(key: str, retry_after: float) -> _Answer:
    answer = _error(503, key)
    answer.headers["Retry-After"] = f"{retry_after:g}"
    return answer


def _ranged(body: bytes, headers: dict[str, str], wanted: str, key: str) -> _Answer:
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if match is None or not any(match.groups()):
        return _Answer(200, body, headers)
    first, last = match.groups()
    start = int(first) if first else max(len(body) - int(last), 0)
    end = min(int(last), len(body) - 1) if first and last else len(body) - 1
    if start > end:
        return _error(416, key)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
    return _Answer(206, body[start : end + 1], headers)


def _listing(bucket: str, prefix: str, page: list[str], more: bool, folder: Path, delimiter: str) -> bytes:
    entries = []
    for name in page:
        if delimiter and name.endswith(delimiter):
            entries.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
            continue
        state = (folder / name).stat()
        modified = datetime.fromtimestamp(state.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        entries.append(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{modified}</LastModified>"
            f"<ETag>&quot;{_md5(str(folder / name), state.st_mtime_ns, state.st_size)}&quot;</ETag>"
            f"<Size>{state.st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        f"<MaxKeys>1000</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(entries)}"
        "</ListBucketResult>"
    ).encode()


@lru_cache(maxsize=100_000)
def _md5(path: str, _modified: int, _size: int) -> str:
    return hashlib.md5(Path(path).read_bytes()).hexdigest()


def main() -> None:
    """Serve a folder until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", default="pmc-oa-opendata")
    options = parser.parse_args()
    with FaultServer(options.folder, options.bucket, options.port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"{server.endpoint}/{server.bucket}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
