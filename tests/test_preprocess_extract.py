"""A raw shard becomes a clean shard, and every article is accounted for."""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocess_helpers import prose, save_questions

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest, Shard
from components.preprocess import extract, raw_articles
from components.preprocess.article_work import TEXT_SCHEMA, Outcome, with_sketches
from components.preprocess.decontamination.decontaminate import SUFFIX, Decontaminator
from components.preprocess.deduplication.signatures import signatures, words_digest
from components.preprocess.extract import CLEAN_SCHEMA, extract_shard
from components.preprocess.extraction import jats
from components.preprocess.raw_articles import read_batches
from components.preprocess.settings import DecontaminateSettings, ExtractSettings, FilterSettings, WorkerSettings
from components.preprocess.tokenization.split import position
from tests.troubled_articles import TroubledArticleWork

SUBJECTS = [
    "patients",
    "mice",
    "children",
    "volunteers",
    "nurses",
    "cells",
    "samples",
    "relatives",
    "controls",
    "physicians",
]
VERBS = ["received", "needed", "showed", "lost", "kept", "reported", "avoided", "gained", "described", "tolerated"]
OBJECTS = ["treatment", "weight", "symptoms", "surgery", "antibodies", "pain", "fever", "insulin", "sleep", "advice"]
PLACES = [
    "in the hospital",
    "after a year",
    "before the trial",
    "at home",
    "with their families",
    "for some weeks",
    "in the clinic",
]


def english(seed: int, sentences: int = 20) -> str:
    """Sentences at random that a filter takes for English prose."""
    draw = random.Random(seed)
    return " ".join(
        f"The {draw.choice(SUBJECTS)} that {draw.choice(VERBS)} {draw.choice(OBJECTS)} {draw.choice(PLACES)} have also "
        f"{draw.choice(VERBS)} {draw.choice(OBJECTS)} and the {draw.choice(SUBJECTS)} {draw.choice(PLACES)}."
        for _ in range(sentences)
    )


def good(number: int) -> bytes:
    return (
        f"<article article-type='research-article'><front><article-meta>"
        f"<article-id pub-id-type='pmid'>{number}</article-id>"
        f"<title-group><article-title>Trial {number}</article-title></title-group></article-meta></front>"
        f"<body><sec><title>Results</title><p>{english(number)} Patient {number}.</p></sec></body></article>"
    ).encode()


def raw_shard(folder: Path, articles: list[bytes], **layout: Any) -> Shard:
    path = folder / "raw" / "shard-00000.parquet"
    path.parent.mkdir(exist_ok=True)
    ids = [f"PMC{number}" for number in range(len(articles))]
    table = pa.table({"article_id": ids, "source": ids, "path": ids, "xml": articles, "sha256": ids})
    pq.write_table(table, path, **layout)
    return Shard(name="shard-00000", uri=storage.to_uri(path), rows=len(articles), bytes=path.stat().st_size, sha256="")


def run(raw: Shard, folder: Path, workers: int | None = None) -> tuple[Shard, pa.Table]:
    prefix = storage.to_uri(folder / "clean")
    settings = WorkerSettings(processes=workers or 0)
    shard = extract_shard(raw, prefix, ExtractSettings(), FilterSettings(), settings)
    return shard, pq.read_table(storage.local_path(shard.uri))


MIXED = [
    good(0),
    b"not XML",
    good(2),
    good(3)[:-30],
    good(4).replace(b"research-article", b"correction"),
    b"<article><front/></article>",
    good(6).replace(b"Patient", b"Pati&eacute;nt"),
    b"<article><body><p>Short.</p></body></article>",
]


def test_every_article_is_kept_dropped_or_rejected_by_reason(tmp_path: Path) -> None:
    shard, table = run(raw_shard(tmp_path, MIXED), tmp_path)
    assert table["article_id"].to_pylist() == ["PMC0", "PMC2", "PMC6"]
    assert (shard.rows, shard.stats["listed"], shard.stats["kept"]) == (3, 8, 3)
    assert shard.stats["dropped"] == {"article-type": 1, "too-short": 1}
    assert [(item["id"], item["reason"]) for item in shard.stats["filtered"]] == [
        ("PMC4", "article-type"),
        ("PMC7", "too-short"),
    ]
    assert [(item["id"], item["reason"]) for item in shard.stats["rejected"]] == [
        ("PMC1", "not-xml"),
        ("PMC3", "truncated-xml"),
        ("PMC5", "no-body"),
    ]
    assert shard.stats["repaired"] == {"entities": 1}


