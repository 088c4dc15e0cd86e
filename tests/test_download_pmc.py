"""Articles from PubMed Central's bucket: what is chosen, fetched, left out, and what a later inventory changes."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.common import storage
from components.common.article_index import index_uri
from components.common.errors import InputError, StorageError
from components.common.manifest import Manifest
from components.common.settings import get_settings
from components.download.fetch import fetch_shard
from components.download.plan import plan_download
from components.download.settings import COMMERCIAL, NONCOMMERCIAL, DownloadSettings
from tests.fault_server import FaultServer
from tests.pmc_bucket import PlantedArticle, PmcBucket, realistic_bucket

ROOT = Path(__file__).parents[1]
FIRST, SECOND = "2026-08-25T01-00Z", "2026-08-26T01-00Z"
QUICK = {"attempts": 3, "longest_backoff_seconds": 0.05, "read_timeout_seconds": 1, "concurrency": 16}
XML = b"<article><front/><body><p>Text of article %d.</p></body></article>"


@dataclass
class Download:
    """A plan and the manifests of its shards."""

    plan: Manifest
    shards: list[Manifest]

    @property
    def rows(self) -> list[dict[str, Any]]:
        uris = [manifest.shards[0].uri for manifest in self.shards]
        return [row for uri in uris for row in pq.read_table(storage.local_path(uri)).to_pylist()]

    @property
    def ids(self) -> set[str]:
        return {row["article_id"] for row in self.rows}

    @property
    def dropped(self) -> Counter[str]:
        return sum((Counter(manifest.dropped) for manifest in self.shards), Counter())

    @property
    def rejected(self) -> dict[str, str]:
        return {each.id: each.reason for manifest in self.shards for each in manifest.rejected}

    def total(self, name: str) -> float:
        return sum(manifest.totals[name] for manifest in self.shards)

    def listed_under(self, name: str) -> list[Any]:
        return [each for manifest in self.shards for each in manifest.extra[name]]


def download(store: Path, bucket: Path | str = "s3://pmc-oa-opendata", **more: Any) -> Download:
    pmc = {"bucket": str(bucket), **more.pop("pmc", {})}
    transport = QUICK | more.pop("transport", {})
    defaults: dict[str, Any] = {"articles_per_shard": 40, "max_failed_fraction": 0.5}
    settings = DownloadSettings(source="pmc", pmc=pmc, transport=transport, **defaults | more)
    plan = plan_download(settings, storage.to_uri(store))
    return Download(plan, [fetch_shard(plan, shard.name, settings) for shard in plan.shards])


def small_bucket(folder: Path, articles: int = 40) -> PmcBucket:
    bucket = PmcBucket(folder)
    for pmcid in range(1, articles + 1):
        bucket.add(PlantedArticle(pmcid, XML % pmcid, title=f"Article {pmcid}", doi=f"10.1/{pmcid}", pmid=1000 + pmcid))
    return bucket


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PmcBucket:
    bucket = realistic_bucket(tmp_path_factory.mktemp("bucket"), 300, seed=1)
    bucket.write_inventory(FIRST)
    return bucket


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """Forty articles behind real HTTP."""
    small_bucket(tmp_path / "bucket").write_inventory(FIRST)
    with serving(tmp_path / "bucket", monkeypatch) as server:
        yield server


def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FaultServer:
    server = FaultServer(folder)
    monkeypatch.setenv("PMC_OA_ENDPOINT_URL", server.endpoint)
    get_settings.cache_clear()
    return server


# What is chosen.


@pytest.mark.parametrize(("licences", "allowed"), [("commercial", COMMERCIAL), ("noncommercial", NONCOMMERCIAL)])
def test_every_count_is_that_of_what_was_planted(
    planted: PmcBucket, licences: str, allowed: tuple[str, ...], tmp_path: Path
) -> None:
    got = download(tmp_path, planted.folder, policy={"licences": licences})
    listed = planted.listed()
    assert got.plan.totals["articles"] == len(listed) == 300
    assert got.plan.totals["superseded_versions"] == planted.superseded > 0
    kept, reasons = [], Counter[str]()
    for article in listed:
        if article.retracted:
            reasons["retracted"] += 1
        elif not article.open_access:
            reasons["not-open-access"] += 1
        elif article.licence not in allowed:
            reasons["licence"] += 1
        elif article.historical_ocr:
            reasons["historical-ocr"] += 1
        else:
            kept.append(article)
    assert got.dropped == reasons
    assert len(reasons) >= 3
    assert got.total("listed") == len(listed) == len(kept) + reasons.total()
    assert {row["article_id"]: row["xml"] for row in got.rows} == {f"PMC{each.pmcid}": each.xml for each in kept}
    assert set(got.listed_under("retracted")) == {f"PMC{each.pmcid}" for each in listed if each.retracted}


def test_a_row_says_what_the_metadata_says(tmp_path: Path) -> None:
    bucket = PmcBucket(tmp_path / "bucket")
    article = bucket.add(
        PlantedArticle(
            12, XML % 12, version=3, licence="CC BY-ND", manuscript=True, doi="10.1/é", pmid=7, title="A <i>t</i>"
        )
    )
    bucket.write_inventory(FIRST)
    (row,) = download(tmp_path / "store", bucket.folder).rows
    assert row == {
        "article_id": "PMC12",
        "source": "pmc",
        "path": "PMC12.3/PMC12.3.xml",
        "version": 3,
        "pmcid": "PMC12",
        "pmid": "7",
        "doi": "10.1/é",
        "title": "A <i>t</i>",
        "licence": "CC BY-ND",
        "is_manuscript": True,
        "is_historical_ocr": False,
        "is_retracted": False,
        "md5": row["md5"],
        "xml": article.xml,
    }


def test_a_superseded_version_never_stands_in_for_the_current_one(tmp_path: Path) -> None:
    bucket = small_bucket(tmp_path / "bucket", 3)
    bucket.revise(2, licence="TDM")
    bucket.revise(3, xml=b"<article>new</article>")
    bucket.write_inventory(FIRST)
    got = download(tmp_path / "store", bucket.folder)
    assert {row["article_id"]: row["version"] for row in got.rows} == {"PMC1": 1, "PMC3": 2}
    assert got.dropped == {"licence": 1}


def test_the_policy_chooses_by_flags(tmp_path: Path) -> None:
    bucket = small_bucket(tmp_path / "bucket", 4)
    bucket.update(1, retracted=True, flags_as_strings=True)
    bucket.update(2, manuscript=True)
    bucket.update(3, historical_ocr=True)
    bucket.write_inventory(FIRST)
    strict = download(tmp_path / "a", bucket.folder, policy={"manuscripts": False})
    assert strict.ids == {"PMC4"}
    assert strict.dropped == {"retracted": 1, "manuscript": 1, "historical-ocr": 1}
    assert strict.listed_under("retracted") == ["PMC1"]
    every = download(tmp_path / "b", bucket.folder, policy={"retracted": True, "historical_ocr": True})
    assert every.ids == {"PMC1", "PMC2", "PMC3", "PMC4"}
    assert every.listed_under("retracted") == ["PMC1"]


def test_the_date_of_publication_comes_from_the_citation_or_else_from_the_article(tmp_path: Path) -> None:
    bucket = PmcBucket(tmp_path / "bucket")
    dated = b"<article><front><pub-date><day>3</day><month>2</month><year>%d</year></pub-date></front></article>"
    bucket.add(PlantedArticle(1, XML % 1, citation="A B. On 1999; it ended. J X. 2015 Mar 4;3(1):1."))
    bucket.add(PlantedArticle(2, XML % 2, citation="J X. 2009 Dec;3(1):1."))
    bucket.add(PlantedArticle(3, dated % 2015))
    bucket.add(PlantedArticle(4, dated % 2001))
    bucket.add(PlantedArticle(5, XML % 5))
    bucket.write_inventory(FIRST)
    policy = {"published_from": "2010-01-01", "published_to": "2015-03-04"}
    got = download(tmp_path / "store", bucket.folder, policy=policy)
    assert got.ids == {"PMC1", "PMC3"}
    assert got.dropped == {"publication-date": 2, "undated": 1}
    # The same again without a range takes what the index knows, and with another range judges anew what was kept.
    later = download(tmp_path / "store", bucket.folder, policy=policy | {"published_to": "2015-02-28"})
    assert later.ids == {"PMC3"}


def test_a_larger_sample_contains_the_smaller(planted: PmcBucket, tmp_path: Path) -> None:
    policy = {"licences": "all-open"}
    few = download(tmp_path / "a", planted.folder, max_articles=40, policy=policy)
    more = download(tmp_path / "b", planted.folder, max_articles=120, policy=policy)
    share = download(tmp_path / "c", planted.folder, sample_fraction=0.5, policy=policy)
    assert (few.plan.totals["articles"], few.plan.totals["not_sampled"]) == (40, 260)
    assert few.ids < more.ids
    assert few.ids < share.ids
    assert 110 < share.plan.totals["articles"] < 190


def test_the_same_inventory_gives_the_same_bytes(planted: PmcBucket, tmp_path: Path) -> None:
    first, second = (download(tmp_path / name, planted.folder) for name in ("a", "b"))
    assert [m.shards[0].sha256 for m in first.shards] == [m.shards[0].sha256 for m in second.shards]
    assert [m.fingerprint for m in first.shards] == [m.fingerprint for m in second.shards]
    assert first.plan.fingerprint == second.plan.fingerprint


# A later inventory.


def test_a_later_inventory_fetches_only_what_is_new_or_changed(server: FaultServer, tmp_path: Path) -> None:
    bucket, store = small_bucket(tmp_path / "bucket"), tmp_path / "store"
    first = download(store, articles_per_shard=10)
    assert first.total("new") == 40
    bucket.add(PlantedArticle(41, XML % 41))
    bucket.revise(1, xml=b"<article>second version</article>")
    bucket.update(2, retracted=True)
    bucket.update(3, title="Only the title is another")
    bucket.update(4, licence="TDM")
    bucket.withdraw(5)
    bucket.write_inventory(SECOND)
    server.forget()

    second = download(store, articles_per_shard=10)
    assert second.plan.totals["articles"] == 40
    assert {name: second.total(name) for name in ("new", "changed", "unchanged", "removed_since")} == {
        "new": 1,
        "changed": 1,
        "unchanged": 36,
        "removed_since": 3,
    }
    assert {each["id"]: each["reason"] for each in second.listed_under("removed")} == {
        "PMC2": "retracted",
        "PMC4": "licence",
        "PMC5": "withdrawn",
    }
    asked = [key for key in server.keys() if not key.startswith("inventory-reports/")]
    assert sorted(asked) == sorted(
        [
            *("metadata/PMC1.2.json", "PMC1.2/PMC1.2.xml", "metadata/PMC41.1.json", "PMC41.1/PMC41.1.xml"),
            *("metadata/PMC2.1.json", "metadata/PMC3.1.json", "metadata/PMC4.1.json"),
        ]
    )
    rows = {row["article_id"]: row for row in second.rows}
    assert rows["PMC3"]["title"] == "Only the title is another"
    assert rows["PMC1"]["xml"] == b"<article>second version</article>"
    # It is what a first download of the second inventory gives.
    fresh = download(tmp_path / "fresh", articles_per_shard=10)
    assert [m.shards[0].sha256 for m in fresh.shards] == [m.shards[0].sha256 for m in second.shards]


def test_shards_whose_articles_are_the_same_are_not_touched(server: FaultServer, tmp_path: Path) -> None:
    bucket, store = small_bucket(tmp_path / "bucket"), tmp_path / "store"
    first = download(store, articles_per_shard=5)
    bucket.update(7, title="Changed")
    bucket.write_inventory(SECOND)
    second = download(store, articles_per_shard=5)
    before = {m.shards[0].name: m.fingerprint for m in first.shards}
    after = {m.shards[0].name: m.fingerprint for m in second.shards}
    assert len(before) == 8
    assert len([name for name in before if before[name] != after[name]]) == 1
    assert second.plan.fingerprint != first.plan.fingerprint


def test_another_policy_fetches_only_what_it_newly_allows(server: FaultServer, tmp_path: Path) -> None:
    bucket, store = small_bucket(tmp_path / "bucket"), tmp_path / "store"
    for pmcid in (3, 5):
        bucket.update(pmcid, licence="CC BY-NC")
    bucket.write_inventory(SECOND)
    assert len(download(store).ids) == 38
    server.forget()
    assert len(download(store, policy={"licences": "all-open"}).ids) == 40
    assert [key for key in server.keys() if "inventory" not in key] == ["PMC3.1/PMC3.1.xml", "PMC5.1/PMC5.1.xml"]


def test_twice_as_many_shards_take_their_articles_from_the_former_ones(server: FaultServer, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert len(download(store, articles_per_shard=20).shards) == 2
    server.forget()
    finer = download(store, articles_per_shard=10)
    assert len(finer.shards) == 4
    assert len(finer.ids) == finer.total("unchanged") == 40
    assert finer.total("removed_since") == 0
    assert not [key for key in server.keys() if "inventory" not in key]


def test_a_finished_shard_is_never_fetched_again(server: FaultServer, tmp_path: Path) -> None:
    first = download(tmp_path / "store")
    server.forget()
    again = download(tmp_path / "store")
    assert not [key for key in server.keys() if "inventory" not in key]
    assert [m.shards for m in again.shards] == [m.shards for m in first.shards]
    assert (again.total("new"), again.total("unchanged")) == (0, 40)


# Faults.


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("status", {}),
        ("slow_down", {"retry_after": 0.1}),
        ("reset", {}),
        ("truncate", {}),
        ("stall", {}),
        ("stall_before", {}),
        ("wrong_bytes", {}),
    ],
)
def test_what_goes_wrong_once_is_tried_again(
    server: FaultServer, tmp_path: Path, kind: Any, more: dict[str, Any]
) -> None:
    server.fault(r"^PMC(7|8)\.1/|^metadata/PMC9\.1", kind, times=1, **more)
    got = download(tmp_path / "store")
    assert len(got.ids) == 40
    assert not got.rejected
    assert server.counts[kind] == 3


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("status", "http-500"),
        ("reset", "unreadable"),
        ("truncate", "unreadable"),
        ("stall", "unreadable"),
        ("wrong_bytes", "md5-mismatch"),
        ("not_found", "missing"),
    ],
)
def test_what_never_comes_is_recorded_by_id_and_reason(
    server: FaultServer, tmp_path: Path, kind: Any, reason: str
) -> None:
    server.fault(r"^PMC7\.1/", kind)
    got = download(tmp_path / "store")
    assert got.rejected == {"PMC7": reason}
    assert got.ids == {f"PMC{n}" for n in range(1, 41)} - {"PMC7"}
    assert server.counts[kind] == (1 if kind == "not_found" else QUICK["attempts"])
    assert "PMC7.1/PMC7.1.xml" in got.shards[0].rejected[0].detail
    # At the next refresh it is tried again; nothing else is.
    server.heal()
    server.forget()
    small_bucket(tmp_path / "bucket", 41).write_inventory(SECOND)
    assert len(download(tmp_path / "store").ids) == 41
    assert {key.split("/")[0] for key in server.keys() if key.startswith("PMC")} == {"PMC7.1", "PMC41.1"}


def test_malformed_metadata_costs_one_article_and_says_what_is_wrong(tmp_path: Path) -> None:
    bucket = small_bucket(tmp_path / "bucket", 20)
    wrong: dict[int, dict[str, Any]] = {
        1: {"raw_metadata": b"{not json"},
        2: {"metadata_changes": {"is_retracted": "perhaps"}},
        3: {"metadata_changes": {"is_manuscript": 1}},
        4: {"metadata_changes": {"is_pmc_openaccess": ...}},
        5: {"metadata_changes": {"pmcid": "PMC6"}},
        6: {"metadata_changes": {"xml_url": "s3://pmc-oa-opendata/PMC7.1/PMC7.1.xml?md5=" + "0" * 32}},
        7: {"metadata_changes": {"xml_url": "s3://pmc-oa-opendata/../secret.xml?md5=" + "0" * 32}},
        8: {"metadata_changes": {"xml_url": "s3://pmc-oa-opendata/PMC8.1/PMC8.1.xml"}},
        9: {"metadata_missing": True},
        10: {"wrong_md5": True},
    }
    for pmcid, changes in wrong.items():
        bucket.update(pmcid, **changes)
    bucket.update(11, metadata_changes={"xml_url": None})
    bucket.write_inventory(FIRST)
    got = download(tmp_path / "store", bucket.folder)
    assert got.rejected == {f"PMC{n}": "malformed-metadata" for n in range(1, 9)} | {
        "PMC9": "missing",
        "PMC10": "md5-mismatch",
    }
    assert got.dropped == {"no-xml": 1}
    assert got.ids == {f"PMC{n}" for n in range(12, 21)}
    details = {each.id: each.detail for manifest in got.shards for each in manifest.rejected}
    assert "is_retracted: 'perhaps' is neither true, false, yes nor no" in details["PMC2"]
    assert "is_manuscript" in details["PMC3"]
    assert "is_pmc_openaccess" in details["PMC4"]


def test_an_article_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    bucket = small_bucket(tmp_path / "bucket", 3)
    bucket.update(2, xml=b"<article>" + b"x" * 5000 + b"</article>")
    bucket.write_inventory(FIRST)
    got = download(tmp_path / "store", bucket.folder, max_article_bytes=1000)
    assert got.rejected == {"PMC2": "too-large"}


def test_too_many_failures_end_the_step_early_and_leave_no_shard(server: FaultServer, tmp_path: Path) -> None:
    server.fault(r"^PMC\d+\.1/", "status")
    with pytest.raises(InputError, match=r"could not be fetched \(http-500 \d+\).*max_failed_fraction.*PMC\d+"):
        download(tmp_path / "store", max_failed_fraction=0.1, articles_per_shard=1000, transport={"concurrency": 1})
    assert not list((tmp_path / "store").rglob("shard-*.json"))
    assert len({key for key in server.keys() if key.startswith("PMC")}) < 40
    server.heal()
    assert len(download(tmp_path / "store", max_failed_fraction=0.1, articles_per_shard=1000).ids) == 40


def test_a_server_that_throttles_gets_fewer_requests_and_loses_no_article(server: FaultServer, tmp_path: Path) -> None:
    server.limit(200, retry_after=0.05, burst=8)
    got = download(tmp_path / "store", transport={"longest_backoff_seconds": 0.3})
    assert len(got.ids) == 40
    assert not got.rejected
    assert server.counts["limit"] > 0 or Counter(each.status for each in server.requests)[503] > 0


def test_open_requests_never_exceed_the_recipes_concurrency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_bucket(tmp_path / "bucket").write_inventory(FIRST)
    server = FaultServer(tmp_path / "bucket", latency=0.01)
    monkeypatch.setenv("PMC_OA_ENDPOINT_URL", server.endpoint)
    get_settings.cache_clear()
    with server:
        download(tmp_path / "store", transport={"concurrency": 3}, articles_per_shard=1000)
    assert server.most_concurrent == 3


FETCH_ALL = """
import sys
from components.common import storage
from components.download.fetch import fetch_shard
from components.download.plan import plan_download
from components.download.settings import DownloadSettings

