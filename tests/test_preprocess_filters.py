"""Which articles are dropped, and under what reason."""

import pytest

from components.preprocess.filters import identify_language, judge
from components.preprocess.jats import Article
from components.preprocess.settings import FilterSettings

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


LONG = prose(ENGLISH)


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
        (made("\n\n".join([ENGLISH] * 20)), "repetitive"),
    ],
)
def test_articles_are_judged_by_type_length_content_and_language(article: Article, reason: str | None) -> None:
    assert judge(article, FilterSettings()) == reason


def test_limits_and_lists_are_settings() -> None:
    assert judge(made(LONG), FilterSettings(max_words=100)) == "too-long"
    assert judge(made("Too few words."), FilterSettings(min_words=3)) is None
    assert judge(made(prose(PORTUGUESE)), FilterSettings(languages=("en", "pt"))) is None
    assert judge(made(prose(PORTUGUESE)), FilterSettings(languages=())) is None
    assert judge(made(LONG, article_type="letter"), FilterSettings(drop_article_types=("letter",))) == "article-type"


def test_the_text_tells_the_language_and_a_text_too_short_to_tell_is_believed() -> None:
    assert identify_language(made(LONG, language="pt")) == "en"
    assert identify_language(made(prose(PORTUGUESE), language="en")) == "pt"
    assert identify_language(made("Sine qua non.", language="en")) == "en"
    assert identify_language(made("123", language="")) == ""
