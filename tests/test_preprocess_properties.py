"""What must hold for every article, not only for those that we thought of."""

import re
import unicodedata
from functools import lru_cache
from html import escape

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from preprocess_helpers import TOKENIZER, prose

from components.common.questions import Question
from components.preprocess.decontamination.decontaminate import Decontaminator
from components.preprocess.decontamination.question_index import build_index
from components.preprocess.deduplication import signatures
from components.preprocess.extraction import jats
from components.preprocess.filtering import filters
from components.preprocess.settings import DecontaminateSettings, ExtractSettings, FilterSettings
from components.preprocess.tokenization import split
from components.preprocess.tokenization.encoders import Encode, choose_encoder

settings.register_profile("here", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("here")

# XML can hold these characters; escaped they reach the parser as they are.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
TEXT = st.text(CHARACTERS, max_size=80)
WORD = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDE"), min_size=1, max_size=9)
INLINE = ["italic", "bold", "underline", "sc", "monospace", "ext-link", "styled-content", "named-content"]
BLOCKS = ["p", "sec", "list", "list-item", "boxed-text", "disp-quote", "fig", "caption", "table-wrap", "title", "label"]
ANY_TAG = st.sampled_from(
    [*INLINE, *BLOCKS, "xref", "sup", "sub", "fn", "def-list", "def-item", "term", "def", "unknown"]
)


def element(tag: st.SearchStrategy[str], inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda name, parts: f"<{name}>{''.join(parts)}</{name}>", tag, st.lists(inside, max_size=4))


MARKUP = st.recursive(
    TEXT.map(escape), lambda inside: element(ANY_TAG, st.one_of(inside, TEXT.map(escape))), max_leaves=25
)


def article(body: str) -> bytes:
    front = "<front><article-meta><title-group><article-title>T</article-title></title-group></article-meta></front>"
    return f"<article>{front}<body><p>Start</p>{body}</body></article>".encode()


def text_of(body: str) -> str:
    return jats.extract(article(body), ExtractSettings(tables=True, sub_articles=True, appendices=True)).text


@settings(max_examples=300)
@given(st.lists(MARKUP, max_size=5).map("".join))
def test_whatever_the_elements_the_text_is_clean_and_holds_no_tag(body: str) -> None:
    text = text_of(body)
    written = {"<" + rest for rest in re.findall(r"&lt;(/?[\w-]+)", body)}
    assert {tag for tag in re.findall(r"</?[\w-]+", text) if tag.lstrip("</") in INLINE + BLOCKS} <= written
    assert unicodedata.is_normalized("NFC", text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\ufeff\ue000-\uf8ff]", text)
    assert "\n\n\n" not in text
    assert text == text.strip()


@settings(max_examples=200)
@given(st.lists(st.tuples(WORD, st.sampled_from(["", *INLINE])), min_size=1, max_size=20))
def test_inline_markup_adds_and_removes_no_space(pieces: list[tuple[str, str]]) -> None:
    marked = "".join(f"<{tag}>{word}</{tag}>" if tag else word for word, tag in pieces)
    assert text_of(f"<p>{marked} end</p>").split("\n\n")[-1] == "".join(word for word, _ in pieces) + " end"


@settings(max_examples=200)
@given(st.lists(st.lists(WORD, min_size=1, max_size=12), min_size=1, max_size=8))
@example([["et"], ["al"]])
def test_plain_paragraphs_come_out_as_they_went_in(paragraphs: list[list[str]]) -> None:
    lines = [" ".join(["Start", *words, "end"]) for words in paragraphs]
    body = "".join(f"<p>  {line.replace(' ', '  ')}\n</p>" for line in lines)
    assert text_of(body).split("\n\n")[2:] == lines


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(min_value=0, max_value=400), st.integers(min_value=0, max_value=50))
def test_damaged_bytes_give_a_text_or_a_reason(damage: bytes, place: int, cut: int) -> None:
    xml = article("<sec><title>A</title><p>One <italic>two</italic> [1].</p></sec>")
    damaged = xml[:place] + damage + xml[place + cut :]
    try:
        found = jats.extract(damaged, ExtractSettings())
    except jats.ArticleError as error:
        assert re.fullmatch("[a-z-]+", error.reason)
    else:
        assert found.text


