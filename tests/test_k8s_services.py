"""The S3 server of the overlay `dev`, started as its manifest says, with the keys that `make deploy` draws."""

import os
import subprocess
import time
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError

from components.common.errors import InputError, StorageError
from components.common.settings import get_settings
from pipelines.bucket import RULE, prepare_bucket
from tests.conftest import _weed
from tests.k8s_helpers import NAMESPACE, find, rendered
from tests.ports import free_ports
from tools.cluster_manifests.secrets import dev_secrets

STORE = "s3://pmc-llama/store"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a step that uses the server."""
    folder = tmp_path_factory.mktemp("weed")
    (container,) = find(rendered("dev"), "StatefulSet", "pmc-llama-s3")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["weed"]
    keys = dev_secrets(NAMESPACE)[0]["stringData"]
    ports = free_ports(8)
    # A later flag wins; only what several tests on one machine cannot share is changed.
    changed = [
        f"-dir={folder}", "-s3.ip.bind=127.0.0.1", f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}",
        f"-volume.port={ports[2]}", f"-volume.port.grpc={ports[3]}", f"-filer.port={ports[4]}",
        f"-filer.port.grpc={ports[5]}", f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [_weed(), *container["args"], *changed], env={**os.environ, **keys}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[6]}", "AWS_REGION": "us-east-1", **keys}
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def at_home(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()


def test_the_bucket_is_made_once_and_keeps_the_rules_that_it_has(at_home: None) -> None:
    done = [prepare_bucket(STORE, create=True, days=7) for _ in range(2)]
    assert done == [
        ["Made the bucket pmc-llama.", "The bucket pmc-llama drops uploads that are unfinished after 7 days."],
        [],
    ]
    client = boto3.client("s3")
    own = {"ID": "own", "Status": "Enabled", "Filter": {"Prefix": "raw/"}, "Expiration": {"Days": 60}}
    client.put_bucket_lifecycle_configuration(Bucket="pmc-llama", LifecycleConfiguration={"Rules": [own]})
    prepare_bucket(STORE, create=False, days=3)
    rules = {rule["ID"]: rule for rule in client.get_bucket_lifecycle_configuration(Bucket="pmc-llama")["Rules"]}
    assert rules["own"]["Expiration"] == {"Days": 60}
    assert rules[RULE]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}


def test_another_key_than_the_drawn_one_is_refused(server: dict[str, str]) -> None:
    stranger = boto3.client(
        "s3",
        endpoint_url=server["AWS_ENDPOINT_URL"],
        aws_access_key_id=server["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="guessed",
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            stranger.list_buckets()
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500 and time.monotonic() < deadline:
                continue
            assert error.response["Error"]["Code"] == "SignatureDoesNotMatch"
            return
        pytest.fail("a guessed key was taken")


def test_a_missing_bucket_is_made_only_when_asked(at_home: None) -> None:
    with pytest.raises(InputError, match=r"There is no bucket other; make it, or have it made by --create\."):
        prepare_bucket("s3://other/store", create=False, days=7)


def test_a_store_that_is_no_bucket_is_refused() -> None:
    with pytest.raises(InputError, match="The store file:///x is in no bucket"):
        prepare_bucket("file:///x", create=True, days=7)


def test_a_server_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    get_settings.cache_clear()
    with pytest.raises(StorageError, match="S3 does not let the bucket pmc-llama be prepared: Could not connect"):
        prepare_bucket(STORE, create=True, days=7, patience_seconds=0)
