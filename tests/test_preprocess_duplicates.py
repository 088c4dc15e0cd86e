"""Copies leave the corpus, everything else stays, and neither sharding nor order has a say in it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from preprocess_helpers import clean_shard, deduplicate, document, prose, with_block_replaced
from pydantic import ValidationError

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest, Shard
from components.preprocess import duplicates
from components.preprocess.duplicates import DUPLICATE_ID, EXACT, NEAR, removed_rows
from components.preprocess.settings import DeduplicateSettings
from components.preprocess.signatures import jaccard, shingles


def removed(manifest: Manifest) -> list[dict[str, Any]]:
    """All removals over the shards, sorted; `row` and shard left out, so that shardings can be compared."""
    lines = []
    for shard in manifest.shards:
        path = storage.local_path(storage.join(manifest.extra["removed_prefix"], f"{shard.name}.parquet"))
        for line in pq.read_table(path).to_pylist():
            line.pop("row")
            lines.append(line)
    return sorted(lines, key=lambda line: (line["article_id"], line["reason"], line["kept_id"]))


def planted() -> list[dict[str, Any]]:
    """40 originals, and of every kind of copy a few; all copies have larger ids than what they copy."""
    originals = [document(f"PMC{100 + number}", prose(number)) for number in range(40)]
    texts = [row["text"] for row in originals]
    copies = [
        *(document(f"PMC{200 + n}", texts[n]) for n in range(4)),
        *(document(f"PMC{300 + n}", texts[10 + n].upper().replace(" ", ",\n")) for n in range(4)),
        *(document(f"PMC{400 + n}", with_block_replaced(texts[20 + n], 0.05, seed=900 + n)) for n in range(8)),
        *(document(f"PMC{500 + n}", with_block_replaced(texts[30 + n], 0.3, seed=800 + n)) for n in range(8)),
        document("PMC139", prose(7777), year=2001),
    ]
    # Of the same year and length, so that the id decides which stays.
    return [{**row, "characters": 4000} for row in [*originals, *copies, document("PMC100", texts[0])]]


def sharded(root: Path, documents: list[dict[str, Any]], count: int) -> list[Shard]:
    return [clean_shard(root, f"shard-{number:05d}", documents[number::count]) for number in range(count)]


def test_planted_copies_are_removed_and_all_others_stay(tmp_path: Path) -> None:
    manifest = deduplicate(tmp_path, sharded(tmp_path, planted(), 3))
    gone = {(line["article_id"], line["reason"], line["kept_id"]) for line in removed(manifest)}
    assert gone == {
        *((f"PMC{200 + n}", EXACT, f"PMC{100 + n}") for n in range(4)),
        *((f"PMC{300 + n}", EXACT, f"PMC{110 + n}") for n in range(4)),
        *((f"PMC{400 + n}", NEAR, f"PMC{120 + n}") for n in range(8)),
        ("PMC100", DUPLICATE_ID, "PMC100"),
        ("PMC139", DUPLICATE_ID, "PMC139"),
    }
    assert manifest.dropped == {DUPLICATE_ID: 2, EXACT: 8, NEAR: 8}
    assert manifest.totals == {"listed": 66, "clean": 66, "removed": 18, "kept": 48}


def test_the_recorded_similarity_is_the_true_one(tmp_path: Path) -> None:
    documents = planted()
    text_of = {row["article_id"]: row["text"] for row in documents}
    for line in removed(deduplicate(tmp_path, sharded(tmp_path, documents, 2))):
        if line["reason"] == NEAR:
            true = jaccard(shingles(text_of[line["article_id"]]), shingles(text_of[line["kept_id"]]))
            assert line["jaccard"] == pytest.approx(true, abs=1e-4)
            assert true >= 0.8
        else:
            assert line["jaccard"] == (1.0 if line["reason"] == EXACT else None)


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_the_result_does_not_depend_on_shards_or_order(tmp_path: Path, shards: int, order: str) -> None:
    documents = planted()
    expected = deduplicate(tmp_path / "a", sharded(tmp_path / "a", documents, 3))
    random.Random(5).shuffle(documents) if order == "shuffled" else documents.reverse()
    found = deduplicate(tmp_path / "b", sharded(tmp_path / "b", documents, shards)[::-1])
    assert removed(found) == removed(expected)
    assert found.dropped == expected.dropped
    assert found.extra["examples"] == expected.extra["examples"]
    assert found.extra["split_anchors"] == expected.extra["split_anchors"]


def test_rows_are_named_so_that_one_of_two_equal_ids_can_leave(tmp_path: Path) -> None:
    older, newer = document("PMC1", prose(1), year=2010), document("PMC1", prose(2), year=2020)
    shard = clean_shard(tmp_path, "shard-00000", [document("PMC2", prose(3)), older, newer])
    assert removed_rows(deduplicate(tmp_path, [shard]), "shard-00000").tolist() == [1]


BETTER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("published before preprint by type", {"year": 2019}, {"article_type": "preprint", "year": 2021}),
    (
        "published before preprint by journal",
        {"year": 2019},
        {"journal": "bioRxiv : the preprint server", "year": 2021},
    ),
    ("newer", {"year": 2021}, {"year": 2019}),
    ("any year before none", {"year": 2001}, {"year": 0}),
    ("longer", {"characters": 9000}, {"characters": 8999}),
    ("smaller id", {}, {}),
]


@pytest.mark.parametrize(("rule", "better", "worse"), BETTER, ids=[rule for rule, _, _ in BETTER])
@pytest.mark.parametrize("change", [lambda text: text, lambda text: with_block_replaced(text, 0.03, seed=3)])
def test_the_best_copy_stays(
    tmp_path: Path, rule: str, better: dict[str, Any], worse: dict[str, Any], change: Callable[[str], str]
) -> None:
    text, same = prose(1), {"characters": 5000}
    worse_id = "PMC9" if rule == "smaller id" else "PMC1"
    documents = [
        document(worse_id, change(text), **{**same, **worse}),
        document("PMC5", text, **{**same, **better}),
        document("PMC7", prose(2)),
    ]
    (line,) = removed(deduplicate(tmp_path, sharded(tmp_path, documents, 1)))
    assert (line["article_id"], line["kept_id"]) == (worse_id, "PMC5")


def test_copies_of_copies_leave_with_the_group_and_name_the_one_that_stays(tmp_path: Path) -> None:
    texts = [prose(1, 1000)]
    for step in range(3):
        texts.append(with_block_replaced(texts[-1], 0.06, seed=step + 10) + " " + prose(step + 50, 60))
    chain = [document(f"PMC{number + 1}", text, year=2020 - number) for number, text in enumerate(texts)]
    manifest = deduplicate(tmp_path, sharded(tmp_path, [*chain, document("PMC0", texts[2], year=1999)], 2))
    lines = removed(manifest)
    assert jaccard(shingles(texts[0]), shingles(texts[3])) < 0.8
    assert {line["article_id"]: line["kept_id"] for line in lines} == dict.fromkeys(
        ("PMC0", "PMC2", "PMC3", "PMC4"), "PMC1"
    )
    # The twin of a near copy is a near copy too, of the one that stays.
    assert [line["reason"] for line in lines] == [NEAR] * 4


def test_short_and_empty_texts_are_handled(tmp_path: Path) -> None:
    texts = ["", "One two.", "one, TWO", "...", "a quite different text of a few words"]
    documents = [document(f"PMC{number}", text, characters=9) for number, text in enumerate(texts)]
    lines = removed(deduplicate(tmp_path, sharded(tmp_path, documents, 2)))
    kept = {line["article_id"]: (line["reason"], line["kept_id"]) for line in lines}
    assert kept == {"PMC2": (EXACT, "PMC1"), "PMC3": (EXACT, "PMC0")}


def test_a_rerun_reads_no_text_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = sharded(tmp_path, planted(), 2)
    first = deduplicate(tmp_path, shards)

    def fail(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(duplicates, "open_clean", fail)
    assert deduplicate(tmp_path, shards) == first
    with pytest.raises(AssertionError, match="read again"):
        deduplicate(tmp_path, shards, jaccard=0.9)


def test_another_threshold_keeps_more(tmp_path: Path) -> None:
    shards = sharded(tmp_path, planted(), 2)
    assert deduplicate(tmp_path, shards, jaccard=0.99).dropped[NEAR] == 0
    assert deduplicate(tmp_path, shards, jaccard=0.8).dropped[NEAR] == 8


def test_examples_show_where_the_copies_differ(tmp_path: Path) -> None:
    text = prose(1, 1000)
    documents = [
        document("PMC1", text, year=2021),
        document("PMC2", with_block_replaced(text, 0.05, seed=3)),
        document("PMC3", prose(4)),
    ]
    (example,) = deduplicate(tmp_path, sharded(tmp_path, documents, 1)).extra["examples"]
    assert (example["id"], example["kept_id"]) == ("PMC2", "PMC1")
    assert example["text"][:90] == example["kept_text"][:90]
    assert example["text"] != example["kept_text"]


BAD = tuple({"id": f"PMC{number}", "reason": "not-xml", "detail": f"line {number}"} for number in range(4))


def test_too_many_rejected_articles_stop_the_run_and_name_culprits_and_setting(tmp_path: Path) -> None:
    shard = clean_shard(tmp_path, "shard-00000", [document(f"PMC9{n}", prose(n)) for n in range(6)], rejected=BAD)
    with pytest.raises(InputError, match=r"4 of 10 articles.*PMC0: not-xml \(line 0\).*max_rejected_fraction"):
        deduplicate(tmp_path, [shard], limit=0.39)
    manifest = deduplicate(tmp_path, [shard], limit=0.4)
    assert [item.id for item in manifest.rejected] == ["PMC0", "PMC1", "PMC2", "PMC3"]
    assert manifest.totals["listed"] == 10


def test_nothing_left_stops_the_run_and_says_why(tmp_path: Path) -> None:
    lost = ({"id": "PMC8", "reason": "too-short", "detail": ""}, {"id": "PMC9", "reason": "too-short", "detail": ""})
    shard = clean_shard(tmp_path, "shard-00000", [], filtered=lost)
    with pytest.raises(InputError, match=r"None of the 2 listed articles became text \(too-short 2\)"):
        deduplicate(tmp_path, [shard])
    with pytest.raises(InputError, match="none was listed"):
        deduplicate(tmp_path, [])


def test_an_empty_shard_among_others_is_fine(tmp_path: Path) -> None:
    shards = [clean_shard(tmp_path, "shard-00000", []), clean_shard(tmp_path, "shard-00001", planted())]
    manifest = deduplicate(tmp_path, shards)
    assert manifest.dropped[NEAR] == 8
    assert removed_rows(manifest, "shard-00000").tolist() == []


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    shards = sharded(tmp_path, planted(), 2)
    path = storage.local_path(shards[1].uri)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"shard-00001\.parquet"):
        deduplicate(tmp_path, shards)


def test_a_shard_without_signatures_is_named(tmp_path: Path) -> None:
    (shard,) = sharded(tmp_path, planted(), 1)
    path = storage.local_path(shard.uri)
    pq.write_table(pq.read_table(path).drop_columns(["signature"]), path)
    with pytest.raises(InputError, match=r"shard-00000\.parquet lacks the columns signature"):
        deduplicate(tmp_path, [shard])


def test_two_shards_of_one_name_are_refused(tmp_path: Path) -> None:
    (shard,) = sharded(tmp_path, planted(), 1)
    with pytest.raises(InputError, match="same name"):
        deduplicate(tmp_path, [shard, shard])


def test_bands_that_do_not_fit_the_signature_are_refused() -> None:
    with pytest.raises(ValidationError, match="bands x rows_per_band is 128"):
        DeduplicateSettings(bands=16, rows_per_band=8)
