"""Which articles are dropped, and under what reason."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from components.preprocess.extraction import jats
from components.preprocess.extraction.jats import Article
from components.preprocess.filtering import filters
from components.preprocess.filtering.filters import FILTERS, Candidate, explain, identify_language, judge
from components.preprocess.settings import ExtractSettings, FilterSettings

SAMPLE = Path(__file__).parents[1] / "components" / "download" / "sample"

ENGLISH = (
    "The patients were randomly assigned to one of two groups and followed for a year after the treatment had begun. "
    "We measured blood pressure every month, and the nurses who took the measurements did not know the assignment. "
)
PORTUGUESE = (
    "Os pacientes foram distribuídos aleatoriamente em dois grupos e acompanhados durante um ano após o início do "
    "tratamento. A pressão arterial foi medida todos os meses, e os enfermeiros não conheciam a distribuição. "
)


def made(text: str, title: str = "A trial", article_type: str = "research-article", language: str = "") -> Article:
    return Article(
        title=title, text=text, language=language, article_type=article_type, journal="", year=0, licence="", doi="",
        pmid="", pmcid="", sections=0,
    )  # fmt: skip


def prose(sentence: str, times: int = 20) -> str:
    return "\n\n".join(f"{sentence} Number {number}." for number in range(times))


def with_words(count: int, word: Callable[[random.Random], str]) -> str:
    draw = random.Random(7)
    return " ".join(word(draw) for _ in range(count)) + "\n\n"


def varied(paragraphs: int = 20) -> str:
    """English prose in which nothing is said twice."""
    draw = random.Random(1)
    words = ENGLISH.replace(",", "").replace(".", "").lower().split()
    return "\n\n".join(" ".join(draw.choices(words, k=60)).capitalize() + "." for _ in range(paragraphs))


LONG = varied()


@pytest.mark.parametrize(
    ("article", "reason"),
    [
        (made(LONG), None),
        (made(LONG, language="en"), None),
        (made(LONG, article_type="correction"), "article-type"),
        (made(LONG, article_type="expression-of-concern"), "article-type"),
        (made(LONG, article_type="other", title="Erratum to: A trial"), "article-type"),
        (made(LONG, title="Retraction: A trial"), "article-type"),
        (made(LONG, title="Author Correction: A trial"), "article-type"),
        (made(LONG, title="Publisher’s Correction to A trial"), "article-type"),
        (made(LONG, title="Addendum: A trial"), "article-type"),
        (made(LONG, article_type="addendum"), None),
        (made(LONG, title="Correction of anaemia in dialysis"), None),
        (made(LONG, title="Correction for multiple testing"), None),
        (made(LONG, title="Correction-free imaging"), None),
        (made(LONG, title="Corrections officers and stress"), None),
        (made(LONG, title="Retraction pockets of the tympanic membrane"), None),
        (made("Too few words."), "too-short"),
        (made(prose(PORTUGUESE)), "language"),
        (made(prose(PORTUGUESE), language="en"), "language"),
        (made(LONG, language="pt"), None),
        (made("0.5 1.2 33 <0.001 (12.5) " * 100 + ENGLISH), "low-alphabetic"),
        (made("\n\n".join([ENGLISH] * 20)), "duplicate-lines"),
    ],
)
def test_articles_are_judged_by_type_length_content_and_language(article: Article, reason: str | None) -> None:
    assert judge(article, FilterSettings()) == reason


@pytest.mark.parametrize(
    ("article", "reason"),
    [
        (made("Host plants\n\nUnknown\n\n" * 60 + LONG), "duplicate-lines"),
        (made(with_words(300, lambda draw: "".join(draw.choices("abcdef", k=60))) + LONG), "word-length"),
        (made(with_words(3000, lambda draw: draw.choice("the of a b c to x y"))), "word-length"),
        (made(with_words(400, lambda draw: f"p{draw.randrange(10**9)}") + LONG), "many-digits"),
        (made(with_words(400, lambda draw: "".join(draw.choices("ACGT", k=8))) + LONG), "upper-case"),
        (made(LONG.replace(" ", " \\_{} ")), "low-alphabetic"),
        (made(LONG.replace(" w", " \\textit{w} ").replace(" t", " \\emph{t} ")), "markup"),
        (made(LONG.replace("the ", "").replace("and ", "").replace("to ", "").replace("of ", "")), "few-stop-words"),
        (made(" ".join(f"{word} sodium chloride solution" for word in LONG.split())), "top-ngram"),
        (made(f"{LONG} {' '.join(LONG.split())} {' '.join(LONG.split()[3:])}"), "duplicate-ngrams"),
    ],
)
def test_english_articles_are_judged_by_their_words_and_characters_and_by_what_they_repeat(
    article: Article, reason: str
) -> None:
    assert judge(article, FilterSettings(), "en") == reason


def test_limits_and_lists_are_settings() -> None:
    assert judge(made(LONG), FilterSettings(max_words=100)) == "too-long"
    assert judge(made("Too few words."), FilterSettings(min_words=3, min_stop_words=0)) is None
    may_repeat = FilterSettings(max_top_ngram={}, max_duplicate_ngrams={})
    assert judge(made(prose(PORTUGUESE)), may_repeat.model_copy(update={"languages": ("en", "pt")})) is None
    assert judge(made(prose(PORTUGUESE)), may_repeat.model_copy(update={"languages": ()})) is None
    assert judge(made(LONG, article_type="letter"), FilterSettings(drop_article_types=("letter",))) == "article-type"


def test_limits_by_width_come_back_from_json_as_they_went() -> None:
    limits = FilterSettings(max_top_ngram={2: 0.1}, max_duplicate_ngrams={})
    assert FilterSettings(**json.loads(json.dumps(limits.model_dump(mode="json")))) == limits
    with pytest.raises(ValueError, match="max_top_ngram"):
        FilterSettings(max_top_ngram={0: 0.1})
    with pytest.raises(ValueError, match="max_duplicate_ngrams"):
        FilterSettings(max_duplicate_ngrams={5: 15})


def test_the_text_tells_the_language_and_a_text_too_short_to_tell_is_believed() -> None:
    assert identify_language(made(LONG, language="pt")) == "en"
    assert identify_language(made(prose(PORTUGUESE), language="en")) == "pt"
    assert identify_language(made("Sine qua non.", language="en")) == "en"
    assert identify_language(made("123", language="")) == ""


def test_plain_english_is_told_by_its_stop_words_and_all_else_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(filters, "identify_language", lambda article: asked.append(article) or "asked")
    assert Candidate(made(LONG, language="pt")).language == "en"
    assert not asked
    assert Candidate(made(prose(PORTUGUESE))).language == "asked"
    assert Candidate(made(f"{LONG} {prose(PORTUGUESE, 200)}")).language == "asked"
    assert Candidate(made("The end of the beginning.", language="la")).language == "asked", "too short to tell"
    assert Candidate(made("Sine qua non."), "la").language == "la"
    assert len(asked) == 3


def test_the_table_of_filters_is_asked_from_the_cheapest_on() -> None:
    assert list(FILTERS)[:3] == ["article-type", "too-short", "too-long"]
    notice = made("Too few words.", article_type="correction")
    assert judge(notice, FilterSettings(max_words=1)) == "article-type"


@pytest.mark.parametrize(
    "limits",
    [
        {"min_mean_word_length": 0, "max_mean_word_length": 1000},
        {"max_top_ngram": {}},
        {"max_top_ngram": {2: 1, 3: 1, 4: 1}},
        {"max_duplicate_ngrams": {}},
        {"max_duplicate_lines": 1, "max_duplicate_line_characters": 1},
    ],
)
def test_a_limit_can_be_taken_away(limits: dict[str, object]) -> None:
    wide = {
        "min_mean_word_length": 0, "max_mean_word_length": 1000, "max_top_ngram": {}, "max_duplicate_ngrams": {},
        "max_duplicate_lines": 1, "max_duplicate_line_characters": 1, "min_words": 0, "languages": (),
        "min_alphabetic": 0, "min_stop_words": 0,
    }  # fmt: skip
    text = "sodium chloride " * 300
    strict = FilterSettings(**{key: value for key, value in wide.items() if key not in limits})
    assert judge(made(text), strict) in {"word-length", "top-ngram", "duplicate-ngrams", "duplicate-lines", None}
    assert judge(made(text), FilterSettings(**(wide | limits))) is None


def test_a_verdict_says_what_was_seen_and_what_was_wanted() -> None:
    verdict = explain(made("Too few words."), FilterSettings())
    assert verdict is not None
    assert verdict == ("too-short", "3 words, at least 100 wanted")
    assert explain(made(prose(PORTUGUESE)), FilterSettings()) == ("language", "pt")
    assert explain(made(LONG, article_type="correction"), FilterSettings()) == ("article-type", "correction")
    assert explain(made(LONG), FilterSettings()) is None


def test_duplicated_runs_of_any_width_have_a_limit_of_their_own() -> None:
    eight = " ".join(LONG.split()[:8])
    text = " ".join(f"{eight} {word}{number}" for number, word in enumerate(LONG.split()[:150]))
    assert judge(made(text), FilterSettings(max_top_ngram={})) == "duplicate-ngrams"
    assert judge(made(text), FilterSettings(max_top_ngram={}, max_duplicate_ngrams={9: 0.01})) is None
    assert (
        judge(made(text), FilterSettings(max_top_ngram={}, max_duplicate_ngrams={5: 1, 8: 0.5})) == "duplicate-ngrams"
    )
    assert judge(made(text), FilterSettings(max_duplicate_ngrams={}, max_top_ngram={8: 0.5})) == "top-ngram"
    assert judge(made(text), FilterSettings(max_duplicate_ngrams={}, max_top_ngram={2: 1, 8: 0.5})) == "top-ngram"


def test_the_sample_loses_those_articles_to_the_filters_that_are_meant_to_be_lost() -> None:
    fates = {item["file"]: item["fate"] for item in json.loads((SAMPLE / "articles.json").read_bytes())}
    judged = {}
    for path in sorted((SAMPLE / "articles").glob("*.xml")):
        try:
            judged[path.name] = judge(jats.extract(path.read_bytes(), ExtractSettings()), FilterSettings())
        except jats.ArticleError:
            continue
    for name, reason in judged.items():
        assert reason == (fates[name] if fates[name] in FILTERS else None), name
    assert sum(reason is None for reason in judged.values()) > 50
