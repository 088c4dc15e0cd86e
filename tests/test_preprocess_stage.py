"""The whole stage on articles of which every fate is known: kept, dropped and rejected are those that were planted."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocess_helpers import TOKENIZER, prose, save_questions, with_block_replaced

from components.common import storage
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest, Shard
from components.preprocess.clean import clean_shard
from components.preprocess.corpus import assemble_corpus
from components.preprocess.decontamination.contamination import account_for_contamination
from components.preprocess.deduplication.duplicates import find_duplicates
from components.preprocess.settings import PreprocessSettings
from components.preprocess.tokenization.tokenize import tokenize_shard

SETTINGS = PreprocessSettings(tokenize={"validation_fraction": 0.2})
QUESTIONS = {
    "medqa-test": [{"id": f"q{number}", "question": prose(600 + number, 50)} for number in range(4)],
    "pubmedqa-test": [{"id": "77", "question": "Does it work?", "context": prose(700, 60)}],
    "medqa-train": [{"id": "t0", "question": prose(600, 50)}, {"id": "t1", "question": prose(800, 50)}],
}
WORDS = ["the", "of", "and", "that", "with", "to", "be", "have"]


def english(seed: int, words: int = 300) -> str:
    """Prose that no two seeds share, with as many stop words as English has."""
    draw = random.Random(seed)
    return " ".join(word if draw.random() < 0.75 else draw.choice(WORDS) for word in prose(seed, words).split())


def jats(text: str, title: str = "A trial", kind: str = "research-article", pmid: str = "", year: int = 2020) -> bytes:
    paragraphs = "".join(f"<p>{paragraph}</p>" for paragraph in text.split("\n\n"))
    return (
        f'<article article-type="{kind}"><front><article-meta><article-id pub-id-type="pmid">{pmid}</article-id>'
        f"<title-group><article-title>{title}</article-title></title-group><pub-date><year>{year}</year></pub-date>"
        f"</article-meta></front><body><sec><title>Results</title>{paragraphs}</sec></body></article>"
    ).encode()


def planted() -> tuple[dict[str, bytes], dict[str, str]]:
    """Return articles by id, and what must become of those that do not stay."""
    articles = {f"PMC{number}": jats(english(number)) for number in range(30)}
    fates = {}

    def plant(name: str, xml: bytes, fate: str) -> None:
        articles[name] = xml
        fates[name] = fate

    for number in range(4):
        question = QUESTIONS["medqa-test"][number]["question"]
        plant(f"PMC1{number}00", jats(f"{english(1000 + number)}\n\nCase: {question.upper()}."), "contaminated")
        plant(f"PMC2{number}00", jats(english(number).replace(" the ", ", The "), year=2019), "exact-duplicate")
        near = with_block_replaced(english(10 + number), 0.05, seed=number)
        plant(f"PMC3{number}00", jats(near, year=2018), "near-duplicate")
    plant("PMC4000", jats(english(4000), pmid="77"), "test-article")
    plant("PMC4001", jats(f"{english(4001)}\n\n{prose(700, 60)}"), "contaminated")
    plant("PMC5000", jats(english(5000), kind="correction"), "article-type")
    plant("PMC5001", jats(english(5001, words=40)), "too-short")
    plant("PMC5002", jats("palabra que no es de los ingleses pero si de los otros " * 30), "language")
    plant("PMC6000", jats(english(6000))[:-30], "truncated-xml")
    plant("PMC6001", b"%PDF-1.7", "not-xml")
    # Below what counts: a fifth of a question, seven tenths of an article.
    articles["PMC7000"] = jats(f"{english(7000)}\n\n{' '.join(QUESTIONS['medqa-test'][0]['question'].split()[:14])}")
    articles["PMC7001"] = jats(with_block_replaced(english(20), 0.3, seed=9))
    return articles, fates


def stage(root: Path, articles: dict[str, bytes], shards: int) -> tuple[Manifest, Manifest]:
    """Run the stage's functions as its steps do; returns the corpus and what it was assembled from."""
    uri, benchmarks = storage.to_uri(root), save_questions(root, QUESTIONS)
    raws = [
        raw_manifest(root, f"shard-{number:05d}", list(articles.items())[number::shards]) for number in range(shards)
    ]
    clean = [shard for raw in raws for shard in clean_shard(raw, SETTINGS, uri, benchmarks).shards]
    unique = find_duplicates(clean, SETTINGS.deduplicate, uri, 0.5)
    tokens = [
        Manifest(
            kind="tokens",
            fingerprint=shard.name,
            inputs={"deduplicated": unique.fingerprint},
            settings={},
            shards=tokenize_shard(unique, shard.name, TOKENIZER, SETTINGS.tokenize, uri),
            totals={},
        )
        for shard in clean
    ]
    found = account_for_contamination(unique, benchmarks, SETTINGS.decontaminate, uri)
    return assemble_corpus(unique, tokens, SETTINGS.tokenize, uri, found.summary), unique