@settings(max_examples=200)
@given(st.text(CHARACTERS, max_size=2000))
def test_filters_judge_any_text(text: str) -> None:
    found = jats.extract(article(f"<p>{escape(text)}</p>"), ExtractSettings())
    assert filters.judge(found, FilterSettings()) in {None, *filters.FILTERS}
    assert filters.judge(found, FilterSettings(min_words=100_000)) == "too-short"


@settings(max_examples=200)
@given(
    st.lists(WORD, min_size=1, max_size=60), st.lists(st.sampled_from([" ", ", ", "\n\n", " - ", " ("]), min_size=60)
)
def test_case_punctuation_and_layout_do_not_change_a_signature(words: list[str], gaps: list[str]) -> None:
    plain = " ".join(words)
    other = "".join(word.swapcase() + gap for word, gap in zip(words, gaps, strict=False))
    assert np.array_equal(*signatures.signatures([plain, other]))
    assert signatures.jaccard(signatures.shingles(plain), signatures.shingles(other)) == 1.0


@settings(max_examples=100)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(5, 300))
def test_the_estimate_from_signatures_is_near_the_true_similarity(first: int, second: int, kept: int) -> None:
    shared = prose(first, kept)
    one, other = f"{shared} {prose(second, 100)}", f"{shared} {prose(second + 20_000, 100)}"
    truth = signatures.jaccard(signatures.shingles(one), signatures.shingles(other))
    sketches = signatures.signatures([one, other])
    assert abs(float((sketches[0] == sketches[1]).mean()) - truth) < 0.25  # five standard errors


QUESTION = Question(id="q", question=prose(77, 40), options={"A": "a"}, answer="A")


@lru_cache(maxsize=2)
def exam(action: str) -> Decontaminator:
    chosen = DecontaminateSettings(action=action)  # type: ignore[arg-type]
    return Decontaminator(build_index([("medqa-test", QUESTION)], chosen), chosen, frozenset())


@settings(max_examples=100)
@given(st.lists(TEXT, max_size=6), st.integers(0, 6), st.integers(20, 40))
def test_a_planted_question_is_found_wherever_it_stands_and_cut_without_a_trace(
    blocks: list[str], place: int, words: int
) -> None:
    planted = " ".join(QUESTION.question.split()[40 - words :])
    clean = "\n\n".join(" ".join(block.split()) for block in blocks)
    parts = clean.split("\n\n")
    text = "\n\n".join([*parts[:place], planted, *parts[place:]])
    assert exam("drop").examine("a", "", text).reason == "contaminated"
    assert exam("cut").examine("a", "", text).text == clean
    assert exam("drop").examine("a", "", clean).matches == []


@settings(max_examples=200)
@given(st.text(max_size=40), st.floats(0.01, 0.5))
def test_the_split_of_an_article_depends_on_its_id_alone(article_id: str, fraction: float) -> None:
    place = split.position(article_id)
    assert 0 <= place < 1
    ends = {split.TRAIN: "-", split.VALIDATION: "+"}
    expected = split.VALIDATION if place < fraction else split.TRAIN
    if article_id not in ends.values():
        assert split.split_of(article_id, fraction, ends) == expected


@pytest.fixture(scope="module")
def encoders() -> tuple[Encode, Encode]:
    name, fast = choose_encoder(TOKENIZER, ["probe"])
    assert name == "fastokens"
    return fast, choose_encoder(TOKENIZER, [], fastest=False)[1]


@settings(max_examples=300)
@given(texts=st.lists(st.text(CHARACTERS, max_size=200), min_size=1, max_size=5))
@example(texts=["</s> <unk>", "", " "])
def test_both_encoders_give_the_same_ids(encoders: tuple[Encode, Encode], texts: list[str]) -> None:
    for found, expected in zip(*(encode(texts) for encode in encoders), strict=True):
        assert np.array_equal(found, expected)