def test_the_clean_shard_holds_text_metadata_hash_and_signature(tmp_path: Path) -> None:
    shard, table = run(raw_shard(tmp_path, [good(7)]), tmp_path)
    row = table.to_pylist()[0]
    text = jats.extract(good(7), ExtractSettings()).text
    assert (row["text"], row["title"], row["pmid"], row["language"]) == (text, "Trial 7", "7", "en")
    assert (row["characters"], row["words"], row["sections"]) == (len(text), len(text.split()), 1)
    assert len(row["sha256"]) == 64
    assert row["signature"] == signatures([text])[0].tolist()
    assert row["words_digest"] == words_digest(text)
    assert shard.stats["words"] == row["words"]


def test_a_shard_with_nothing_to_keep_is_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    shard, table = run(raw_shard(tmp_path, [b"x", b""]), tmp_path)
    assert (shard.rows, table.num_rows) == (0, 0)
    assert table.schema.equals(CLEAN_SCHEMA)


def in_one_process(raw: Shard, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Shard, pa.Table]:
    with monkeypatch.context() as patch:
        patch.setattr(raw_articles, "BATCH_ARTICLES", 1000)
        return run(raw, folder)


def test_any_number_of_processes_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_shard(tmp_path, [MIXED[number % 8] if number % 50 == 1 else good(number) for number in range(210)])
    alone, _ = run(raw, tmp_path / "alone", workers=1)
    together, table = run(raw, tmp_path / "together", workers=2)
    in_the_step, _ = in_one_process(raw, tmp_path / "step", monkeypatch)
    assert alone.sha256 == together.sha256 == in_the_step.sha256
    assert alone.stats == together.stats == in_the_step.stats
    assert table.num_rows == together.stats["kept"]
    assert Counter(table["article_id"].to_pylist()).most_common(1)[0][1] == 1


def test_a_finished_shard_is_returned_untouched_even_when_the_raw_one_is_gone(tmp_path: Path) -> None:
    raw = raw_shard(tmp_path, [good(0)])
    first, _ = run(raw, tmp_path)
    storage.local_path(raw.uri).unlink()
    again, _ = run(raw, tmp_path)
    assert again == first


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_truncated_raw_shard_is_an_input_error_that_names_it_and_leaves_no_shard(tmp_path: Path, keep: int) -> None:
    raw = raw_shard(tmp_path, [good(number) for number in range(5)])
    path = storage.local_path(raw.uri)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=raw.uri):
        run(raw, tmp_path)
    assert storage.list_files(storage.to_uri(tmp_path / "clean")) == []


