"""MLflow is asked as its own client asks; what it answers is what MLflow 3.17's server does, in its own words."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import _UnsupportedMultipartDownloadException
from mlflow.server.security_utils import INVALID_HOST_MSG

from components.common.settings import get_settings
from components.preflight.findings import Finding
from components.preflight.settings import read_situation
from components.preflight.tracking_server import look_at_mlflow
from tests.ports import free_ports

Answer = Callable[[str, str], tuple[int, str]]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    """A server that answers what a test says."""
    servers = []

    def serve(answer: Answer) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, text = answer(self.command, self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_PUT = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        use(monkeypatch, f"http://127.0.0.1:{servers[-1].server_address[1]}")

    yield serve
    for each in servers:
        each.shutdown()
        each.server_close()


def use(monkeypatch: pytest.MonkeyPatch, address: str, experiment: str = "pmc-llama") -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    get_settings.cache_clear()


def look(launcher: str = "local", submitting: bool = False, steps: Any = None) -> dict[str, Finding]:
    found = list(look_at_mlflow(read_situation({}, {"launcher": launcher}, steps or {}, submitting)))
    assert all(bool(each.remedy) == (each.state != "ok") for each in found)
    return {each.subject: each for each in found}


def healthy(location: str, **more: tuple[int, str]) -> Answer:
    """A server of a version that we know, with an experiment whose artifacts are somewhere."""
    experiment = json.dumps({"experiment": {"artifact_location": location, "lifecycle_stage": "active"}})

    def answer(method: str, path: str) -> tuple[int, str]:
        for part, given in more.items():
            if part in path:
                return given
        if path == "/version":
            return 200, "3.17.0"
        if "/mlflow-artifacts/artifacts/" in path:
            return 200, "preflight" if method == "GET" else "{}"
        return 200, experiment

    return answer


def test_a_server_is_asked_to_store_read_and_delete_a_file(fake: Callable[[Answer], None]) -> None:
    seen = []

    def new(method: str, path: str) -> tuple[int, str]:
        seen.append((method, path.rpartition("/.preflight-")[0]))
        if path.endswith("/experiments/get-by-name"):
            return 404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST"})
        return healthy("mlflow-artifacts:/0")(method, path)

    fake(new)
    found = look()
    assert {each.state for each in found.values()} == {"ok"}
    assert found["MLflow"].found.endswith("is MLflow 3.17.0; experiment pmc-llama will be made.")
    folder = "/api/2.0/mlflow-artifacts/artifacts/0"
    assert [method for method, path in seen if path == folder] == ["PUT", "GET", "DELETE"]


def test_a_server_that_does_not_know_its_own_name_is_told_apart(
    fake: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(healthy("s3://b", experiments=(403, INVALID_HOST_MSG)))
    host = get_settings().tracking_uri.removeprefix("http://")
    use(monkeypatch, f"http://user:secret@{host}")
    found = look()["MLflow"]
    assert found.state == "failed" and "secret" not in repr(found)
    assert f"does not know itself by the name {host}" in found.found
    assert f"--allowed-hosts naming {host}" in found.remedy


def test_artifacts_in_an_object_store_behind_the_server_are_seen(fake: Callable[[Answer], None]) -> None:
    signed = json.dumps({"url": "https://s3.example.org/b/k?X-Amz-Signature=abc", "headers": {}})
    fake(healthy("mlflow-artifacts:/1", presigned=(200, signed)))
    found = look("trainjob")["MLflow's artifacts"]
    assert found.state == "ok" and found.found.endswith("in an object store (s3.example.org).")
    assert "abc" not in found.found
    fake(healthy("mlflow-artifacts:/1", presigned=(404, "Not Found")))  # an older server
    assert look("trainjob")["MLflow's artifacts"].state == "unknown"


def test_artifacts_on_the_servers_disk_fail_on_a_cluster(fake: Callable[[Answer], None]) -> None:
    fake(healthy("/mlruns/1"))
    assert look("pytorchjob")["MLflow's artifacts"].state == "failed"
    assert look()["MLflow's artifacts"].state == "ok"
    disk = json.dumps({"message": _UnsupportedMultipartDownloadException.MESSAGE})
    fake(healthy("mlflow-artifacts:/1", presigned=(501, disk)))
    assert "on a disk of its own" in look("pytorchjob")["MLflow's artifacts"].found
    fake(healthy("mlflow-artifacts:/1", artifacts=(500, "AccessDenied")))
    assert look("pytorchjob")["MLflow's artifacts"].found.endswith("500 AccessDenied")
    fake(healthy("gs://bucket/1"))
    assert look("pytorchjob")["MLflow's artifacts"].state == "warning"


def test_answers_that_stop_a_run_say_what_to_do(fake: Callable[[Answer], None]) -> None:
    fake(healthy("s3://b", experiments=(401, "You are not authenticated.")))
    assert "MLFLOW_TRACKING_TOKEN" in look()["MLflow"].remedy
    fake(healthy("s3://b", experiments=(404, "<html>nginx</html>")))
    assert "whether that is an MLflow server" in look()["MLflow"].remedy
    fake(healthy("s3://b", health=(503, "starting")))
    assert "answers 503" in look()["MLflow"].found
    deleted = json.dumps({"experiment": {"artifact_location": "/x", "lifecycle_stage": "deleted"}})
    fake(healthy("/x", experiments=(200, deleted)))
    assert look()["MLflow"].found == "Its experiment pmc-llama is deleted."
    fake(healthy("/x", version=(200, "2.9.1")))
    assert look()["MLflow"].state == "warning"


def test_a_server_that_is_not_there_fails_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"http://user:pa55word@127.0.0.1:{free_ports(1)[0]}")
    found = look()["MLflow"]
    assert found.state == "failed" and "cannot be reached" in found.found
    assert "pa55word" not in repr(found)


def test_a_database_serves_this_machine_and_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"sqlite:///{tmp_path}/mlflow.db")
    assert look()["MLflow"].found.endswith("will be made.")
    sqlite3.connect(tmp_path / "mlflow.db").execute("CREATE TABLE t (a)").connection.close()
    assert look()["MLflow"].state == "ok"
    assert look("pytorchjob")["MLflow"].state == "failed"
    (tmp_path / "mlflow.db").write_text("this is a diary and no database, however long one reads in it")
    assert "file is not a database" in look()["MLflow"].found
    use(monkeypatch, f"sqlite:///{tmp_path}/none/mlflow.db")
    assert "no writable folder" in look()["MLflow"].found


def test_without_an_address_a_run_cannot_register_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look()["MLflow"].state == "failed"
    assert look(submitting=True)["MLflow"].state == "unknown"  # Kubeflow's plugin may set it
    taken = {"config_maps": {"endpoints": ["MLFLOW_TRACKING_URI"]}}
    assert look(submitting=True, steps=taken)["MLflow"].found == (
        "The steps take MLFLOW_TRACKING_URI from config map endpoints."
    )
    use(monkeypatch, "http://pmc-llama-mlflow:5000")
    assert look(submitting=True)["MLflow"].state == "unknown"
