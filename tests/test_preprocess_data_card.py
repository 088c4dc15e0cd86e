"""The data card shows what the manifests say, escaped, and loads nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from preprocess_helpers import clean_shard, corpus_of, deduplicate, document, prose, with_block_replaced

from components.common.manifest import Manifest
from components.preprocess.data_card import render_data_card

ATTACK = "<script>alert('x')</script><img src=x onerror=alert(1)>"
ESCAPED = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;"


DROPPED = [
    {"id": f"PMC800{n}", "reason": "language", "title": ATTACK, "text": f"{ATTACK}\n\nOs pacientes {n}"}
    for n in range(2)
]
CONTAMINATION = {
    "benchmarks": {
        f"medqa-test{ATTACK}": {
            "questions": 1273, "looked_for": 1270, "overlapping": 12, "contaminated": 1, "articles_overlapping": 30,
            "articles_contaminated": 1,
        },
    },
    "training": {"medqa-train": {"questions": 10178, "overlapping": 40, "contaminated": 2}},
    "policy": "drop",
    "uri": f"s3://bucket/{ATTACK}",
}  # fmt: skip


class Tags(HTMLParser):
    """Collects the tags and attributes of a page, and checks that they nest."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def made(tmp_path: Path) -> tuple[Manifest, Manifest]:
    rows = [
        document(
            f"PMC{n}{'<b>' if n == 3 else ''}",
            f"{ATTACK} {prose(n)}",
            title=f"{ATTACK} {n}",
            licence=f"{ATTACK} {n % 25}",
            article_type=ATTACK,
            year=1900 + 3 * n if n else 0,
        )
        for n in range(40)
    ]
    rows += [document(f"PMC90{n}", with_block_replaced(rows[n]["text"], 0.05, n), title=ATTACK, year=1) for n in (1, 2)]
    for row in rows:
        row["journal"] = f"{ATTACK} {row['article_id'][-1]}"
    rejected = tuple({"id": f"PMC7{n:03d}", "reason": ATTACK, "detail": ATTACK + "d" * 5000} for n in range(120))
    filtered = tuple({"id": f"PMC8{n:03d}", "reason": "language", "detail": ATTACK} for n in range(9))
    shards = [clean_shard(tmp_path, "shard-00000", rows, rejected=rejected, filtered=filtered)]
    shards = [shard.model_copy(update={"stats": {**shard.stats, "dropped_samples": DROPPED}}) for shard in shards]
    unique = deduplicate(tmp_path, shards, limit=1.0)
    return corpus_of(tmp_path, unique, validation_fraction=0.2), unique


def test_all_that_comes_from_articles_is_escaped(made: tuple[Manifest, Manifest]) -> None:
    page = render_data_card(*made)
    tags = Tags(page)
    assert tags.open == []
    assert not tags.names & {"script", "img", "b>", "iframe", "link", "object"}
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert page.count(ESCAPED) > 20
    assert "<script" not in page.lower()
    assert "onerror=alert(1)>" not in page


def test_it_loads_nothing_and_follows_the_readers_colours(made: tuple[Manifest, Manifest]) -> None:
    page = render_data_card(*made)
    harmless = re.sub(r"&lt;img src=x[^<]*", "", page)
    assert not re.search(r"(?:src|href)\s*=|url\(|@import", harmless)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_it_stays_small(made: tuple[Manifest, Manifest]) -> None:
    page = render_data_card(*made)
    assert len(page.encode()) < 150_000
    assert "And 70 more" in page


def test_it_shows_the_numbers_of_the_manifests(made: tuple[Manifest, Manifest]) -> None:
    corpus, unique = made
    page = render_data_card(corpus, unique)
    assert f"<b>{corpus.totals['tokens']:,}</b>tokens" in page
    for split in ("train", "validation"):
        row = [f"{corpus.extra['splits'][split][unit]:,}" for unit in ("documents", "tokens")]
        assert f'<tr><td>{split}</td><td class="n">{row[0]}</td><td class="n">{row[1]}</td>' in page
    assert re.search(r"near-duplicate.*?<td class=\"n\">2</td><td class=\"n\">1\.2%</td>", page, re.DOTALL)
    assert re.search(r"could not be read.*?<td class=\"n\">120</td>", page, re.DOTALL)
    for bar in ("listed: 171", "could not be read: 120", "language: 9", "near-duplicate: 2", "kept: the corpus: 40"):
        assert f"<title>{bar}</title>" in page
    assert "1 without a year" in page
    assert "And 13 others with 16 articles." in page
    assert corpus.fingerprint in page


