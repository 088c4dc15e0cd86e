"""Sources of article files: folders, archives, S3, and what is wrong with them."""

import io
import tarfile
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.download.fetch import fetch_shard
from components.download.plan import plan_download
from components.download.settings import DownloadSettings

XML = b"<article><body><p>Text.</p></body></article>"


def _settings(place: Path | str, **more: object) -> DownloadSettings:
    return DownloadSettings(source="files", articles=str(place), **more)  # type: ignore[arg-type]


def _download(place: Path | str, store: Path, **more: object) -> tuple[Manifest, list[Manifest], list[dict]]:
    settings = _settings(place, **more)
    plan = plan_download(settings, storage.to_uri(store))
    shards = [fetch_shard(plan, shard.name, settings) for shard in plan.shards]
    rows = [row for m in shards for row in pq.read_table(storage.local_path(m.shards[0].uri)).to_pylist()]
    return plan, shards, rows


def _tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


MEMBERS = {"b/PMC2.nxml": XML + b"<!--2-->", "a/PMC1.xml": XML, "a/readme.txt": b"no article", "c/PMC3.XML": XML}


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "tgz", "tar", "zip"])
def test_every_kind_of_place_gives_the_same_articles(kind: str, tmp_path: Path) -> None:
    place = tmp_path / f"articles.{kind}"
    if kind == "folder":
        _folder(place, MEMBERS)
    elif kind == "zip":
        _zip(place, MEMBERS)
    else:
        _tar(place, MEMBERS, "w" if kind == "tar" else "w:gz")
    plan, _, rows = _download(place, tmp_path / "store", articles_per_shard=2)
    assert {row["article_id"]: row["xml"] for row in rows} == {"PMC1": XML, "PMC2": XML + b"<!--2-->", "PMC3": XML}
    assert plan.totals["articles"] == 3
    assert [shard.rows for shard in plan.shards] == [2, 1]


def test_an_s3_prefix_and_an_archive_on_s3_give_the_same_articles(s3_server: str, tmp_path: Path) -> None:
    storage.upload_folder(_folder(tmp_path / "f", MEMBERS), storage.join(s3_server, "raw"))
    storage.upload(_tar(tmp_path / "x.tar.gz", MEMBERS), storage.join(s3_server, "x.tar.gz"))
    for place in (storage.join(s3_server, "raw"), storage.join(s3_server, "x.tar.gz")):
        _, _, rows = _download(place, tmp_path / "store")
        assert sorted(row["article_id"] for row in rows) == ["PMC1", "PMC2", "PMC3"]


def test_files_of_one_name_in_many_folders_keep_apart(tmp_path: Path) -> None:
    _folder(tmp_path / "in", {"x/article.xml": XML, "y/article.xml": XML + b" "})
    _, _, rows = _download(tmp_path / "in", tmp_path / "store")
    assert sorted(row["article_id"] for row in rows) == ["x/article", "y/article"]


def test_members_that_escape_or_are_links_or_too_large_are_rejected_by_name(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar.gz", {"../evil.xml": XML, "/abs.xml": XML, "ok.xml": XML, "big.xml": b"<a/>" * 5000})
    with tarfile.open(path) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    plan, shards, rows = _download(path, tmp_path / "store", max_article_bytes=10_000)
    assert [row["article_id"] for row in rows] == ["ok"]
    assert {r.id: r.reason for r in shards[0].rejected} == {
        "evil": "unsafe-path",
        "abs": "unsafe-path",
        "link": "not-a-file",
        "big": "too-large",
    }
    assert shards[0].totals == {"listed": plan.totals["articles"], "articles": 1}
    assert not (tmp_path / "evil.xml").exists()


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_a_truncated_archive_is_one_sentence_with_its_name(suffix: str, tmp_path: Path) -> None:
    members = {f"PMC{i}.xml": XML + str(i).encode() * 2000 for i in range(50)}
    path = tmp_path / f"cut.{suffix}"
    _zip(path, members) if suffix == "zip" else _tar(path, members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"cut\.{suffix} is truncated or damaged"):
        plan_download(_settings(path), storage.to_uri(tmp_path / "store"))


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"this is no archive")
    with pytest.raises(InputError, match=r"x\.tar\.gz"):
        plan_download(_settings(tmp_path / "x.tar.gz"), storage.to_uri(tmp_path / "store"))


