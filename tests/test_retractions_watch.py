"""The retraction watch says what became of every trained article, asks for no more than it must, and never guesses."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from fault_server import FaultServer
from pmc_bucket import PmcBucket, realistic_bucket
from preprocess_helpers import corpus_of, deduplicate, save_questions
from rich.console import Console

from components.common import article_index, storage
from components.common.errors import InputError, PipelineError, StorageError
from components.common.model_registry import find_version
from components.common.pmc.settings import PmcSettings
from components.common.settings import get_settings
from components.preprocess.clean import clean_shard
from components.preprocess.settings import PreprocessSettings
from components.retractions.findings import KINDS, Finding, Report
from components.retractions.report import render, sentence, table, to_json
from components.retractions.watch import _some, watch_model
from tests.retractions_helpers import (
    FIRST,
    HELD_OUT,
    MODEL,
    QUICK,
    SECOND,
    TRAINED,
    XML,
    bucket,
    client,
    download,
    migrated_database,
    register,
    train,
    write_corpus,
)

__all__ = ["bucket", "client", "migrated_database"]


@pytest.fixture
def server(bucket: PmcBucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    with FaultServer(bucket.folder) as running:
        monkeypatch.setenv("PMC_OA_ENDPOINT_URL", running.endpoint)
        get_settings.cache_clear()
        yield running


def watch(wanted: str = MODEL, pmc: PmcSettings | None = None) -> Report:
    return watch_model(wanted, pmc or PmcSettings(), QUICK)


def counts(report: Report) -> dict[str, int]:
    return {kind: count for kind, count in report.counts.items() if count}


def metadata_keys(server: FaultServer) -> list[str]:
    return [key for key in server.keys("GET") if key.startswith("metadata/")]


def by_id(report: Report) -> dict[str, Finding]:
    return {each.id: each for each in report.findings}


def test_where_nothing_changed_no_article_is_asked_for(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.write_inventory(SECOND)
    report = watch()
    assert metadata_keys(server) == []
    assert counts(report) == {"unchanged": 12}
    assert (report.looked_up, report.affected, report.inventory) == (0, 0, SECOND)
    assert sentence(report) == (
        f"None of the 12 articles that {MODEL} version 1 learned from is retracted or withdrawn since "
        f"(inventory {SECOND})."
    )
    tags = client.get_model_version(MODEL, "1").tags
    assert (tags["retractions_checked"], tags["retracted_articles"], tags["withdrawn_articles"]) == (SECOND, "0", "0")
    assert "retracted_ids" not in tags


def test_each_kind_of_change_is_told_apart_and_only_what_changed_is_asked_for(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.update(101, retracted=True)
    bucket.withdraw(102)
    bucket.update(103, licence="CC BY-NC")
    bucket.revise(104, retracted=True, flags_as_strings=True)
    bucket.update(105, title="broken")
    bucket.revise(106, xml=XML + b"<!-- corrected -->")
    bucket.update(107, licence="TDM", open_access=False)
    bucket.update(108, title="A better title")
    bucket.update(HELD_OUT, retracted=True)  # the model never learned from it
    bucket.write_inventory(SECOND)
    server.fault(r"PMC105\.1\.json$", "status", status=500)
    report = watch()
    assert counts(report) == {
        "retracted": 2,
        "withdrawn": 1,
        "unknown": 1,
        "relicensed": 2,
        "updated": 2,
        "unchanged": 4,
    }
    found = by_id(report)
    assert list(found) == ["PMC101", "PMC104", "PMC102", "PMC105", "PMC103", "PMC107"]
    assert (found["PMC101"].kind, found["PMC101"].doi, found["PMC101"].title) == (
        "retracted",
        "10.5555/101",
        "Article 101",
    )
    assert (found["PMC104"].kind, found["PMC104"].old_version, found["PMC104"].new_version) == ("retracted", 1, 2)
    assert (found["PMC102"].kind, found["PMC102"].title, found["PMC102"].old_version) == (
        "withdrawn",
        "Article 102",
        1,
    )
    assert (found["PMC103"].old_licence, found["PMC103"].new_licence) == ("CC BY", "CC BY-NC")
    assert (found["PMC107"].old_licence, found["PMC107"].new_licence) == ("CC BY", "TDM, not open access")
    assert (found["PMC105"].kind, found["PMC105"].reason) == ("unknown", "http-500")
    assert "metadata/PMC105.1.json" in found["PMC105"].detail
    asked = metadata_keys(server)
    assert sorted(set(asked)) == [f"metadata/PMC{name}.json" for name in (
        "101.1", "103.1", "104.2", "105.1", "106.2", "107.1", "108.1",
    )]  # fmt: skip
    assert asked.count("metadata/PMC105.1.json") == QUICK.attempts
    assert report.looked_up == 7
    assert sentence(report) == (
        f"Of the 12 articles that {MODEL} version 1 learned from, 2 are retracted and 1 is withdrawn since "
        f"(inventory {SECOND}). 1 could not be checked (http-500 1)."
    )


def test_the_report_is_kept_as_json_and_the_version_is_tagged_with_it(bucket, client, server, tmp_path):
    corpus = train(bucket, client, tmp_path / "store")
    bucket.update(101, retracted=True)
    bucket.withdraw(102)
    bucket.write_inventory(SECOND)
    report = watch()
    tags = client.get_model_version(MODEL, "1").tags
    uri = tags["retractions_report"]
    assert uri == f"file://{tmp_path}/store/retractions/{MODEL}/1/{SECOND}.json"
    assert (tags["retractions_checked"], tags["retracted_articles"], tags["withdrawn_articles"]) == (SECOND, "1", "1")
    assert tags["retracted_ids"] == "PMC101"
    kept = json.loads(storage.read(uri))
    assert kept == report.to_dict()
    assert (kept["model"], kept["version"], kept["corpus_fingerprint"]) == (MODEL, "1", corpus.fingerprint)
    assert (kept["inventory"], kept["trained"], kept["checked"], kept["complete"]) == (SECOND, 12, 12, True)
    assert kept["counts"] == dict.fromkeys(KINDS, 0) | {"retracted": 1, "withdrawn": 1, "unchanged": 10}
    assert [each["id"] for each in kept["articles"]] == ["PMC101", "PMC102"]
    first = storage.read(uri)
    watch()
    assert storage.read(uri) == first


def test_a_tag_that_no_longer_holds_is_removed(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.update(101, retracted=True)
    bucket.write_inventory(SECOND)
    server.fault(r"PMC102", "not_found")
    watch()
    assert client.get_model_version(MODEL, "1").tags["retracted_ids"] == "PMC101"
    bucket.update(101, retracted=False)
    bucket.write_inventory("2026-08-27T01-00Z")
    report = watch()
    tags = client.get_model_version(MODEL, "1").tags
    assert tags["retracted_articles"] == "0"
    assert "retracted_ids" not in tags
    assert counts(report) == {"unchanged": 12}


def test_metadata_that_was_written_anew_and_says_the_same_is_no_change(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.update(101, flags_as_strings=True)
    bucket.write_inventory(SECOND)
    report = watch()
    assert (counts(report), report.looked_up) == ({"unchanged": 12}, 1)


def test_a_new_version_is_looked_at_even_where_its_etag_is_the_old_one(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.revise(101, raw_metadata=bucket.current(101).metadata())
    bucket.write_inventory(SECOND)
    finding = by_id(watch())["PMC101"]
    assert (finding.kind, finding.detail) == ("unknown", "metadata/PMC101.2.json speaks of PMC101.1")


def test_what_was_retracted_before_the_training_is_not_reported_as_new(bucket, client, server, tmp_path):
    for pmcid in (101, 102, 103, 104):
        bucket.update(pmcid, retracted=True)
    bucket.write_inventory(FIRST)
    train(bucket, client, tmp_path / "store", retracted=True)
    bucket.revise(102, title="Retracted: an article")
    bucket.withdraw(103)
    bucket.revise(104, retracted=False)
    bucket.update(105, retracted=True)
    bucket.write_inventory(SECOND)
    report = watch()
    kinds = {name: each.kind for name, each in by_id(report).items()}
    assert kinds == {
        "PMC101": "known-before",
        "PMC102": "known-before",
        "PMC103": "withdrawn",
        "PMC105": "retracted",
    }
    assert counts(report)["updated"] == 1
    assert "metadata/PMC101.1.json" not in metadata_keys(server)
    assert by_id(report)["PMC101"].title == "Article 101"
    assert report.affected == 2


def test_of_several_versions_only_the_highest_counts(bucket, client, server, tmp_path):
    bucket.revise(101)
    bucket.write_inventory(FIRST)
    train(bucket, client, tmp_path / "store")
    # The superseded version is changed and even retracted; the current one is as it was.
    bucket.add(bucket.articles[101, 1].__class__(101, XML, retracted=True))
    bucket.write_inventory(SECOND)
    assert counts(watch()) == {"unchanged": 12}
    assert metadata_keys(server) == []


def test_a_version_lower_than_the_one_that_was_used_is_not_taken_for_its_successor(bucket, client, server, tmp_path):
    bucket.revise(101)
    bucket.write_inventory(FIRST)
    train(bucket, client, tmp_path / "store")
    bucket.withdraw(101)
    bucket.add(bucket.current(102).__class__(101, XML))
    bucket.write_inventory(SECOND)
    finding = by_id(watch())["PMC101"]
    assert (finding.kind, finding.reason) == ("unknown", "older-version")
    assert finding.detail == "version 2 was used, but the newest that the inventory lists is 1"


def test_without_a_recorded_state_every_article_is_looked_up(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    for index in (tmp_path / "store" / "raw").rglob(f"*{article_index.SUFFIX}"):
        index.unlink()
    bucket.update(101, retracted=True)
    bucket.withdraw(102)
    bucket.update(103, licence=None)
    bucket.write_inventory(SECOND)
    report = watch()
    assert counts(report) == {"retracted": 1, "unknown": 1, "relicensed": 1, "updated": 9}
    found = by_id(report)
    # Whether it was ever listed nobody can say any more.
    assert (found["PMC102"].kind, found["PMC102"].reason) == ("unknown", "not-listed")
    assert (found["PMC103"].old_licence, found["PMC103"].new_licence) == ("", "none")
    assert len(metadata_keys(server)) == 11


def test_articles_of_ones_own_that_are_named_by_their_pmcids_are_looked_up_too(bucket, client, server, tmp_path):
    bucket.update(104, retracted=True)
    bucket.write_inventory(SECOND)
    ids = ["PMC103", "PMC104", "PMC999900001", "my-article", "PMC0104", "PMC1x", "", "PMC104\n"]
    corpus = write_corpus(tmp_path / "store", ids)
    register(client, corpus.fingerprint)
    report = watch()
    assert {name: each.kind for name, each in by_id(report).items()} == {
        "PMC104": "retracted",
        "PMC999900001": "unknown",
    }
    assert (report.trained, report.foreign) == (8, 5)
    assert sentence(report).endswith(
        "1 could not be checked (not-listed 1). 5 others have no PMCID and cannot be looked up."
    )


def test_a_corpus_without_any_pmcid_is_refused(bucket, client, server, tmp_path):
    corpus = write_corpus(tmp_path / "store", ["my-article", "yours"])
    register(client, corpus.fingerprint)
    with pytest.raises(InputError, match="None of the 2 articles of the corpus c0ffee has an id of PubMed Central"):
        watch()
    assert server.keys() == []


def test_where_nothing_is_found_but_some_is_unknown_the_watch_does_not_say_none(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.update(101, raw_metadata=b"{")
    bucket.update(102, metadata_changes={"is_retracted": "perhaps"})
    bucket.update(103, metadata_missing=True, title="changed")
    bucket.write_inventory(SECOND)
    report = watch()
    assert {name: each.reason for name, each in by_id(report).items()} == {
        "PMC101": "malformed-metadata",
        "PMC102": "malformed-metadata",
        "PMC103": "missing",
    }
    assert "'perhaps' is neither true, false, yes nor no" in by_id(report)["PMC102"].detail
    assert sentence(report) == (
        f"Of the 12 articles that {MODEL} version 1 learned from, none is known to be retracted or withdrawn since "
        f"(inventory {SECOND}). 3 could not be checked (malformed-metadata 2, missing 1)."
    )
    assert not report.to_dict()["complete"]
    tags = client.get_model_version(MODEL, "1").tags
    assert (tags["unknown_articles"], tags["unknown_reasons"]) == ("3", "malformed-metadata 2, missing 1")


def test_an_answer_that_comes_after_a_fault_counts(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    for pmcid in (101, 102, 103):
        bucket.update(pmcid, retracted=True)
    bucket.write_inventory(SECOND)
    server.fault(r"PMC101", "status", times=1)
    server.fault(r"PMC102", "reset", times=1)
    server.fault(r"PMC103", "slow_down", times=2)
    assert counts(watch()) == {"retracted": 3, "unchanged": 9}


def test_a_bucket_in_a_folder_is_read_as_one_over_http(bucket, client, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.update(101, retracted=True)
    bucket.write_inventory(SECOND)
    report = watch(pmc=PmcSettings(bucket=str(bucket.folder)))
    assert counts(report) == {"retracted": 1, "unchanged": 11}
    assert report.looked_up == 1


def test_it_understands_what_the_stages_themselves_leave_behind(client, tmp_path):
    planted = realistic_bucket(tmp_path / "planted", 24)
    planted.write_inventory(FIRST)
    pmc = PmcSettings(bucket=str(planted.folder))
    raws = download(planted, tmp_path / "store", articles_per_shard=8)
    settings = PreprocessSettings(filters={"min_words": 50})
    questions = save_questions(
        tmp_path, {"medqa-test": [{"id": "q", "question": "Which drug would help this man most?"}]}
    )
    cleaned = [
        shard for raw in raws for shard in clean_shard(raw, settings, f"file://{tmp_path}/store", questions).shards
    ]
    corpus = corpus_of(tmp_path / "store", deduplicate(tmp_path / "store", cleaned, 0.9), validation_fraction=0.2)
    register(client, corpus.fingerprint)
    used = corpus.totals["train_documents"]
    assert used > 5
    assert counts(watch(pmc=pmc)) == {"unchanged": used}
    for article in planted.listed():
        planted.update(article.pmcid, retracted=True)
    planted.write_inventory(SECOND)
    assert counts(watch(pmc=pmc)) == {"retracted": used}


def test_an_older_inventory_can_be_asked_for(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    bucket.update(101, retracted=True)
    bucket.write_inventory(SECOND)
    report = watch(pmc=PmcSettings(inventory=FIRST))
    assert (report.inventory, counts(report)) == (FIRST, {"unchanged": 12})


def test_a_version_is_found_by_what_people_call_it(client):
    for name in ("one", "one", "one", "it's a model", "7"):
        register(client, "", name)
    client.set_registered_model_alias("one", "champion", "2")
    client.set_registered_model_alias("one", "candidate", "3")
    called = {
        "one": "2",
        " one ": "2",
        "one/1": "1",
        "one/03": "3",
        "one@candidate": "3",
        "models:/one": "2",
        "models:/one/1": "1",
        "models:/one@champion": "2",
        "it's a model": "1",
        "7": "1",
    }
    found = {wanted: find_version(get_settings().tracking_uri, wanted) for wanted in called}
    assert {wanted: str(version.version) for wanted, version in found.items()} == called
    assert [version.name for version in found.values()] == ["one"] * 8 + ["it's a model", "7"]


def test_without_a_champion_the_newest_version_is_meant_and_a_number_alone_where_there_is_one_model(client):
    for _ in range(12):
        register(client, "")
    uri = get_settings().tracking_uri
    assert str(find_version(uri, MODEL).version) == "12"
    assert str(find_version(uri, "3").version) == "3"


def test_what_is_not_there_is_refused_with_what_is(client):
    register(client, "", "one")
    register(client, "", "one")
    client.set_registered_model_alias("one", "champion", "2")
    client.create_registered_model(MODEL)
    malformed = "names no model; give name, name/3, name@alias or a version's number."
    for wanted, problem in {
        "two": "No model 'two' is registered; there are one, pmc-llama-test.",
        "one/9": "The model 'one' has no version 9; it has versions 1, 2 and aliases champion (2).",
        "one@best": "The model 'one' has no alias 'best'; it has versions 1, 2 and aliases champion (2).",
        "2": "Version 2 of which model? Give name/2; there are one, pmc-llama-test.",
        "one/x": f"'one/x' {malformed}",
        "": f"'' {malformed}",
        MODEL: "The model 'pmc-llama-test' has no version; run the pipeline to register one.",
    }.items():
        with pytest.raises(InputError) as raised:
            find_version(get_settings().tracking_uri, wanted)
        assert str(raised.value) == problem


def test_no_database_is_made_where_there_is_none(tmp_path):
    with pytest.raises(InputError, match=r"There is no MLflow database .*/absent\.db, so no model is registered there"):
        find_version(f"sqlite:///{tmp_path}/absent.db", MODEL)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        find_version("", MODEL)


@pytest.mark.parametrize("fingerprint", ["", "../../etc"])
def test_a_model_that_does_not_say_what_it_was_trained_on_is_refused(client, tmp_path, fingerprint):
    register(client, fingerprint)
    with pytest.raises(InputError, match=r"does not say what it was trained on \(its tag corpus_fingerprint is"):
        watch()


def test_a_corpus_that_is_not_in_this_store_is_named(client, tmp_path):
    register(client, "f00d")
    with pytest.raises(InputError, match="The corpus f00d, which pmc-llama-test version 1 was trained on, is not in"):
        watch()


def test_a_store_that_takes_nothing_is_found_out_before_anything_is_read(bucket, client, server, tmp_path, monkeypatch):
    train(bucket, client, tmp_path / "store")

    def refuse(uri: str, data: bytes) -> None:
        raise StorageError(f"Cannot write {uri}: permission denied")

    monkeypatch.setattr(storage, "write", refuse)  # root may write anywhere, so no real folder refuses it
    with pytest.raises(StorageError, match="permission denied"):
        watch()
    assert server.keys() == []


def test_damaged_records_are_named_and_nothing_is_guessed(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    index = next((tmp_path / "store" / "raw").rglob(f"*{article_index.SUFFIX}"))
    index.write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"articles\.parquet is no readable index"):
        watch()
    ids = tmp_path / "store" / "tokens" / "0" / "train-b.ids.json"
    ids.write_text('["PMC101"]')
    with pytest.raises(InputError, match=r"train-b\.ids\.json names 1 articles, but its shard has 6"):
        watch()
    ids.write_text('["PMC101", 7]')
    with pytest.raises(InputError, match=r"train-b\.ids\.json is no list of article ids"):
        watch()
    assert "retractions_checked" not in client.get_model_version(MODEL, "1").tags


def test_a_bucket_that_cannot_be_reached_is_an_error_and_leaves_no_tag(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    server.fault(".", "status", status=403)
    with pytest.raises(PipelineError, match=r"403|forbidden|denied"):
        watch()
    assert "retractions_checked" not in client.get_model_version(MODEL, "1").tags


def test_a_models_name_is_a_folder_of_its_own_whatever_is_in_it(bucket, client, server, tmp_path):
    names = ["a b", "a_b", ".hidden"]
    for name in names:
        train(bucket, client, tmp_path / "store", name=name)
        watch(name)
    folders = sorted(path.name for path in (tmp_path / "store" / "retractions").iterdir())
    assert [folder.partition("-")[0] for folder in folders] == ["a_b", "a_b", "hidden"]
    uris = [client.get_model_version(name, "1").tags["retractions_report"] for name in names]
    assert [json.loads(storage.read(uri))["model"] for uri in uris] == names


def _report(*findings: Finding) -> Report:
    report = Report("m", "3", "c0ffee", SECOND, trained=10)
    for each in findings:
        report.add(each)
    report.sort()
    return report


def test_the_page_escapes_what_strangers_wrote_and_loads_nothing():
    hostile = "<script>alert(1)</script>"
    page = render(_report(Finding("PMC1", "retracted", title=hostile, doi='"><img src=x>'), Finding("PMC2", "unknown")))
    assert hostile not in page
    assert "&lt;script&gt;" in page
    assert "<img" not in page
    assert "http" not in page.replace("http-", "")
    assert "prefers-color-scheme: dark" in page


def test_the_page_and_the_table_say_how_many_more_there_are():
    report = _report(*(Finding(f"PMC{number}", "retracted") for number in range(1, 1002)))
    assert "And 501 more" in render(report)
    console = Console(width=120, record=True)
    console.print(table(report, 2))
    text = console.export_text()
    assert "PMC1 " in text
    assert "PMC3 " not in text
    assert "and 999 more" in text


def test_a_title_cannot_steer_the_terminal():
    console = Console(width=120, force_terminal=False, record=True)
    console.print(table(_report(Finding("PMC1", "retracted", title="\x1b[2Jgone [red]x[/red]\x07")), 5))
    text = console.export_text()
    assert "\x1b" not in text
    assert "[red]x[/red]" in text


def test_findings_are_ordered_by_how_bad_they_are_and_then_by_number():
    report = _report(
        Finding("PMC20", "relicensed", old_licence="CC BY", new_licence="none"),
        Finding("PMC100", "retracted"),
        Finding("PMC9", "retracted"),
        Finding("PMC1", "updated"),
        Finding("PMC3", "withdrawn"),
    )
    assert [each.id for each in report.findings] == ["PMC9", "PMC100", "PMC3", "PMC20"]
    assert json.loads(to_json(report))["counts"]["updated"] == 1


def test_a_tag_holds_as_many_ids_as_it_can():
    ids = [f"PMC{number}" for number in np.arange(10_000_000, 10_001_000)]
    text = _some(ids)
    assert len(text) <= 5000
    shown, _, more = text.partition(" and ")
    assert len(shown.split(", ")) + int(more.split()[0]) == 1000
    assert _some(ids[:3]) == "PMC10000000, PMC10000001, PMC10000002"
    assert _some([]) == ""


def test_articles_are_examined_many_at_a_time(bucket, client, server, tmp_path):
    train(bucket, client, tmp_path / "store")
    for pmcid in TRAINED:
        bucket.update(pmcid, retracted=True)
    bucket.write_inventory(SECOND)
    server.latency = 0.05
    server.forget()
    assert counts(watch()) == {"retracted": 12}
    assert server.most_concurrent > 1
