"""The routes over HTTP, the things behind them, and the ways in which they can fail."""

import email
import email.policy
import json
import re
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from tests.fake_kfp.checks import Refused, check_body, check_cron, check_parameters, filter_of, parsed_package

_API = "/apis/v2beta1"
Row = dict[str, Any]
# lost: it is done, and the connection breaks before the answer; gone: the connection breaks at once.
Kind = Literal["lost", "gone", "page", "redirect"]


@dataclass
class Fault:
    """A rule: which requests go wrong, how, and how often."""

    method: str
    path: str
    kind: Kind | int
    times: int


class FakeKfp:
    """A server with one user or several.

    Attributes:
        multi_user: Whether everything belongs to a namespace.
        token: That requests must carry; empty: anybody is let in.
        namespaces: In which the user may work.
        pipelines, versions, experiments, runs, recurring: What was made, by id.
        script: The states that a run shows at one look after another; the last one stays.
        tasks: Name and state of the run's tasks.
        requests: Method and path of each request.
    """

    def __init__(self, multi_user: bool = False, token: str = "", namespaces: tuple[str, ...] = ("team",)) -> None:
        self.multi_user = multi_user
        self.token = token
        self.namespaces = namespaces
        self.pipelines: dict[str, Row] = {}
        self.versions: dict[str, Row] = {}
        self.experiments: dict[str, Row] = {}
        self.runs: dict[str, Row] = {}
        self.recurring: dict[str, Row] = {}
        self.script = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.tasks: list[tuple[str, str]] = []
        self.requests: list[tuple[str, str]] = []
        self.packages: list[str] = []
        self.old = False
        self._faults: list[Fault] = []
        self._looks: dict[str, int] = {}
        self._lock = threading.RLock()
        handler = type("Bound", (_Handler,), {"server_state": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fault(self, method: str, path: str, kind: Kind | int, times: int = 1) -> None:
        """Let the next requests of a method to paths that match go wrong; a number is an HTTP status."""
        self._faults.append(Fault(method, path, kind, times))

    def faulty(self, method: str, path: str) -> Fault | None:
        """The fault that a request gets, which is used up by it."""
        with self._lock:
            for each in self._faults:
                if each.times and each.method == method and re.search(each.path, path):
                    each.times -= 1
                    return each
        return None

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Row:
        """What a request is answered."""
        with self._lock:
            for route, serve in self._routes():
                verb, pattern = route.split(" ", 1)
                found = re.fullmatch(_API + pattern, path)
                if verb == method and found:
                    return serve(query, body, *found.groups())
        raise Refused(404, "Not Found")

    def _routes(self) -> list[tuple[str, Any]]:
        return [
            ("GET /healthz", self._healthz),
            ("GET /pipelines", lambda q, _: self._listed("pipelines", self.pipelines, q)),
            ("POST /pipelines", self._create_pipeline),
            ("POST /pipelines/upload_version", self._upload),
            ("GET /pipelines/([^/]+)/versions", self._list_versions),
            ("GET /experiments", lambda q, _: self._listed("experiments", self.experiments, q)),
            ("POST /experiments", self._create_experiment),
            ("GET /runs", lambda q, _: self._listed("runs", self.runs, q)),
            ("POST /runs", self._create_run),
            ("GET /runs/([^/:]+)", self._get_run),
            ("GET /recurringruns", lambda q, _: self._listed("recurringRuns", self.recurring, q)),
            ("POST /recurringruns", self._create_recurring),
            ("DELETE /recurringruns/([^/:]+)", self._delete_recurring),
            ("POST /recurringruns/([^/:]+):(enable|disable)", self._switch),
        ]

    def _healthz(self, *_: Any) -> Row:
        if self.old:
            raise Refused(404, "Not Found")
        return {"multi_user": self.multi_user, "pipeline_store": "database"}

    def _create_pipeline(self, _: Any, body: Row) -> Row:
        check_body(body, "V2beta1Pipeline")
        namespace = self._namespace(body.get("namespace", ""), "create", "pipelines")
        self._require_name(body)
        for each in self.pipelines.values():
            if each["display_name"] == body["display_name"] and each["namespace"] == namespace:
                raise Refused(409, f"The name {body['display_name']} already exist. Please specify a new name.")
        return self._kept(self.pipelines, "pipeline_id", {**body, "namespace": namespace})

    def _upload(self, query: dict[str, str], package: str) -> Row:
        pipeline = self._one(self.pipelines, query.get("pipelineid", ""))
        self._namespace(pipeline["namespace"], "create", "pipelines")
        spec = parsed_package(package)
        name = query.get("name", "")
        for each in self.versions.values():
            if each["display_name"] == name and each["pipeline_id"] == pipeline["pipeline_id"]:
                # The real upload route says every refusal of its database as 500.
                raise Refused(500, f"Failed to create a pipeline version: the name {name} already exist.")
        self.packages.append(package)
        row = {"pipeline_id": pipeline["pipeline_id"], "display_name": name, "name": name, "pipeline_spec": spec}
        return self._kept(self.versions, "pipeline_version_id", row | {"description": query.get("description", "")})

    def _list_versions(self, query: dict[str, str], _: Any, pipeline_id: str) -> Row:
        self._one(self.pipelines, pipeline_id)
        chosen = filter_of(query.get("filter", ""), {"display_name", "name"})
        rows = [row for row in self.versions.values() if row["pipeline_id"] == pipeline_id and chosen(row)]
        return {"pipeline_versions": rows, "total_size": len(rows)}

    def _create_experiment(self, _: Any, body: Row) -> Row:
        check_body(body, "V2beta1Experiment")
        namespace = self._namespace(body.get("namespace", ""), "create", "experiments")
        self._require_name(body)
        for each in self.experiments.values():
            if each["display_name"] == body["display_name"] and each["namespace"] == namespace:
                raise Refused(409, f"Experiment {body['display_name']} already exists.")
        return self._kept(
            self.experiments, "experiment_id", {**body, "namespace": namespace, "storage_state": "AVAILABLE"}
        )

    def _create_run(self, _: Any, body: Row) -> Row:
        check_body(body, "V2beta1Run")
        self._require_unset(body, ("run_id", "state", "created_at", "plugins_output"))
        return self._kept(self.runs, "run_id", self._checked(body, "runs") | {"state": "PENDING"})

    def _get_run(self, _: Any, __: Any, run_id: str) -> Row:
        row = self._one(self.runs, run_id)
        self._namespace(row["namespace"], "get", "runs")
        look = self._looks[run_id] = self._looks.get(run_id, -1) + 1
        row["state"] = self.script[min(look, len(self.script) - 1)]
        if self.tasks:
            row["run_details"] = {"task_details": [{"display_name": n, "state": s} for n, s in self.tasks]}
        return row

    def _create_recurring(self, _: Any, body: Row) -> Row:
        check_body(body, "V2beta1RecurringRun")
        self._require_unset(body, ("recurring_run_id", "status", "created_at"))
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise Refused(400, "Invalid input error: The max concurrency of the recurring run is out of range.")
        check_cron(body["trigger"]["cron_schedule"]["cron"])
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        return self._kept(self.recurring, "recurring_run_id", self._checked(body, "jobs") | {"status": status})

    def _delete_recurring(self, _: Any, __: Any, identity: str) -> Row:
        self._one(self.recurring, identity)
        del self.recurring[identity]
        return {}

    def _switch(self, _: Any, __: Any, identity: str, verb: str) -> Row:
        self._one(self.recurring, identity)["status"] = f"{verb.upper()}D"
        return {}

    def _checked(self, body: Row, plural: str) -> Row:
        """A run or a schedule that could be started."""
        self._require_name(body)
        experiment = self._one(self.experiments, body.get("experiment_id", ""))
        namespace = self._namespace(experiment["namespace"], "create", plural)
        reference = body.get("pipeline_version_reference") or {}
        version = self._one(self.versions, reference.get("pipeline_version_id", ""))
        if version["pipeline_id"] != reference.get("pipeline_id"):
            raise Refused(400, "Invalid input error: the version is of another pipeline")
        check_parameters(version["pipeline_spec"], body.get("runtime_config", {}).get("parameters", {}))
        return {**body, "namespace": namespace}

    def _listed(self, key: str, rows: dict[str, Row], query: dict[str, str]) -> Row:
        experiment = query.get("experiment_id", "")
        if experiment:
            self._one(self.experiments, experiment)
            inside = [row for row in rows.values() if row.get("experiment_id") == experiment]
        else:
            namespace = self._namespace(query.get("namespace", ""), "list", key.lower())
            inside = [row for row in rows.values() if row["namespace"] == namespace]
        found = [row for row in inside if filter_of(query.get("filter", ""), {"display_name"})(row)]
        start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)
        page: Row = {key: found[start : start + size], "total_size": len(found)}
        return page | ({"next_page_token": str(start + size)} if len(found) > start + size else {})

    def _namespace(self, namespace: str, verb: str, plural: str) -> str:
        if not self.multi_user:
            if namespace:
                raise Refused(400, "Invalid input error: In single-user mode, the namespace must be empty.")
            return ""
        if not namespace:
            raise Refused(400, "Invalid input error: A resource cannot have an empty namespace in multi-user mode.")
        if namespace not in self.namespaces:
            raise Refused(
                403, f"User 'ada@example.org' is not authorized with reason: (request: {verb} {plural} in {namespace})"
            )
        return namespace

    def _one(self, rows: dict[str, Row], identity: str) -> Row:
        if identity not in rows:
            raise Refused(404, f"Resource not found: {identity}")
        return rows[identity]

    def _kept(self, rows: dict[str, Row], key: str, row: Row) -> Row:
        identity = str(uuid.uuid4())
        rows[identity] = {**row, key: identity, "created_at": datetime.now(UTC).isoformat()}
        return rows[identity]

    def _require_name(self, body: Row) -> None:
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: The name is empty. Please specify a valid name.")

    def _require_unset(self, body: Row, names: tuple[str, ...]) -> None:
        for name in names:
            if name in body:
                raise Refused(400, f"Invalid input error: {name} is the server's to set")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FakeKfp

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        state, address = self.server_state, urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state.requests.append((self.command, address.path))
        fault = state.faulty(self.command, address.path)
        if fault is not None and self._failed(fault.kind):
            return
        try:
            self._require_login()
            query = {key: values[-1] for key, values in parse_qs(address.query).items()}
            answer, status = state.answer(self.command, address.path, query, self._body(raw)), 200
        except Refused as refusal:
            answer, status = {"error": refusal.message, "code": 3, "message": refusal.message}, refusal.status
        if fault is not None and fault.kind == "lost":
            self.close_connection = True
            return
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _failed(self, kind: Kind | int) -> bool:
        if kind == "gone":
            self.close_connection = True
        elif kind == "page":
            self._send(200, b"<!doctype html><title>Log in to dex</title>", "text/html; charset=utf-8")
        elif kind == "redirect":
            self._send(302, b"", "text/html", Location="https://dex.example.org/auth")
        elif isinstance(kind, int):
            self._send(kind, json.dumps({"message": "no healthy upstream"}).encode(), "application/json")
        return kind != "lost"

    def _require_login(self) -> None:
        token = self.server_state.token
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            raise Refused(401, "Request header error: there is no user identity header.")

    def _body(self, raw: bytes) -> Any:
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data"):
            return json.loads(raw) if raw else None
        header = f"Content-Type: {kind}\r\n\r\n".encode()
        message = email.message_from_bytes(header + raw, policy=email.policy.HTTP)
        for part in message.iter_parts():  # type: ignore[attr-defined]
            if part.get_param("name", header="content-disposition") == "uploadfile":
                return part.get_payload(decode=True).decode()
        raise Refused(400, "Failed to read the pipeline from form: there is no uploadfile")

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
