"""The whole download against real S3 servers, SeaweedFS and Ceph's radosgw: as the source and as the store."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.common import storage
from components.common.errors import StorageError
from components.common.settings import get_settings
from components.download.fetch import fetch_shard
from components.download.plan import plan_download
from components.download.settings import DownloadSettings
from tests.pmc_bucket import PmcBucket, realistic_bucket, upload
from tests.radosgw import start_radosgw, why_not

PREFIX = "mirror/pmc"
NO_RADOSGW = why_not()


@pytest.fixture(
    params=["seaweedfs", pytest.param("radosgw", marks=pytest.mark.skipif(bool(NO_RADOSGW), reason=NO_RADOSGW))]
)
def bucket(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, PmcBucket]]:
    """A private bucket of a real server that holds a mirror of PubMed Central's."""
    planted = realistic_bucket(tmp_path / "planted", 60, seed=2)
    planted.write_inventory()
    if request.param == "seaweedfs":
        uri = request.getfixturevalue("s3_server")
        yield _fill(planted, uri, monkeypatch), planted
        return
    with start_radosgw(tmp_path / "ceph") as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", gateway.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", gateway.secret)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield _fill(planted, f"s3://{gateway.bucket}", monkeypatch), planted


def _fill(planted: PmcBucket, uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    upload(planted.folder, endpoint, uri.removeprefix("s3://"), key, secret, prefix=f"{PREFIX}/")
    monkeypatch.setenv("PMC_OA_ENDPOINT_URL", endpoint)
    _forget()
    return uri


def _forget() -> None:
    get_settings.cache_clear()
    storage._s3_store.cache_clear()


def _settings(bucket: str, **pmc: Any) -> DownloadSettings:
    place = {"bucket": storage.join(bucket, PREFIX), "anonymous": False} | pmc
    return DownloadSettings(source="pmc", pmc=place, articles_per_shard=40, policy={"licences": "all-open"})


def test_a_mirror_is_read_and_shards_are_written_and_refreshed(bucket: tuple[str, PmcBucket], tmp_path: Path) -> None:
    uri, planted = bucket
    settings = _settings(uri)
    store = storage.join(uri, "store")
    plan = plan_download(settings, store)
    shards = [fetch_shard(plan, shard.name, settings) for shard in plan.shards]
    expected = {
        f"PMC{each.pmcid}": each.xml
        for each in planted.listed()
        if each.open_access and not each.retracted and not each.historical_ocr and each.licence not in (None, "TDM")
    }
    assert _read(shards, tmp_path) == expected
    assert not any(manifest.rejected for manifest in shards)
    assert [fetch_shard(plan, shard.name, settings).shards for shard in plan.shards] == [m.shards for m in shards]

    gone = planted.listed()[0].pmcid
    planted.withdraw(gone)
    planted.write_inventory("2026-08-27T01-00Z")
    _upload_inventories(planted, uri)
    plan = plan_download(settings, store)
    shards = [fetch_shard(plan, shard.name, settings) for shard in plan.shards]
    assert _read(shards, tmp_path) == {name: xml for name, xml in expected.items() if name != f"PMC{gone}"}
    assert sum(manifest.totals["new"] + manifest.totals["changed"] for manifest in shards) == 0


def test_wrong_credentials_are_refused_in_one_sentence(
    bucket: tuple[str, PmcBucket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = bucket
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    _forget()
    with pytest.raises(StorageError, match=r"(?s)^Cannot read the articles' bucket .*credentials") as source:
        plan_download(_settings(uri), storage.to_uri(tmp_path / "store"))
    with pytest.raises(StorageError, match=r"permission denied; check the credentials") as store:
        plan_download(_settings(uri), storage.join(uri, "store"))
    assert all("\n" not in str(each.value) and "wrong" not in str(each.value) for each in (source, store))


def test_a_private_mirror_refuses_anonymous_reads(bucket: tuple[str, PmcBucket], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"download\.pmc\.anonymous=false"):
        plan_download(_settings(bucket[0], anonymous=True), storage.to_uri(tmp_path / "store"))


def _upload_inventories(planted: PmcBucket, uri: str) -> None:
    for path in (planted.folder / "inventory-reports").rglob("*"):
        if path.is_file():
            storage.upload(path, storage.join(uri, PREFIX, path.relative_to(planted.folder).as_posix()))


def _read(shards: list[Any], scratch: Path) -> dict[str, bytes]:
    rows = {}
    for manifest in shards:
        storage.download(manifest.shards[0].uri, scratch / "shard.parquet")
        rows |= {row["article_id"]: row["xml"] for row in pq.read_table(scratch / "shard.parquet").to_pylist()}
    return rows
