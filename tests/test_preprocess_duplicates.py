"""Copies leave the corpus, everything else stays, and neither sharding nor order has a say in it."""

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from preprocess_helpers import clean_shard, deduplicate, document, prose, with_block_replaced
from pydantic import ValidationError

from components.common import storage
from components.common.errors import InputError, StorageError
from components.common.manifest import Manifest, Shard
from components.common.settings import get_settings
from components.preprocess.deduplication import document_index, duplicates, verify
from components.preprocess.deduplication.duplicates import DUPLICATE_ID, EXACT, NEAR, find_duplicates, removed_rows
from components.preprocess.deduplication.signatures import jaccard, shingles
from components.preprocess.settings import DeduplicateSettings
from components.preprocess.tokenization import split
from tests.counting_proxy import counting_proxy


def removed(manifest: Manifest) -> list[dict[str, Any]]:
    """All removals over the shards, sorted; `row` and shard left out, so that shardings can be compared."""
    lines = []
    for shard in manifest.shards:
        content = storage.read(storage.join(manifest.extra["removed_prefix"], f"{shard.name}.parquet"))
        for line in pq.read_table(io.BytesIO(content)).to_pylist():
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


def sharded(root: Path | str, documents: list[dict[str, Any]], count: int) -> list[Shard]:
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
    ("manuscript before preprint", {"is_manuscript": True}, {"article_type": "preprint", "year": 2021}),
    ("published before manuscript", {"year": 2019}, {"is_manuscript": True, "year": 2021}),
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

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(document_index, "open_clean", fail)
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


def test_equal_words_are_found_by_their_digest_without_reading_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [prose(1), prose(1).upper().replace(" ", ",\n"), prose(2), "...", "", prose(1) + " more"]
    documents = [document(f"PMC{number}", text, characters=9) for number, text in enumerate(texts)]
    shards = sharded(tmp_path, documents[:5], 2)
    monkeypatch.setattr(verify, "open_clean", None)
    found = deduplicate(tmp_path, shards)
    assert {(line["article_id"], line["kept_id"]) for line in removed(found)} == {("PMC1", "PMC0"), ("PMC4", "PMC3")}
    assert found.dropped == {DUPLICATE_ID: 0, EXACT: 2, NEAR: 0}


def test_a_large_family_is_one_group_and_its_best_stays(tmp_path: Path) -> None:
    words = prose(1).split()
    family = [
        document(f"PMC{1000 + number}", " ".join([*words[:200], f"number{number}", *words[201:]]), characters=9)
        for number in range(400)
    ]
    others = [document(f"PMC{number}", prose(50 + number)) for number in range(5)]
    manifest = deduplicate(tmp_path, sharded(tmp_path, [*family, *others], 3))
    assert manifest.dropped == {DUPLICATE_ID: 0, EXACT: 0, NEAR: 399}
    assert {line["kept_id"] for line in removed(manifest)} == {"PMC1000"}


def test_the_ends_of_the_split_are_those_of_all_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_IDS_AT_A_TIME", 10)
    documents = planted()
    manifest = deduplicate(tmp_path, sharded(tmp_path, documents, 3))
    gone = {line["article_id"] for line in removed(manifest) if line["reason"] != DUPLICATE_ID}
    kept = [row["article_id"] for row in documents if row["article_id"] not in gone]
    assert manifest.extra["split_anchors"] == split.anchors(kept)


def test_the_step_killed_in_the_middle_leaves_nothing_half_written_and_a_rerun_gives_the_same(tmp_path: Path) -> None:
    shards = sharded(tmp_path, planted(), 12)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for moment in ("Candidates.put", "write_shard"):
        killed = run_and_kill(tmp_path, shards, moment, scratch)
        assert killed == -signal.SIGKILL
        assert list(scratch.iterdir()) == []
        written = sorted((tmp_path / "killed").rglob("*.parquet"))
        assert len(written) == (0 if moment == "Candidates.put" else 4)
        for path in written:
            pq.read_table(path)
        assert not list((tmp_path / "killed").rglob("manifest.json"))
    again = find_duplicates(shards, DeduplicateSettings(), storage.to_uri(tmp_path / "killed"), 0.05)
    whole = find_duplicates(shards, DeduplicateSettings(), storage.to_uri(tmp_path / "whole"), 0.05)
    assert removed(again) == removed(whole)
    assert len(removed(whole)) == 18
    prefixes = {"removed_prefix": ""}
    assert again.model_copy(update={"extra": again.extra | prefixes}) == whole.model_copy(
        update={"extra": whole.extra | prefixes}
    )


