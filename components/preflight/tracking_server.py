"""MLflow: it answers us, it is of a version we know, and it keeps artifacts where the steps can put them."""

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.common.logs import without_credentials
from components.common.settings import get_settings
from components.preflight.findings import Finding, failed, ok, unknown, warning
from components.preflight.settings import Situation
from components.preflight.store import round_trip

SUBJECT, ARTIFACTS = "MLflow", "MLflow's artifacts"
_SECONDS = 20
_OLDEST_MAJOR = 3
_WRONG_HOST = "Invalid Host header"
_API = "/api/2.0/mlflow"
_PROXY = "/api/2.0/mlflow-artifacts"
_SQLITE = "sqlite:///"
_STARTED = "Start it, or correct MLFLOW_TRACKING_URI."


def look_at_mlflow(situation: Situation) -> Iterator[Finding]:
    """Say whether the steps can record runs and models."""
    address = get_settings().tracking_uri
    if source := situation.given_to_steps("MLFLOW_TRACKING_URI"):
        text = f"The steps take MLFLOW_TRACKING_URI from {source}."
        yield unknown(SUBJECT, text, "The pipeline's first step looks at it.")
    elif not address and situation.submitting:
        yield unknown(
            SUBJECT,
            "MLFLOW_TRACKING_URI is not set here.",
            "The steps need it, unless Kubeflow's MLflow plugin sets it for them; the pipeline's first step looks.",
        )
    elif not address:
        yield failed(
            SUBJECT, "MLFLOW_TRACKING_URI is not set, and models are registered there.", "Set it to MLflow's address."
        )
    elif address.startswith(("http://", "https://")):
        yield from _server(address, situation)
    elif situation.on_cluster:
        yield failed(
            SUBJECT,
            f"{without_credentials(address)} is a database or folder, which not every step of the run sees.",
            "Set MLFLOW_TRACKING_URI to the http(s) address of an MLflow server.",
        )
    else:
        yield _database(address)


def _database(address: str) -> Finding:
    """A file of SQLite is opened for writing; other databases are left to MLflow."""
    if not address.startswith(_SQLITE):
        return ok(SUBJECT, f"{without_credentials(address)} is used as it is.")
    file = Path(address.removeprefix(_SQLITE))
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        remedy = "Make that folder, or set MLFLOW_TRACKING_URI to another place."
        return failed(SUBJECT, f"{file.parent} is no writable folder for MLflow's database.", remedy)
    if not file.exists():
        return ok(SUBJECT, f"{file} will be made.")
    try:
        connection = sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=1)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        remedy = "Move it away, or set MLFLOW_TRACKING_URI to another place."
        return failed(SUBJECT, f"{file} cannot be used as a database: {error}.", remedy)
    return ok(SUBJECT, f"{file} can be written.")


def _server(address: str, situation: Situation) -> Iterator[Finding]:
    shown = without_credentials(address)
    if situation.unseen(address):
        yield unknown(SUBJECT, f"{shown} is an address within the cluster.", "The pipeline's first step looks at it.")
        return
    server = _Server(address)
    try:
        status, text = server.ask("GET", "/health")
        if status != 200:
            yield failed(SUBJECT, f"{shown} answers {status} when asked for its health: {_short(text)}", _STARTED)
            return
        _, version = server.ask("GET", "/version")
        status, text = server.ask(
            "GET", f"{_API}/experiments/get-by-name", {"experiment_name": get_settings().experiment}
        )
    except _Unreachable as error:
        yield failed(SUBJECT, f"{shown} cannot be reached: {error}.", _STARTED)
        return
    if (status == 404 and "RESOURCE_DOES_NOT_EXIST" not in text) or status not in (200, 404):
        yield _refused(shown, status, text)
        return
    yield _answered(shown, version.strip(), status, text)
    try:
        yield from _artifacts(server, status, text, situation)
    except _Unreachable as error:
        yield failed(ARTIFACTS, f"{shown} broke off: {error}.", "Look into the server's log.")


def _answered(shown: str, version: str, status: int, text: str) -> Finding:
    experiment = get_settings().experiment
    if status == 200 and _experiment(text).get("lifecycle_stage") == "deleted":
        remedy = f"Restore it (mlflow experiments restore), or set MLFLOW_EXPERIMENT_NAME to another than {experiment}."
        return failed(SUBJECT, f"Its experiment {experiment} is deleted.", remedy)
    major = version.partition(".")[0]
    if not major.isdigit():
        remedy = "See with its administrator that it is MLflow 3 or newer."
        return warning(SUBJECT, f"{shown} answers, but does not tell its version.", remedy)
    if int(major) < _OLDEST_MAJOR:
        remedy = f"Upgrade the server to MLflow {_OLDEST_MAJOR} or newer: this pipeline is tested with that."
        return warning(SUBJECT, f"{shown} is MLflow {version}.", remedy)
    there = f"experiment {experiment}" if status == 200 else f"experiment {experiment} will be made"
    return ok(SUBJECT, f"{shown} is MLflow {version}; {there}.")


