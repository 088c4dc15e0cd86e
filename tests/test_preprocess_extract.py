"""A raw shard becomes a clean shard, and every article is accounted for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Shard
from components.preprocess import jats
from components.preprocess.extract import CLEAN_SCHEMA, extract_shard
from components.preprocess.settings import ExtractSettings, FilterSettings

SENTENCE = "The patients were followed for a year after the treatment of their condition had begun in the hospital. "


def good(number: int) -> bytes:
    return (
        f"<article article-type='research-article'><front><article-meta>"
        f"<article-id pub-id-type='pmid'>{number}</article-id>"
        f"<title-group><article-title>Trial {number}</article-title></title-group></article-meta></front>"
        f"<body><sec><title>Results</title><p>{SENTENCE * 12} Patient {number}.</p></sec></body></article>"
    ).encode()


def raw_shard(folder: Path, articles: list[bytes]) -> Shard:
    path = folder / "raw" / "shard-00000.parquet"
    path.parent.mkdir(exist_ok=True)
    ids = [f"PMC{number}" for number in range(len(articles))]
    pq.write_table(pa.table({"article_id": ids, "source": ids, "path": ids, "xml": articles, "sha256": ids}), path)
    return Shard(name="shard-00000", uri=storage.to_uri(path), rows=len(articles), bytes=path.stat().st_size, sha256="")


def sketch(texts: list[str]) -> np.ndarray:
    return np.array([[len(text)] * 112 for text in texts], dtype=np.uint32).reshape(-1, 112)


def run(raw: Shard, folder: Path, workers: int | None = None, with_signature: bool = True) -> tuple[Shard, pa.Table]:
    prefix = storage.to_uri(folder / "clean")
    shard = extract_shard(
        raw, prefix, ExtractSettings(), FilterSettings(), sketch if with_signature else None, workers=workers
    )
    return shard, pq.read_table(storage.local_path(shard.uri))


MIXED = [
    good(0),
    b"not XML",
    good(2),
    good(3)[:-30],
    good(4).replace(b"research-article", b"correction"),
    b"<article><front/></article>",
    good(6).replace(b"year", b"y&eacute;ar"),
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
    assert row["signature"] == [len(text)] * 112
    assert shard.stats["words"] == row["words"]


def test_without_a_signature_function_there_is_no_signature(tmp_path: Path) -> None:
    _, table = run(raw_shard(tmp_path, [good(7)]), tmp_path, with_signature=False)
    assert table.schema.names == CLEAN_SCHEMA.names


def test_a_shard_with_nothing_to_keep_is_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    shard, table = run(raw_shard(tmp_path, [b"x", b""]), tmp_path)
    assert (shard.rows, table.num_rows) == (0, 0)
    assert "signature" in table.schema.names


def test_processes_and_one_process_write_the_same_bytes(tmp_path: Path) -> None:
    raw = raw_shard(tmp_path, [MIXED[number % 8] if number % 50 == 1 else good(number) for number in range(210)])
    alone, _ = run(raw, tmp_path / "alone", workers=1)
    together, table = run(raw, tmp_path / "together", workers=2)
    assert alone.sha256 == together.sha256
    assert alone.stats == together.stats
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