KILLER = """
import json, os, signal, sys
from components.common.manifest import Shard
from components.preprocess.deduplication import removals, verify
from components.preprocess.deduplication.duplicates import find_duplicates
from components.preprocess.settings import DeduplicateSettings

shards = [Shard.model_validate(each) for each in json.load(sys.stdin)]
owner, name = {"Candidates.put": (verify.Candidates, "put"), "write_shard": (removals, "write_shard")}[sys.argv[1]]
action, calls = getattr(owner, name), []

def dying(*arguments, **named):
    calls.append(None)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return action(*arguments, **named)

setattr(owner, name, dying)
removals._THREADS = verify._THREADS = 1
find_duplicates(shards, DeduplicateSettings(), sys.argv[2], 0.05)
"""


def run_and_kill(tmp_path: Path, shards: list[Shard], moment: str, scratch: Path) -> int:
    """Run the step in a process that is killed at the fifth call of a function; return its exit code."""
    store = storage.to_uri(tmp_path / "killed")
    listed = json.dumps([shard.model_dump() for shard in shards])
    command = [sys.executable, "-c", KILLER, moment, store]
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(Path(duplicates.__file__).parents[2])}
    return subprocess.run(command, input=listed, text=True, env=environment).returncode


def test_memory_does_not_grow_with_the_candidates(tmp_path: Path) -> None:
    few, many = (peak_with_candidates(tmp_path / str(count), count) for count in (20, 620))
    # 600 candidates of 20,000 words each: 96 MB of shingles, and 84 MB of texts.
    assert many - few < 50e6


PEAK = """
import json, sys
from pathlib import Path
from components.common.manifest import Shard
from components.preprocess.deduplication.duplicates import find_duplicates
from components.preprocess.settings import DeduplicateSettings

shards = [Shard.model_validate(each) for each in json.load(sys.stdin)]
find_duplicates(shards, DeduplicateSettings(), sys.argv[1], 0.05)
(line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(int(line.split()[1]) * 1024)
"""


def peak_with_candidates(root: Path, count: int) -> int:
    """Return the peak memory of a process that compares so many long texts, all of them copies but for a word."""
    base = prose(1, 20_000)
    rows = [document(f"PMC{number}", f"{base} {number}") for number in range(count)]
    listed = json.dumps([shard.model_dump() for shard in sharded(root, rows, 2)])
    environment = os.environ | {"PYTHONPATH": str(Path(duplicates.__file__).parents[2])}
    command = [sys.executable, "-c", PEAK, storage.to_uri(root)]
    return int(subprocess.run(command, input=listed, text=True, env=environment, stdout=subprocess.PIPE).stdout)


def test_a_full_scratch_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    shards = sharded(tmp_path, planted(), 2)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match=r"do not fit into .*No space left on device.*set TMPDIR"):
        deduplicate(tmp_path, shards)


def test_only_row_groups_with_candidates_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, **options: Any) -> Any:
        read.append((group, options["columns"]))
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    text = prose(99)
    others = [document(f"PMC{number}", prose(number)) for number in range(40)]
    others[10]["text"], others[12]["text"], others[30]["text"] = text, text + " more", text + " and more"
    deduplicate(tmp_path, [clean_shard(tmp_path, "shard-00000", others)])
    texts = [group for group, columns in read if columns == ["text"]]
    assert texts == [1, 4]  # row groups of 7: rows 10 and 12 are in the second, row 30 is in the fifth


def test_all_of_it_on_a_real_s3_server_fetches_the_texts_of_candidates_only(
    tmp_path: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = random.Random(3)
    documents = [document(f"PMC{n}", prose(n, 30) + noise.randbytes(20_000).hex()) for n in range(300)]
    documents[3]["text"] = documents[7]["text"] = "one " * 30
    expected = deduplicate(tmp_path, sharded(tmp_path, documents, 3))
    shards = sharded(s3_server, documents, 3)
    with counting_proxy(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        forget()
        found = deduplicate(s3_server, shards)
        assert removed(found) == removed(expected)
        stored = sum(shard.bytes for shard in shards)
        assert stored > 6_000_000
        assert proxy.received < stored / 5
    path = storage.local_path(storage.to_uri(tmp_path / "whole.parquet"))
    storage.download(shards[1].uri, path)
    storage.write(shards[1].uri, path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=rf"{s3_server}/clean/shard-00001\.parquet cannot be read"):
        deduplicate(s3_server, shards, jaccard=0.9)


def forget() -> None:
    get_settings.cache_clear()
    storage._s3_store.cache_clear()
