"""PubMed Central's contract: inventories and metadata as they come, and as they should not."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InputError, StorageError
from components.common.pmc.bucket import Bucket
from components.common.pmc.inventory import Inventory, inventory_dates, newest_inventory
from components.common.pmc.metadata import Metadata, parse_metadata
from components.common.pmc.settings import PmcSettings, TransportSettings
from components.common.settings import get_settings
from components.common.transport import FetchError
from tests.fault_server import FaultServer
from tests.pmc_bucket import PlantedArticle, PmcBucket

DATES = ["2026-08-24T01-00Z", "2026-08-25T01-00Z", "2026-08-26T01-00Z"]
QUICK = TransportSettings(attempts=2, longest_backoff_seconds=0.02, read_timeout_seconds=1, concurrency=4)


@pytest.fixture
def planted(tmp_path: Path) -> PmcBucket:
    bucket = PmcBucket(tmp_path / "bucket")
    for pmcid in (3, 11370360, 20, 100):
        bucket.add(PlantedArticle(pmcid, b"<article/>"))
    for _ in range(10):
        bucket.revise(20)
    bucket.revise(3)
    return bucket


def opened(planted: PmcBucket) -> Bucket:
    return Bucket(PmcSettings(bucket=str(planted.folder)), QUICK)


def versions(inventory: Inventory) -> dict[str, int]:
    return dict(zip(*(inventory.articles[name].to_pylist() for name in ("article_id", "version")), strict=True))


@pytest.mark.parametrize("slashes_encoded", [False, True])
def test_the_highest_version_of_each_article_is_kept_by_rising_id(planted: PmcBucket, slashes_encoded: bool) -> None:
    planted.write_inventory(DATES[0], slashes_encoded=slashes_encoded, extra_keys=["metadata/readme.txt", "metadata/"])
    inventory = newest_inventory(opened(planted))
    assert versions(inventory) == {"PMC3": 2, "PMC20": 11, "PMC100": 1, "PMC11370360": 1}
    assert list(versions(inventory)) == ["PMC3", "PMC20", "PMC100", "PMC11370360"]
    assert (inventory.versions, inventory.superseded, inventory.unknown) == (15, 11, 2)
    etags = dict(zip(*(inventory.articles[name].to_pylist() for name in ("article_id", "etag")), strict=True))
    assert etags["PMC20"] == planted._listed["metadata/PMC20.11.json"].etag


def test_the_columns_may_stand_in_another_order(planted: PmcBucket) -> None:
    planted.write_inventory(DATES[0], schema="ETag, Size, Key, Bucket")
    assert len(versions(newest_inventory(opened(planted)))) == 4


def test_the_newest_inventory_is_taken_and_others_only_on_request(planted: PmcBucket) -> None:
    planted.write_inventory(DATES[0])
    planted.add(PlantedArticle(7, b"<article/>"))
    planted.write_inventory(DATES[1])
    assert newest_inventory(opened(planted)).date == DATES[1]
    assert "PMC7" in versions(newest_inventory(opened(planted)))
    assert "PMC7" not in versions(newest_inventory(opened(planted), DATES[0]))
    assert inventory_dates(opened(planted)) == DATES[1::-1]
    with pytest.raises(InputError, match=rf"no inventory 2020-01-01T00-00Z.*{DATES[0]} to {DATES[1]}"):
        newest_inventory(opened(planted), "2020-01-01T00-00Z")


@pytest.mark.parametrize("corrupt", ["no manifest", "missing file", "file"])
def test_an_inventory_that_is_still_being_written_gives_way_to_the_one_before(
    planted: PmcBucket, corrupt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    planted.write_inventory(DATES[0])
    planted.write_inventory(DATES[1], corrupt=corrupt)
    assert newest_inventory(opened(planted)).date == DATES[0]
    if corrupt != "no manifest":
        assert f"{DATES[1]} is not complete" in caplog.text
    with pytest.raises(InputError, match=DATES[1]):
        newest_inventory(opened(planted), DATES[1])


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        ("manifest", "no S3 Inventory manifest"),
        ("format", "is ORC with"),
        ("gzip", "cannot be read"),
        ("columns", "cannot be read"),
        ("empty", "names no file"),
    ],
)
def test_an_inventory_of_another_form_is_refused_by_name(planted: PmcBucket, corrupt: Any, message: str) -> None:
    planted.write_inventory(DATES[0])
    planted.write_inventory(DATES[1], corrupt=corrupt)
    with pytest.raises(InputError, match=message):
        newest_inventory(opened(planted))


def test_a_schema_without_keys_or_etags_is_refused(planted: PmcBucket) -> None:
    planted.write_inventory(DATES[0], schema="Bucket, Key, LastModifiedDate")
    with pytest.raises(InputError, match=r"Bucket, Key, LastModifiedDate.*Key and ETag"):
        newest_inventory(opened(planted))


def test_a_bucket_without_an_inventory_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no inventory"):
        newest_inventory(opened(PmcBucket(tmp_path / "empty")))


def test_a_server_that_fails_is_not_taken_for_an_unfinished_inventory(
    planted: PmcBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.write_inventory(DATES[0])
    planted.write_inventory(DATES[1])
    with FaultServer(planted.folder) as server:
        monkeypatch.setenv("PMC_OA_ENDPOINT_URL", server.endpoint)
        get_settings.cache_clear()
        bucket = Bucket(PmcSettings(), QUICK)
        server.fault(rf"{DATES[1]}/manifest|^\?list", "status", times=1)
        assert newest_inventory(bucket).date == DATES[1]
        assert server.counts["status"] == 2
        server.fault(rf"{DATES[1]}/manifest", "status")
        with pytest.raises(StorageError, match=rf"{DATES[1]}.*500"):
            newest_inventory(bucket)


# Metadata.


def metadata(**changes: Any) -> bytes:
    return PlantedArticle(12, b"<article/>", metadata_changes=changes).metadata()


@pytest.mark.parametrize(("value", "meant"), [(True, True), (False, False), ("yes", True), ("No", False)])
def test_a_flag_is_a_boolean_or_yes_or_no(value: Any, meant: bool) -> None:
    assert parse_metadata(metadata(is_retracted=value), "PMC12", 1).is_retracted is meant


@pytest.mark.parametrize("value", ["true", "", None, 1, 0, "y", []])
def test_anything_else_is_no_flag(value: Any) -> None:
    with pytest.raises(FetchError, match=r"malformed-metadata.*is_retracted") as caught:
        parse_metadata(metadata(is_retracted=value), "PMC12", 1)
    assert repr(value) in caught.value.detail


def test_what_is_unknown_is_empty_and_further_fields_do_no_harm() -> None:
    read = parse_metadata(metadata(pmid=None, doi=None, title=None, license_code=None, novel={"a": 1}), "PMC12", 1)
    assert (read.pmid, read.doi, read.title, read.license_code) == (None, None, None, None)
    assert Metadata.model_validate_json(read.model_dump_json()) == read


def test_the_address_of_the_xml_is_its_own_and_carries_its_checksum() -> None:
    read = parse_metadata(metadata(xml_url=f"s3://other/mirror/PMC12.1/PMC12.1.xml?md5={'AB' * 16}"), "PMC12", 1)
    assert read.xml_address() == ("PMC12.1/PMC12.1.xml", "ab" * 16)
    for address in ("https://evil/PMC12.1.xml", "s3://b/PMC12.1/PMC12.1.xml?md5=short", "s3://b/PMC13.1/PMC13.1.xml"):
        with pytest.raises(FetchError, match="xml_url"):
            parse_metadata(metadata(xml_url=address), "PMC12", 1).xml_address()


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b'{"pmcid": "PMC12"', json.dumps("PMC12").encode()])
def test_what_is_no_metadata_is_a_failed_read(data: bytes) -> None:
    with pytest.raises(FetchError) as caught:
        parse_metadata(data, "PMC12", 1)
    assert (caught.value.reason, caught.value.retry) == ("malformed-metadata", True)


@pytest.mark.parametrize(
    ("citation", "day"),
    [
        ("A B, et al. Title. iScience. 2025 Dec 1;28(12):114581. doi: 10.1016/x", date(2025, 12, 1)),
        ("J X. 2009 Dec;3(1):1.", date(2009, 12, 1)),
        ("J X. 2009;3(1):1.", date(2009, 1, 1)),
        ("J X. 2009 Jan-Feb;3(1):1.", date(2009, 1, 1)),
        ("Outcomes 2001; a review. J X. 2010 Feb 30;3(1):1.", date(2010, 2, 1)),
        ("J X. 3(1):1.", None),
        ("", None),
    ],
)
def test_the_day_of_publication_is_read_from_the_citation(citation: str, day: date | None) -> None:
    assert parse_metadata(metadata(citation=citation), "PMC12", 1).published() == day
