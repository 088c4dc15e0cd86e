"""The bucket that tests plant and the server that plays its faults: that they are what the other tests rely on."""

import csv
import gzip
import hashlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import obstore
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from fault_server import FaultServer
from obstore.exceptions import PermissionDeniedError
from obstore.store import S3Store
from pmc_bucket import INVENTORIES, JatsTemplate, PlantedArticle, PmcBucket, realistic_bucket, upload
from radosgw import Gateway, start_radosgw, why_not

XML = (
    b'<article><front><article-meta><article-id pub-id-type="doi">10.1/x</article-id></article-meta></front></article>'
)


@pytest.fixture
def bucket(tmp_path: Path) -> PmcBucket:
    return PmcBucket(tmp_path / "bucket")


@pytest.fixture
def server(bucket: PmcBucket) -> Iterator[FaultServer]:
    bucket.add(PlantedArticle(12, XML * 1000))
    with FaultServer(bucket.folder) as running:
        yield running


def _get(
    server: FaultServer, key: str, method: str = "GET", headers: dict[str, str] | None = None, timeout: float = 10
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=timeout)
    try:
        connection.request(method, f"/{server.bucket}/{key}", headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def _store(server: FaultServer | Gateway) -> S3Store:
    return S3Store(
        server.bucket,
        endpoint=server.endpoint,
        skip_signature=True,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def _inventory(bucket: PmcBucket, manifest: Path) -> list[list[str]]:
    rows: list[list[str]] = []
    for entry in json.loads(manifest.read_text())["files"]:
        content = (bucket.folder / entry["key"]).read_bytes()
        assert (len(content), hashlib.md5(content).hexdigest()) == (entry["size"], entry["MD5checksum"])
        rows += csv.reader(gzip.decompress(content).decode().splitlines())
    return rows


def test_an_article_lies_where_the_contract_says_with_the_checksum_in_its_address(bucket: PmcBucket) -> None:
    bucket.add(PlantedArticle(12, XML, version=2, licence="CC0", pmid=7))
    metadata = json.loads((bucket.folder / "metadata" / "PMC12.2.json").read_bytes())
    assert (bucket.folder / "PMC12.2" / "PMC12.2.xml").read_bytes() == XML
    assert json.loads((bucket.folder / "PMC12.2" / "PMC12.2.json").read_bytes()) == metadata
    assert metadata["xml_url"] == f"s3://pmc-oa-opendata/PMC12.2/PMC12.2.xml?md5={hashlib.md5(XML).hexdigest()}"
    assert (metadata["pmcid"], metadata["version"], metadata["pmid"], metadata["license_code"]) == (
        "PMC12",
        2,
        7,
        "CC0",
    )
    assert metadata["is_pmc_openaccess"] is True
    assert metadata["is_retracted"] is False


def test_what_is_to_be_wrong_is_wrong(bucket: PmcBucket) -> None:
    bucket.add(PlantedArticle(1, XML, wrong_md5=True, flags_as_strings=True, metadata_changes={"doi": ...}))
    bucket.add(PlantedArticle(2, XML, xml_missing=True))
    bucket.add(PlantedArticle(3, XML, metadata_missing=True))
    bucket.add(PlantedArticle(4, XML, raw_metadata=b"{"))
    metadata = json.loads((bucket.folder / "metadata" / "PMC1.1.json").read_bytes())
    assert hashlib.md5(XML).hexdigest() not in metadata["xml_url"]
    assert (metadata["is_pmc_openaccess"], metadata["is_retracted"], "doi" in metadata) == ("yes", "no", False)
    assert not (bucket.folder / "PMC2.1" / "PMC2.1.xml").exists()
    assert not (bucket.folder / "metadata" / "PMC3.1.json").exists()
    assert (bucket.folder / "metadata" / "PMC4.1.json").read_bytes() == b"{"
    assert len(_inventory(bucket, bucket.write_inventory())) == 4


def test_an_inventory_lists_every_version_with_its_etag_and_tells_of_the_moment_it_was_written(
    bucket: PmcBucket,
) -> None:
    for pmcid in range(1, 6):
        bucket.add(PlantedArticle(pmcid, XML))
    bucket.revise(5, licence="TDM")
    first = bucket.write_inventory("2026-08-25T01-00Z")
    bucket.withdraw(5)
    bucket.update(1, retracted=True)
    bucket.add(PlantedArticle(9, XML))
    second = bucket.write_inventory("2026-08-26T01-00Z")
    before = {unquote(row[1]): row[3] for row in _inventory(bucket, first)}
    after = {unquote(row[1]): row[3] for row in _inventory(bucket, second)}
    assert sorted(before) == [*(f"metadata/PMC{each}.1.json" for each in range(1, 6)), "metadata/PMC5.2.json"]
    assert before.keys() - after.keys() == {"metadata/PMC5.1.json", "metadata/PMC5.2.json"}
    assert after.keys() - before.keys() == {"metadata/PMC9.1.json"}
    assert [key for key in before.keys() & after.keys() if before[key] != after[key]] == ["metadata/PMC1.1.json"]
    for key, etag in after.items():
        assert hashlib.md5((bucket.folder / key).read_bytes()).hexdigest() == etag
    hive = [path.name for path in (bucket.folder / INVENTORIES / "hive").iterdir()]
    assert sorted(hive) == ["dt=2026-08-25-01-00", "dt=2026-08-26-01-00"]
    assert first.with_name("manifest.checksum").read_text() == hashlib.md5(first.read_bytes()).hexdigest()


def test_a_bucket_is_the_same_for_the_same_seed_and_knows_what_a_policy_leaves_out(tmp_path: Path) -> None:
    one = realistic_bucket(tmp_path / "one", 300, seed=3)
    two = realistic_bucket(tmp_path / "two", 300, seed=3)
    assert one.articles == two.articles
    assert one.articles != realistic_bucket(tmp_path / "three", 300, seed=4).articles
    assert len(one.listed()) == 300
    assert len(one.articles) == 300 + one.superseded > 300
    reasons = one.left_out(["CC BY"])
    kept = [
        each
        for each in one.listed()
        if each.licence == "CC BY" and each.open_access and not each.retracted and not each.historical_ocr
    ]
    assert reasons.total() + len(kept) == 300
    assert reasons["not open access"] == sum(not each.open_access for each in one.listed()) > 0


def test_copies_of_an_article_carry_their_ids_and_their_own_text() -> None:
    words = b" ".join(b"word%s" % bytes([97 + i % 26, 97 + i // 26]) for i in range(200))
    xml = XML.replace(b"</front>", b"</front><body><p>A " + words + b" end.</p></body>")
    template = JatsTemplate(xml)
    one, two, again = (template.render(12, 34, "10.5/new", copy) for copy in (1, 2, 1))
    assert one == again != two
    assert sorted(one.split()) == sorted(two.split())
    assert b'pub-id-type="pmc">12<' in one
    assert b'pub-id-type="doi">10.5/new<' in one
    assert b"10.1/x" not in one


def test_objects_are_served_with_ranges_etags_and_a_404_that_names_the_key(
    server: FaultServer, bucket: PmcBucket
) -> None:
    body = XML * 1000
    status, headers, got = _get(server, "PMC12.1/PMC12.1.xml")
    assert (status, got, headers["ETag"]) == (200, body, f'"{hashlib.md5(body).hexdigest()}"')
    assert _get(server, "PMC12.1/PMC12.1.xml", headers={"Range": "bytes=5-9"})[2] == body[5:10]
    assert _get(server, "PMC12.1/PMC12.1.xml", headers={"Range": "bytes=-4"})[2] == body[-4:]
    assert _get(server, "PMC12.1/PMC12.1.xml", headers={"If-None-Match": headers["ETag"]})[0] == 304
    assert _get(server, "PMC12.1/PMC12.1.xml", "HEAD")[1]["Content-Length"] == str(len(body))
    status, _, error = _get(server, "PMC13.1/PMC13.1.xml")
    assert status == 404
    assert b"<Code>NoSuchKey</Code>" in error
    assert _get(server, "../test_pmc_bucket.py")[0] == 400


def test_boto3_and_obstore_read_and_list_the_server(server: FaultServer, bucket: PmcBucket) -> None:
    for pmcid in range(100, 125):
        bucket.add(PlantedArticle(pmcid, XML))
    bucket.write_inventory()
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}),
    )
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=server.bucket, Prefix="metadata/", PaginationConfig={"PageSize": 10}
    )
    assert sum(len(page["Contents"]) for page in pages) == 26
    dated = client.list_objects_v2(Bucket=server.bucket, Prefix=f"{INVENTORIES}/", Delimiter="/")["CommonPrefixes"]
    assert [each["Prefix"].removeprefix(INVENTORIES) for each in dated] == ["/2026-08-25T01-00Z/", "/data/", "/hive/"]
    store = _store(server)
    assert bytes(obstore.get(store, "PMC100.1/PMC100.1.xml").bytes()) == XML
    listed = obstore.list_with_delimiter(store, f"{INVENTORIES}/")["common_prefixes"]
    assert [each.rpartition("/")[2] for each in listed] == ["2026-08-25T01-00Z", "data", "hive"]
    obstore.put(store, "new/object.bin", b"content")
    assert (bucket.folder / "new" / "object.bin").read_bytes() == b"content"


@pytest.mark.parametrize(("kind", "status"), [("status", 500), ("slow_down", 503), ("not_found", 404)])
def test_a_fault_is_played_so_often_for_each_key(server: FaultServer, kind: Any, status: int) -> None:
    server.fault(r"\.json$", kind, times=2, retry_after=3)
    for key in ("metadata/PMC12.1.json", "PMC12.1/PMC12.1.json"):
        answers = [_get(server, key) for _ in range(3)]
        assert [answer[0] for answer in answers] == [status, status, 200]
        assert ("Retry-After" in answers[0][1]) == (kind == "slow_down")
    assert _get(server, "PMC12.1/PMC12.1.xml")[0] == 200
    assert server.counts[kind] == 4
    assert server.keys(status=200).count("metadata/PMC12.1.json") == 1


def test_a_body_can_break_off_fall_short_stall_or_be_wrong(server: FaultServer) -> None:
    key, body = "PMC12.1/PMC12.1.xml", XML * 1000
    server.fault("xml$", "reset", times=1)
    server.fault("xml$", "truncate", times=1)
    server.fault("xml$", "stall", times=1)
    server.fault("xml$", "stall_before", times=1)
    server.fault("xml$", "wrong_bytes", times=1)
    server.fault("xml$", "content", times=1, content=b"<html>a proxy's page</html>")
    with pytest.raises(ConnectionResetError):
        _get(server, key)
    with pytest.raises(http.client.IncompleteRead) as short:
        _get(server, key)
    assert short.value.partial == body[: len(body) // 2]
    for _ in range(2):
        with pytest.raises(TimeoutError):
            _get(server, key, timeout=0.3)
    wrong = _get(server, key)[2]
    assert len(wrong) == len(body)
    assert wrong != body
    assert _get(server, key)[2] == b"<html>a proxy's page</html>"
    assert _get(server, key)[2] == body


def test_what_comes_too_fast_is_told_to_slow_down(server: FaultServer) -> None:
    server.limit(2, burst=5)
    statuses = [_get(server, "metadata/PMC12.1.json")[0] for _ in range(12)]
    assert statuses[:5] == [200] * 5
    assert 503 in statuses
    time.sleep(0.6)
    assert _get(server, "metadata/PMC12.1.json")[0] == 200
    server.heal()
    assert {_get(server, "metadata/PMC12.1.json")[0] for _ in range(20)} == {200}


def test_requests_that_are_open_at_a_time_are_counted(server: FaultServer) -> None:
    server.fault("json$", "late", seconds=1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _get(server, "metadata/PMC12.1.json"), range(8)))
    assert server.most_concurrent == 8
    assert server.connections == 8


def test_the_server_ends_although_a_client_waits_on_it(bucket: PmcBucket) -> None:
    bucket.add(PlantedArticle(12, XML))
    with FaultServer(bucket.folder) as server:
        server.fault("json$", "stall_before")
        place = urlsplit(server.endpoint)
        waiting = socket.create_connection((str(place.hostname), place.port or 0))
        waiting.sendall(b"GET /pmc-oa-opendata/metadata/PMC12.1.json HTTP/1.1\r\nHost: x\r\n\r\n")
        while not server.requests:
            time.sleep(0.01)
        started = time.monotonic()
    assert time.monotonic() - started < 30
    waiting.close()


def test_a_bucket_can_be_uploaded_to_radosgw_and_read_by_anyone_but_written_by_its_owner_alone(
    bucket: PmcBucket, tmp_path: Path
) -> None:
    if why_not():
        pytest.skip(why_not())
    bucket.add(PlantedArticle(12, XML))
    with start_radosgw(tmp_path) as gateway:
        assert upload(bucket.folder, gateway.endpoint, gateway.bucket, gateway.key, gateway.secret) == 4
        store = _store(gateway)
        with pytest.raises(PermissionDeniedError):
            obstore.get(store, "PMC12.1/PMC12.1.xml")
        gateway.make_public()
        assert bytes(obstore.get(store, "PMC12.1/PMC12.1.xml").bytes()) == XML
        with pytest.raises(PermissionDeniedError):
            obstore.put(store, "other", b"")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            replace(gateway, secret="wrong").client().list_objects_v2(Bucket=gateway.bucket)