def _refused(shown: str, status: int, text: str) -> Finding:
    if status == 403 and _WRONG_HOST in text:
        host = urlsplit(get_settings().tracking_uri).netloc.rpartition("@")[2]
        return failed(
            SUBJECT,
            f"{shown} answers 403 {_short(text)}: the server does not know itself by the name {host}.",
            f"Start it with --allowed-hosts naming {host} besides the hosts it has (or MLFLOW_SERVER_ALLOWED_HOSTS).",
        )
    if status in (401, 403):
        remedy = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, from a secret."
        return failed(SUBJECT, f"{shown} answers {status}: {_short(text)}", remedy)
    remedy = "See whether that is an MLflow server, and look into its log."
    return failed(SUBJECT, f"{shown} answers {status}: {_short(text)}", remedy)


def _artifacts(server: "_Server", status: int, text: str, situation: Situation) -> Iterator[Finding]:
    if status == 200:
        root = str(_experiment(text).get("artifact_location", ""))
    else:  # ours will lie beside the default experiment's
        status, text = server.ask("GET", f"{_API}/experiments/get", {"experiment_id": "0"})
        root = str(_experiment(text).get("artifact_location", "")) if status == 200 else ""
    if root.startswith("s3://"):
        yield round_trip(ARTIFACTS, root)
    elif root.startswith("mlflow-artifacts:"):
        yield _through_server(server, urlsplit(root).path.strip("/"), situation)
    elif root.startswith(("file:", "/", ".")):
        yield _on_disk(root, situation)
    elif root:
        remedy = "See that every step has the packages and the credentials for it, or keep artifacts in S3."
        yield warning(ARTIFACTS, f"They lie at {without_credentials(root)}.", remedy)
    else:
        remedy = "See that the server was started with an --artifacts-destination or --default-artifact-root on S3."
        yield unknown(ARTIFACTS, "The server does not tell where they lie before there is an experiment.", remedy)


def _on_disk(root: str, situation: Situation) -> Finding:
    if not situation.on_cluster:
        return ok(ARTIFACTS, f"They lie at {root}.")
    return failed(
        ARTIFACTS,
        f"They lie at {root}, a disk of the server's that no step sees.",
        "Start the server with --artifacts-destination s3://bucket/prefix, and choose a new experiment "
        "(MLFLOW_EXPERIMENT_NAME): one that is there keeps its place.",
    )


def _through_server(server: "_Server", folder: str, situation: Situation) -> Finding:
    """A file's way through the server, and what the server says of the place behind it."""
    name = "/".join(filter(None, [folder, f".preflight-{uuid.uuid4().hex}"]))
    status, text = server.ask("PUT", f"{_PROXY}/artifacts/{name}", data=b"preflight")
    if status != 200:
        remedy = "Look into the server's log; it needs rights to its --artifacts-destination."
        return failed(ARTIFACTS, f"The server does not store a file: {status} {_short(text)}", remedy)
    status, content = server.ask("GET", f"{_PROXY}/artifacts/{name}")
    signed_status, signed = server.ask("GET", f"{_PROXY}/presigned/{name}")
    deleted, _ = server.ask("DELETE", f"{_PROXY}/artifacts/{name}")
    if status != 200 or content != "preflight":
        remedy = "See what stands behind the server's --artifacts-destination."
        return failed(ARTIFACTS, f"The server does not give back what it was given: {status}.", remedy)
    if deleted != 200:
        remedy = f"Give the server the right to delete there; {name} is left behind."
        return warning(ARTIFACTS, "The server stores and reads a file, but does not delete it.", remedy)
    through = "Files can be stored, read and deleted through the server"
    if not situation.on_cluster:
        return ok(ARTIFACTS, f"{through}.")
    if signed_status == 200:
        return ok(ARTIFACTS, f"{through}, which keeps them in an object store ({_host_of(signed)}).")
    if "not supported for the current artifact repository" in signed:
        return failed(
            ARTIFACTS,
            f"{through}, but it keeps them on a disk of its own.",
            "Start the server with --artifacts-destination s3://bucket/prefix.",
        )
    remedy = "See that its --artifacts-destination is s3://bucket/prefix."
    return unknown(ARTIFACTS, f"{through}, but it does not tell where it keeps them.", remedy)


class _Unreachable(Exception):
    """No answer."""


class _Server:
    """Speaks HTTP as MLflow's own client does: its credentials, certificates and workspace."""

    def __init__(self, address: str) -> None:
        from mlflow.utils.credentials import get_default_host_creds

        self._credentials = get_default_host_creds(address)

    def ask(self, method: str, path: str, parameters: dict[str, str] | None = None, **more: Any) -> tuple[int, str]:
        from mlflow.exceptions import MlflowException
        from mlflow.utils.rest_utils import http_request

        try:
            answer = http_request(
                self._credentials,
                path,
                method,
                max_retries=0,
                timeout=_SECONDS,
                raise_on_status=False,
                params=parameters,
                **more,
            )
        except (MlflowException, OSError) as error:
            raise _Unreachable(_short(without_credentials(str(error)))) from error
        return answer.status_code, answer.text


def _experiment(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)["experiment"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _host_of(signed: str) -> str:
    try:
        return urlsplit(str(json.loads(signed)["url"])).hostname or "its address is hidden"
    except (ValueError, KeyError, TypeError):
        return "its address is hidden"


def _short(text: str) -> str:
    return " ".join(text.split())[:200] or "nothing more."