settings = DownloadSettings(source="pmc", articles_per_shard=10, transport={"concurrency": 2})
plan = plan_download(settings, storage.to_uri(sys.argv[1]))
for shard in plan.shards:
    fetch_shard(plan, shard.name, settings)
"""


def test_a_killed_process_loses_only_its_unfinished_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, store = small_bucket(tmp_path / "bucket"), tmp_path / "store"
    bucket.write_inventory(FIRST)
    server = FaultServer(bucket.folder, latency=0.15)
    monkeypatch.setenv("PMC_OA_ENDPOINT_URL", server.endpoint)
    with server:
        process = subprocess.Popen([sys.executable, "-c", FETCH_ALL, str(store)], cwd=ROOT)
        while len(finished := sidecars(store)) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert len(finished) < 4
        done = {row for shard in finished for row in pq.read_table(shard)["article_id"].to_pylist()}
        server.forget()
        server.latency = 0
        subprocess.run([sys.executable, "-c", FETCH_ALL, str(store)], cwd=ROOT, check=True)
        asked = {key.split("/")[0].removesuffix(".1") for key in server.keys() if key.startswith("PMC")}
    assert not asked & done
    assert asked | done == {f"PMC{number}" for number in range(1, 41)}
    whole = download(tmp_path / "whole", bucket.folder, articles_per_shard=10)
    assert {pq.read_table(shard).num_rows for shard in sidecars(store)} == {m.shards[0].rows for m in whole.shards}


def sidecars(store: Path) -> list[Path]:
    """Return the Parquet files of the shards that are finished."""
    return [path.with_suffix(".parquet") for path in store.rglob("shard-*.json")]


# Before the first article.


def test_a_bucket_that_nobody_answers_for_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMC_OA_ENDPOINT_URL", "http://127.0.0.1:9")
    get_settings.cache_clear()
    with pytest.raises(
        StorageError, match=r"Cannot read the articles' bucket s3://pmc-oa-opendata at http://127\.0\.0\.1:9"
    ):
        download(tmp_path / "store")


def test_a_disk_without_room_is_found_before_the_first_article(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(StorageError, match=r"has 0\.0 GB left"):
        download(tmp_path / "store")
    assert not [key for key in server.keys() if key.startswith(("PMC", "metadata"))]


def test_a_store_that_cannot_be_written_is_found_before_the_first_article(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="not a folder"):
        download(tmp_path / "file")
    assert not server.requests


def test_a_mirror_in_a_folder_or_below_a_prefix_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = small_bucket(tmp_path / "server" / "mirrors" / "pmc", 5)
    bucket.write_inventory(FIRST)
    with serving(tmp_path / "server", monkeypatch) as server:
        assert len(download(tmp_path / "a", f"s3://{server.bucket}/mirrors/pmc").ids) == 5
    assert len(download(tmp_path / "b", bucket.folder).ids) == 5
    with pytest.raises(InputError, match="no folder"):
        download(tmp_path / "c", tmp_path / "nowhere")


def test_the_index_beside_a_shard_accounts_for_every_listed_article(planted: PmcBucket, tmp_path: Path) -> None:
    got = download(tmp_path, planted.folder)
    index = [
        row
        for manifest in got.shards
        for row in pq.read_table(storage.local_path(index_uri(manifest.shards[0].uri))).to_pylist()
    ]
    assert {row["article_id"] for row in index} == {f"PMC{each.pmcid}" for each in planted.listed()}
    assert {row["article_id"] for row in index if row["outcome"] == "fetched"} == got.ids
    assert all(re.fullmatch("[0-9a-f]{32}", row["etag"]) for row in index)
    assert all(json.loads(row["metadata"])["pmcid"] == row["article_id"] for row in index)


def test_no_thread_is_left_behind_when_a_shard_fails(server: FaultServer, tmp_path: Path) -> None:
    server.fault(r"^PMC\d+\.1/", "not_found")
    with pytest.raises(InputError):
        download(tmp_path / "store", max_failed_fraction=0)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("fetch", "pack"))]
