"""The store is written, listed, read and deleted; places of things are looked at without reading them."""

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from components.common import storage
from components.common.settings import get_settings
from components.preflight.findings import Finding
from components.preflight.machine import look_at_disk, look_at_memory
from components.preflight.places import look_at_articles, look_at_base_model, look_at_benchmarks
from components.preflight.settings import Situation, read_situation
from components.preflight.store import look_at_store
from tests.hub_server import Hub, Repo, running_hub
from tests.ports import free_ports

COMMIT = "1" * 40


def situation(submitting: bool = False, steps: Any = None, train: Any = None, **download: Any) -> Situation:
    return read_situation(download, train or {}, steps or {}, submitting)


def use_store(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("PMC_STORE_URI", uri)
    get_settings.cache_clear()


def only(findings: Any) -> Finding:
    (found,) = findings
    assert bool(found.remedy) == (found.state != "ok") and found.found.endswith(".")
    return found


def test_a_folder_is_used_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_store(monkeypatch, f"file://{tmp_path}/store")
    assert only(look_at_store(situation())).state == "ok"
    assert list((tmp_path / "store").iterdir()) == []


def test_a_place_that_is_no_folder_fails_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    use_store(monkeypatch, f"file://{tmp_path}/file/store")
    found = only(look_at_store(situation()))
    assert found.state == "failed" and "is a file, not a folder" in found.found


def test_a_disk_is_no_store_for_a_cluster_unless_the_pods_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(monkeypatch, f"file://{tmp_path}/store")
    job: dict[str, Any] = {"launcher": "pytorchjob"}
    assert only(look_at_store(situation(train=job))).state == "failed"
    shared = job | {"cluster": {"volume_claims": {"disk": str(tmp_path)}}}
    assert only(look_at_store(situation(train=shared))).state == "ok"
    assert only(look_at_store(situation(True, train=shared))).state == "unknown"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert only(look_at_store(situation())).state == "failed"


def test_a_bucket_is_used_and_left_as_it_was(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_store(monkeypatch, f"{s3_server}/pipeline")
    job = {"launcher": "pytorchjob", "cluster": {"secrets": {"s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]}}}
    store, pods = look_at_store(situation(train=job))
    assert store.state == "ok" and "with credentials from the environment" in store.found
    assert (pods.state, pods.found) == ("ok", "They take their keys from a secret.")
    assert storage.list_files(s3_server) == []
    _, bare = look_at_store(situation(train={"launcher": "pytorchjob"}))
    assert bare.state == "warning"
    storage.write(f"{s3_server}/model/config.json", b"{}")
    assert only(look_at_base_model(situation(base_model=f"{s3_server}/model"))).state == "ok"
    assert only(look_at_base_model(situation(base_model=f"{s3_server}/mode"))).state == "failed"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage._s3_store.cache_clear()
    use_store(monkeypatch, f"{s3_server}/pipeline")
    found = only(look_at_store(situation()))
    assert found.state == "failed" and "s3:PutObject" in found.remedy and "wrong" not in repr(found)


def test_what_only_the_steps_can_see_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://pmc-llama-s3:8333")
    use_store(monkeypatch, "s3://pmc-llama/store")
    assert only(look_at_store(situation(True))).found == "http://pmc-llama-s3:8333 is an address within the cluster."
    taken = {"config_maps": {"endpoints": ["PMC_STORE_URI"]}}
    assert only(look_at_store(situation(True, taken))).found == (
        "The steps take PMC_STORE_URI from config map endpoints."
    )


def test_places_on_disk_are_looked_up(tmp_path: Path) -> None:
    articles = tmp_path / "articles"
    articles.mkdir()
    assert only(look_at_articles(situation(source="files", articles=str(articles)))).state == "failed"  # empty
    (articles / "PMC1.xml").write_text("<article/>")
    assert only(look_at_articles(situation(source="files", articles=str(articles)))).state == "ok"
    archive = tmp_path / "articles.tar"
    with tarfile.open(archive, "w") as file:
        file.add(articles, "articles")
    assert only(look_at_articles(situation(source="files", articles=str(archive)))).state == "ok"
    assert only(look_at_articles(situation(True, source="files", articles=str(archive)))).state == "failed"
    assert only(look_at_articles(situation(source="files"))).found == "download.articles is empty."
    assert only(look_at_benchmarks(situation(benchmarks=str(tmp_path / "none")))).state == "failed"
    assert only(look_at_base_model(situation(base_model=str(articles)))).state == "ok"
    for look in (look_at_articles, look_at_benchmarks, look_at_base_model):
        assert list(look(situation())) == []  # the bundled sample is always there


def test_sources_of_articles_need_their_key_and_their_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(look_at_articles(situation(source="s2orc"))).state == "failed"
    monkeypatch.setenv("S2_API_KEY", "key")
    assert only(look_at_articles(situation(source="s2orc"))).found == "S2_API_KEY is set."
    mirror = {"bucket": str(tmp_path)}
    assert only(look_at_articles(situation(source="pmc", pmc=mirror))).state == "failed"
    (tmp_path / "inventory-reports/pmc-oa-opendata/metadata/2026-08-25T01-00Z").mkdir(parents=True)
    (tmp_path / "inventory-reports/pmc-oa-opendata/metadata/2026-08-25T01-00Z/manifest.json").write_text("{}")
    found = only(look_at_articles(situation(source="pmc", pmc=mirror)))
    assert found.state == "ok" and "2026-08-25T01-00Z" in found.found


def test_the_hub_is_asked_for_repository_revision_and_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    (tmp_path / "config.json").write_text("{}")
    hub.repos["datasets/owner/open"] = hub.repos["models/owner/open"] = Repo(tmp_path, COMMIT)
    hub.repos["models/owner/gated"] = Repo(tmp_path, COMMIT, gated=True, page_open=True)

    def look(name: str, revision: str = "main") -> Finding:
        return only(look_at_base_model(situation(base_model=name, base_model_revision=revision)))

    assert look("owner/open").state == look("owner/open", COMMIT).state == "ok"
    assert not any(".safetensors" in path for _, path, *_ in hub.requests)
    assert look("owner/open", "2" * 40).state == "failed"
    assert look("owner/none").found.startswith("There is no model owner/none (revision main)")
    gated = look("owner/gated")
    assert gated.state == "failed" and "HF_TOKEN" in gated.remedy
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert look("owner/gated").state == "ok"
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = look("owner/open")
    assert offline.state == "failed" and offline.remedy.startswith("Unset HF_HUB_OFFLINE, or set download.base_model")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    assert "cannot be asked for owner/open" in look("owner/open").found
    pins = {"medqa": f"owner/open@{COMMIT}", "pubmedqa": f"owner/none@{COMMIT}"}
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    medqa, pubmedqa = look_at_benchmarks(situation(benchmarks="hub", hub=pins))
    assert pubmedqa.subject == "Benchmark pubmedqa" and pubmedqa.remedy.startswith("Correct download.hub.pubmedqa")
    assert (medqa.subject, medqa.state) == ("Benchmark medqa", "ok")


def test_room_is_compared_with_what_training_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_store(monkeypatch, f"file://{tmp_path}/store/that/is/not/there")
    assert only(look_at_disk(situation())).state == "ok"
    assert only(look_at_memory(situation())).state == "ok"
    with (tmp_path / "model.safetensors").open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)  # a hole: it takes no room
    assert only(look_at_disk(situation(base_model=str(tmp_path)))).state == "warning"
    assert only(look_at_memory(situation(base_model=str(tmp_path)))).state == "warning"
    job = {"launcher": "pytorchjob"}
    assert only(look_at_disk(situation(train=job, base_model=str(tmp_path)))).state == "ok"
    assert list(look_at_memory(situation(train=job))) == []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