def test_a_corrupt_page_in_a_raw_shard_is_an_input_error_that_names_it(tmp_path: Path) -> None:
    raw = raw_shard(tmp_path, [good(number) for number in range(50)])
    path = storage.local_path(raw.uri)
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = b"\xff" * (len(content) // 2 - 200)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=raw.uri):
        run(raw, tmp_path)


def test_a_raw_shard_without_xml_is_an_input_error_that_names_the_column(tmp_path: Path) -> None:
    raw = raw_shard(tmp_path, [good(0)])
    pq.write_table(pa.table({"article_id": ["a"]}), storage.local_path(raw.uri))
    with pytest.raises(InputError, match="'xml'"):
        run(raw, tmp_path)


def test_a_fault_of_ours_keeps_its_traceback_and_names_the_article(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    raw = raw_shard(tmp_path, [good(0)])
    monkeypatch.setattr(jats, "extract", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        run(raw, tmp_path)
    assert caught.value.__notes__ == ["while extracting PMC0"]


# ---- workers --------------------------------------------------------------------------------------------------------


def many(trouble: dict[int, bytes], count: int = 90) -> list[bytes]:
    return [trouble.get(number, good(number)) for number in range(count)]


def with_trouble(raw: Shard, folder: Path | str, monkeypatch: pytest.MonkeyPatch, **workers: Any) -> Shard:
    monkeypatch.setattr(extract, "ArticleWork", TroubledArticleWork)
    settings = WorkerSettings(**{"processes": 2, **workers})
    return extract_shard(
        raw, storage.join(storage.to_uri(folder), "clean"), ExtractSettings(), FilterSettings(), settings
    )


def test_articles_that_no_worker_survives_are_rejected_by_name_and_all_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = {70: b"<!--kill-->", 71: b"<!--memory-->" + good(71)}
    shard = with_trouble(raw_shard(tmp_path, many(trouble)), tmp_path, monkeypatch)
    table = pq.read_table(storage.local_path(shard.uri))
    assert table["article_id"].to_pylist() == [f"PMC{number}" for number in range(90) if number not in trouble]
    assert (shard.stats["listed"], shard.stats["kept"]) == (90, 88)
    assert shard.stats["rejected"] == [
        {
            "id": "PMC70",
            "reason": "worker-killed",
            "detail": "killed by SIGKILL, most likely out of memory, 11 bytes",
        },
        {"id": "PMC71", "reason": "out-of-memory", "detail": f"more than 900 MB, {len(trouble[71]):,} bytes"},
    ]


def test_a_worker_killed_in_the_middle_by_somebody_else_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, _ = in_one_process(raw_shard(tmp_path, many({})), tmp_path / "calm", monkeypatch)
    marked = many({number: f"<!--once{number}-->".encode() + good(number) for number in (3, 80)})
    monkeypatch.chdir(tmp_path)  # where the marks are left
    shaken = with_trouble(raw_shard(tmp_path, marked), tmp_path / "shaken", monkeypatch)
    assert (tmp_path / "once3").exists()
    assert (shaken.sha256, shaken.stats) == (calm.sha256, calm.stats)


def test_when_every_worker_dies_the_step_stops_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = raw_shard(tmp_path, [b"<!--kill-->"] * 90)
    monkeypatch.setattr(extract, "_LOSSES", 4)
    with pytest.raises(PipelineError, match=r"5 worker processes were lost on .*shard-00000.parquet.*memory_mb"):
        with_trouble(raw, tmp_path, monkeypatch)
    assert storage.list_files(storage.to_uri(tmp_path / "clean")) == []


def test_an_article_that_needs_more_memory_than_a_worker_may_take_is_out_of_memory_not_malformed(
    tmp_path: Path,
) -> None:
    """libxml2 says "unknown error" when it gets no memory."""
    large = b"<article><body>" + b"<p>a few words to a paragraph and no more</p>" * 650_000 + b"</body></article>"
    raw = raw_shard(tmp_path, [good(0), large, good(2)])
    settings = WorkerSettings(processes=1, memory_mb=300)
    shard = extract_shard(raw, storage.to_uri(tmp_path / "clean"), ExtractSettings(), FilterSettings(), settings)
    assert [(item["id"], item["reason"]) for item in shard.stats["rejected"]] == [("PMC1", "out-of-memory")]
    assert shard.rows == 2


STEP = """
import sys
from components.common.manifest import Manifest, Shard
from components.preprocess.extract import extract_shard
from components.preprocess.settings import ExtractSettings, FilterSettings, WorkerSettings
from tests.troubled_articles import Slow
raw = Shard.model_validate_json(sys.argv[1])
extract_shard(raw, sys.argv[2], ExtractSettings(), FilterSettings(), WorkerSettings(processes=2), Slow())
"""


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_step_killed_in_the_middle_leaves_no_shard_and_its_rerun_the_same_bytes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    root = storage.to_uri(tmp_path / "store") if kind == "disk" else request.getfixturevalue("s3_server")
    raw = raw_shard(tmp_path, many({}))
    if kind == "s3":
        storage.upload(storage.local_path(raw.uri), f"{root}/raw/shard-00000.parquet")
        raw = raw.model_copy(update={"uri": f"{root}/raw/shard-00000.parquet"})
    prefix = f"{root}/clean"
    mark = tmp_path / "a batch is done"
    monkeypatch.setenv("TEST_MARK", str(mark))
    step = subprocess.Popen([sys.executable, "-c", STEP, raw.model_dump_json(), prefix])
    while not mark.exists():
        assert step.poll() is None, "it was to be killed in the middle"
        time.sleep(0.05)
    step.kill()
    step.wait()
    assert storage.list_files(prefix) == []
    again = extract_shard(raw, prefix, ExtractSettings(), FilterSettings(), WorkerSettings(processes=1))
    undisturbed, _ = in_one_process(raw, tmp_path, monkeypatch)
    assert again.sha256 == undisturbed.sha256
    assert {Path(entry.uri).name for entry in storage.list_files(prefix)} == {
        "shard-00000.parquet",
        "shard-00000.contamination.parquet",
        "shard-00000.json",
    }


@pytest.mark.parametrize("batches", [[400] * 6, [64] * 37 + [32], [1] * 2400, [2400], [1000, 1, 1, 1, 1397]])
def test_the_row_groups_do_not_depend_on_how_the_articles_were_batched(tmp_path: Path, batches: list[int]) -> None:
    rows = [{"article_id": f"PMC{number}", "text": "", "characters": 0, "words": 0} for number in range(2400)]
    table = with_sketches(pa.Table.from_pylist(rows, TEXT_SCHEMA))
    path = tmp_path / "clean.parquet"
    with pq.ParquetWriter(path, CLEAN_SCHEMA) as writer:
        starts = [sum(batches[:number]) for number in range(len(batches))]
        parts = (table.slice(start, size) for start, size in zip(starts, batches, strict=True))
        outcomes = (Outcome(part.num_rows, part, [], [], [], {}, []) for part in parts)
        extract._write(outcomes, writer, extract._Tally())
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups == [1024, 1024, 352]


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_in_a_group", [1, 7, 1000])
def test_batches_are_small_in_number_and_in_bytes(tmp_path: Path, rows_in_a_group: int) -> None:
    sizes = [10, 3_000_000, 3_000_000, 9_000_000, 5, *[100] * 200, 2_000_000, 2_000_000]
    raw = raw_shard(tmp_path, [b"x" * size for size in sizes], row_group_size=rows_in_a_group)
    batches = list(read_batches(storage.local_path(raw.uri), raw.uri))
    assert [len(article["xml"]) for batch in batches for article in batch] == sizes
    assert all(len(batch) <= 64 for batch in batches)
    assert all(len(batch) == 1 or sum(len(article["xml"]) for article in batch) <= 4 << 20 for batch in batches)


MEMORY = """
import re, sys
from pathlib import Path
from components.preprocess.raw_articles import read_batches
for batch in read_batches(Path(sys.argv[1]), "raw"):
    pass
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    """300 MB of articles that don't compress, in row groups as the download makes them."""
    noise = np.random.default_rng(1).bytes(300_000_000)
    articles = [noise[start : start + 100_000] for start in range(0, len(noise), 100_000)]
    raw = raw_shard(tmp_path, articles, row_group_size=160)
    path = str(storage.local_path(raw.uri))
    done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250_000


# ---- samples --------------------------------------------------------------------------------------------------------


def test_two_dropped_articles_per_reason_are_shown_whatever_the_order(tmp_path: Path) -> None:
    short = b"<article><body><p>Short.</p></body></article>"
    articles = [
        good(number) if number % 3 else short if number % 2 else good(number).replace(b"research-article", b"erratum")
        for number in range(60)
    ]
    shard, _ = run(raw_shard(tmp_path, articles), tmp_path)
    samples = shard.stats["dropped_samples"]
    assert [one["reason"] for one in samples] == ["article-type"] * 2 + ["too-short"] * 2
    for reason, start in (("article-type", 0), ("too-short", 3)):
        lowest = sorted((f"PMC{number}" for number in range(start, 60, 6)), key=position)[:2]
        assert [one["id"] for one in samples if one["reason"] == reason] == lowest
    assert all(len(one["text"]) <= 300 for one in samples)
    assert samples[0]["title"].startswith("Trial ")
    assert samples[-1]["text"] == "Short."


# ---- test questions -------------------------------------------------------------------------------------------------


def questions(folder: Path, *numbers: int) -> Manifest:
    asked = [{"id": f"q{number}", "question": prose(number, 40)} for number in numbers]
    by_id = [{"id": "30", "question": "Does it work?", "context": prose(6)}]
    return save_questions(folder, {"medqa-test": asked, "pubmedqa-test": by_id})


def decontaminated(folder: Path, **settings: Any) -> tuple[Shard, dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Fifty articles, of which 3 and 5 hold a question and 30 is one that a question was made from."""
    decontaminator = Decontaminator.of(questions(folder, 3, 5), DecontaminateSettings(**settings))
    articles = [good(number) for number in range(50)]
    articles[3] = articles[3].replace(b"<p>", b"<p>" + prose(3, 40).encode() + b" ")
    articles[5] = articles[5].replace(b"<p>", b"<p>" + prose(5, 40).encode() + b"</p><p>")
    shard = extract_shard(
        raw_shard(folder, articles),
        storage.to_uri(folder / "clean"),
        ExtractSettings(),
        FilterSettings(min_words=100),
        decontaminator=decontaminator,
    )
    rows = pq.read_table(storage.local_path(shard.uri)).to_pylist()
    matches = pq.read_table(storage.local_path(shard.uri.replace(".parquet", SUFFIX))).to_pylist()
    return shard, {row["article_id"]: row for row in rows}, matches


def test_articles_with_a_test_question_are_dropped_and_named_with_it(tmp_path: Path) -> None:
    shard, rows, matches = decontaminated(tmp_path)
    assert set(rows) == {f"PMC{number}" for number in range(50)} - {"PMC3", "PMC5", "PMC30"}
    assert shard.stats["dropped"] == {"contaminated": 2, "test-article": 1}
    assert shard.stats["overlaps"] == 2
    assert [(one["article_id"], one["question_id"], one["action"]) for one in matches] == [
        ("PMC3", "q3", "drop"),
        ("PMC5", "q5", "drop"),
    ]


def test_a_cut_article_stays_if_enough_of_it_is_left(tmp_path: Path) -> None:
    shard, rows, matches = decontaminated(tmp_path, action="cut")
    assert shard.stats["dropped"] == {"contaminated": 1, "test-article": 1}
    assert [(one["article_id"], one["action"]) for one in matches] == [("PMC3", "drop"), ("PMC5", "cut")]
    text = rows["PMC5"]["text"]
    assert text == jats.extract(good(5), ExtractSettings()).text
    assert (rows["PMC5"]["characters"], rows["PMC5"]["signature"]) == (len(text), signatures([text])[0].tolist())