def test_a_damaged_zip_member_costs_only_itself(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", {"a.xml": XML, "b.xml": bytes(range(256)) * 40})
    data = bytearray(path.read_bytes())
    offset = data.index(b"b.xml") + 60
    data[offset : offset + 20] = bytes(20)
    path.write_bytes(bytes(data))
    _, shards, rows = _download(path, tmp_path / "store")
    assert [row["article_id"] for row in rows] == ["a"]
    assert [(r.id, r.reason) for r in shards[0].rejected] == [("b", "unreadable")]


def test_an_empty_or_missing_place_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store = storage.to_uri(tmp_path / "store")
    with pytest.raises(InputError, match=r"No \.xml or \.nxml article in .*empty"):
        plan_download(_settings(tmp_path / "empty"), store)
    with pytest.raises(InputError, match="nowhere"):
        plan_download(_settings(tmp_path / "nowhere"), store)
    with pytest.raises(InputError, match="nowhere"):
        plan_download(_settings(tmp_path / "nowhere.tar.gz"), store)
    with pytest.raises(InputError, match=r"download\.articles"):
        plan_download(DownloadSettings(source="files"), store)


def test_articles_without_their_source_are_refused() -> None:
    with pytest.raises(ValidationError, match="source=files"):
        DownloadSettings(articles="/some/folder")


def test_few_articles_spread_over_the_shards_that_are_asked_for(tmp_path: Path) -> None:
    _folder(tmp_path / "in", {f"PMC{i}.xml": XML + str(i).encode() for i in range(10)})
    for settings, expected in (
        ({"min_shards": 4}, [3, 3, 3, 1]),
        ({"min_shards": 40}, [1] * 10),
        ({"articles_per_shard": 4}, [4, 4, 2]),
    ):
        plan = plan_download(_settings(tmp_path / "in", **settings), storage.to_uri(tmp_path / "store"))
        assert [shard.rows for shard in plan.shards] == expected


def test_a_larger_choice_contains_the_smaller(tmp_path: Path) -> None:
    _folder(tmp_path / "in", {f"PMC{i}.xml": XML + str(i).encode() for i in range(40)})
    chosen = [
        {row["article_id"] for row in _download(tmp_path / "in", tmp_path / f"s{most}", max_articles=most)[2]}
        for most in (5, 20)
    ]
    assert [len(ids) for ids in chosen] == [5, 20]
    assert chosen[0] < chosen[1]


def test_the_same_articles_give_the_same_fingerprint_wherever_they_lie(tmp_path: Path) -> None:
    first = plan_download(_settings(_folder(tmp_path / "a", MEMBERS)), storage.to_uri(tmp_path / "s1"))
    second = plan_download(_settings(_folder(tmp_path / "b", MEMBERS)), storage.to_uri(tmp_path / "s2"))
    changed = _folder(tmp_path / "c", {**MEMBERS, "a/PMC1.xml": XML.replace(b"Text", b"Test")})
    third = plan_download(_settings(changed), storage.to_uri(tmp_path / "s3"))
    assert first.fingerprint == second.fingerprint != third.fingerprint


def test_a_finished_shard_is_not_fetched_again(tmp_path: Path) -> None:
    place = _folder(tmp_path / "in", MEMBERS)
    settings = _settings(place, articles_per_shard=2)
    plan = plan_download(settings, storage.to_uri(tmp_path / "store"))
    first = fetch_shard(plan, "shard-00000", settings)
    for path in place.rglob("*"):
        path.unlink() if path.is_file() else None
    assert fetch_shard(plan, "shard-00000", settings) == first
    with pytest.raises(Exception, match="Cannot read"):
        fetch_shard(plan, "shard-00001", settings)