def test_it_shows_copies_beside_what_stays_and_articles_of_each_filter(made: tuple[Manifest, Manifest]) -> None:
    page = render_data_card(*made)
    assert page.count("Near-duplicate of") == 2
    assert "Os pacientes 0" in page
    assert "Os pacientes 1" in page
    assert page.count("PMC8") == 3


def test_articles_that_were_dropped_are_named_when_nothing_of_their_text_was_kept(
    made: tuple[Manifest, Manifest],
) -> None:
    corpus, unique = made
    bare = [shard.model_copy(update={"stats": {**shard.stats, "dropped_samples": []}}) for shard in unique.shards]
    page = render_data_card(corpus, unique.model_copy(update={"shards": bare}))
    assert page.count("PMC8") == 3
    assert "Os pacientes" not in page


def test_contamination_is_shown_where_it_was_looked_for(made: tuple[Manifest, Manifest]) -> None:
    corpus, unique = made
    without = corpus.model_copy(
        update={"extra": {key: value for key, value in corpus.extra.items() if key != "contamination"}}
    )
    assert "Nobody looked for test questions" in render_data_card(without, unique)
    page = render_data_card(
        without.model_copy(update={"extra": without.extra | {"contamination": CONTAMINATION}}), unique
    )
    assert "1,270 of 1,273" in page
    assert re.search(r"12 <span class=\"faint\">in 30 articles", page)
    assert "Contaminated articles were dropped" in page
    assert "10,178" in page
    assert ATTACK not in page
    assert Tags(page).open == []


def test_journals_that_were_summed_up_before_stay_out_of_the_ranking(made: tuple[Manifest, Manifest]) -> None:
    corpus, unique = made
    journals = {f"Journal {n}": 1 for n in range(20)} | {"1,234 others": 5000}
    counts = corpus.extra["counts"] | {"journal": journals}
    page = render_data_card(corpus.model_copy(update={"extra": corpus.extra | {"counts": counts}}), unique)
    assert "And 1,242 others with 5,008 articles." in page


def test_a_manifest_without_journals_has_a_card_too(made: tuple[Manifest, Manifest]) -> None:
    corpus, unique = made
    counts = {key: value for key, value in corpus.extra["counts"].items() if key != "journal"}
    page = render_data_card(corpus.model_copy(update={"extra": corpus.extra | {"counts": counts}}), unique)
    assert "<h3>Journal</h3>" not in page
    assert "<h3>Licence</h3>" in page


def test_the_same_manifests_give_the_same_page(made: tuple[Manifest, Manifest]) -> None:
    assert render_data_card(*made) == render_data_card(*made)


def test_a_corpus_that_lost_nothing_has_a_card_too(tmp_path: Path) -> None:
    shards = [clean_shard(tmp_path, "shard-00000", [document(f"PMC{n}", prose(n), year=0) for n in range(4)])]
    unique = deduplicate(tmp_path, shards)
    page = render_data_card(corpus_of(tmp_path, unique), unique)
    assert "Nothing was dropped" in page
    assert "What was left out" not in page
    assert "Could not be read" not in page
    assert "4 without a year" in page
    assert Tags(page).open == []


def test_the_sources_are_acknowledged_as_their_terms_ask_for(made: tuple[Manifest, Manifest]) -> None:
    corpus, deduplicated = made
    origins = [{"source": "pmc", "inventory": "2026-08-25T01-00Z"}, {"source": ATTACK}]
    page = render_data_card(corpus.model_copy(update={"extra": corpus.extra | {"origins": origins}}), deduplicated)
    assert "Courtesy of the U.S. National Library of Medicine" in page
    assert "[inventory of 2026-08-25T01-00Z]" in page
    assert ESCAPED in page
    assert ATTACK not in page