def raw_manifest(root: Path, name: str, articles: list[tuple[str, bytes]]) -> Manifest:
    path = root / "raw" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"article_id": [key for key, _ in articles], "xml": [xml for _, xml in articles]}), path)
    digest = sha256_file(path)
    shard = Shard(name=name, uri=storage.to_uri(path), rows=len(articles), bytes=path.stat().st_size, sha256=digest)
    return Manifest(kind="raw", fingerprint=digest, inputs={}, settings={}, shards=[shard], totals={})


def documents(corpus: Manifest) -> dict[str, tuple[str, bytes]]:
    """Return split and token ids of every article of a corpus."""
    found = {}
    for shard in corpus.shards:
        tokens = np.frombuffer(storage.read(shard.uri), dtype="<u2")
        base = shard.uri.removesuffix(".bin")
        offsets = np.frombuffer(storage.read(f"{base}.idx"), dtype="<i8")
        for number, name in enumerate(json.loads(storage.read(f"{base}.ids.json"))):
            found[name] = (shard.stats["split"], tokens[offsets[number] : offsets[number + 1]].tobytes())
    return found


def fates_of(corpus: Manifest, unique: Manifest) -> dict[str, str]:
    found = {item.id: item.reason for item in corpus.rejected}
    for shard in unique.shards:
        sidecar = json.loads(storage.read(shard.uri.removesuffix(".parquet") + ".json"))
        found |= {item["id"]: item["reason"] for item in sidecar["stats"]["filtered"]}
        removed = storage.read(f"{unique.extra['removed_prefix']}/{shard.name}.parquet")
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(removed)).to_pylist()
        found |= {row["article_id"]: row["reason"] for row in rows}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    return stage(tmp_path_factory.mktemp("whole"), planted()[0], shards=3)


def test_every_article_has_the_fate_it_was_made_for(whole: tuple[Manifest, Manifest]) -> None:
    articles, fates = planted()
    corpus, unique = whole
    assert fates_of(corpus, unique) == fates
    assert set(documents(corpus)) == set(articles) - set(fates)


def test_the_counts_add_up_to_what_was_listed(whole: tuple[Manifest, Manifest]) -> None:
    articles, fates = planted()
    corpus, _ = whole
    assert corpus.totals["listed"] == len(articles)
    assert corpus.totals["kept"] == len(articles) - len(fates)
    counted = {reason: list(fates.values()).count(reason) for reason in fates.values()}
    rejected = {"truncated-xml": 1, "not-xml": 1}
    assert {reason: count for reason, count in corpus.dropped.items() if count} | rejected == counted


def test_what_overlapped_is_told_question_by_question(whole: tuple[Manifest, Manifest]) -> None:
    corpus, _ = whole
    found = corpus.extra["contamination"]
    assert {name: (one["overlapping"], one["contaminated"]) for name, one in found["benchmarks"].items()} == {
        "medqa-test": (4, 4),
        "pubmedqa-test": (1, 1),
    }
    assert found["training"]["medqa-train"]["contaminated"] == 1
    questions = pq.read_table(pa.BufferReader(storage.read(f"{found['uri']}/questions.parquet"))).to_pylist()
    assert [row["articles_in_corpus"] for row in questions] == [1, 0, 0, 0, 0]  # the fifth of a question that stayed


@pytest.mark.parametrize("shards", [1, 5])
def test_other_shards_and_another_order_give_the_same_articles_and_the_same_tokens(
    tmp_path: Path, whole: tuple[Manifest, Manifest], shards: int
) -> None:
    articles, fates = planted()
    shuffled = list(articles.items())
    random.Random(shards).shuffle(shuffled)
    corpus, unique = stage(tmp_path, dict(shuffled), shards)
    assert fates_of(corpus, unique) == fates
    assert documents(corpus) == documents(whole[0])
    assert corpus.dropped == whole[0].dropped


def test_a_second_run_gives_the_same_corpus(tmp_path: Path, whole: tuple[Manifest, Manifest]) -> None:
    corpus, _ = stage(tmp_path, planted()[0], shards=3)
    assert corpus.fingerprint == whole[0].fingerprint
    assert [shard.sha256 for shard in corpus.shards] == [shard.sha256 for shard in whole[0].shards]
