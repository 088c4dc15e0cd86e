"""Which extracted articles stay in the corpus.

A filter is a function that gets a candidate and the settings, and returns what it saw when the article has to go, else
"". It stands in `FILTERS` under the reason that its articles are counted by; the first that objects decides.
"""

import re
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from components.preprocess.extraction.jats import Article
from components.preprocess.filtering.language import ENOUGH, identify_language
from components.preprocess.filtering.text_statistics import TextStatistics
from components.preprocess.settings import FilterSettings

__all__ = ["FILTERS", "Candidate", "Verdict", "explain", "identify_language", "judge"]

_ENGLISH = 0.1
"""From this share of Gopher's stop words on a text is English, and its language need not be identified, which takes ten
times as long. Of 569 real and synthetic articles 98% of the English ones have it; no other has more than 0.055."""


class Candidate:
    """An article that is judged, its language, and the statistics of its text; what nobody asks for is not computed."""

    def __init__(self, article: Article, language: str | None = None) -> None:
        """Take an article, and its language where it is known already."""
        self.article = article
        self._language = language

    @cached_property
    def language(self) -> str:
        """The ISO 639-1 code of the text's language, "" when nothing tells."""
        if self._language is not None:
            return self._language
        if len(self.article.text) >= ENOUGH and self.text.english_stop_words >= _ENGLISH:
            return "en"
        return identify_language(self.article)

    @cached_property
    def text(self) -> TextStatistics:
        """The measures of the text."""
        return TextStatistics(self.article.text)


class Verdict(NamedTuple):
    """Why an article is dropped: the reason it is counted by, and what was seen."""

    reason: str
    detail: str


Filter = Callable[[Candidate, FilterSettings], str]


def judge(article: Article, settings: FilterSettings, language: str | None = None) -> str | None:
    """Say why an article is dropped.

    Args:
        article: An extracted article.
        settings: The limits.
        language: Its language where the caller has identified it already.

    Returns:
        A key of `FILTERS`, or None to keep the article.
    """
    verdict = explain(article, settings, language)
    return verdict.reason if verdict else None


def explain(article: Article, settings: FilterSettings, language: str | None = None) -> Verdict | None:
    """Say why an article is dropped, and what was seen; takes what `judge` takes."""
    return assess(Candidate(article, language), settings)


def assess(one: Candidate, settings: FilterSettings) -> Verdict | None:
    """Say why a candidate is dropped, and what was seen; None keeps it."""
    for reason, objects in FILTERS.items():
        detail = objects(one, settings)
        if detail:
            return Verdict(reason, detail)
    return None


def _article_type(one: Candidate, limits: FilterSettings) -> str:
    kind = _type_of(one.article)
    return kind if kind in limits.drop_article_types else ""


def _too_short(one: Candidate, limits: FilterSettings) -> str:
    return _below("words", one.text.words, limits.min_words)


def _too_long(one: Candidate, limits: FilterSettings) -> str:
    return _above("words", one.text.words, limits.max_words) if limits.max_words else ""


def _language(one: Candidate, limits: FilterSettings) -> str:
    wanted = not limits.languages or one.language in limits.languages
    return "" if wanted else one.language or "unknown"


def _word_length(one: Candidate, limits: FilterSettings) -> str:
    length = one.text.mean_word_length
    return _below("characters per word", length, limits.min_mean_word_length) or _above(
        "characters per word", length, limits.max_mean_word_length
    )


def _low_alphabetic(one: Candidate, limits: FilterSettings) -> str:
    if one.text.alphabetic_bound >= limits.min_alphabetic:
        return ""
    return _below("of the words with a letter", one.text.alphabetic, limits.min_alphabetic)


def _digits(one: Candidate, limits: FilterSettings) -> str:
    return _above("of the characters are digits", one.text.digits, limits.max_digits)


def _upper_case(one: Candidate, limits: FilterSettings) -> str:
    return _above("of the letters upper case", one.text.upper_case, limits.max_upper_case)


def _markup(one: Candidate, limits: FilterSettings) -> str:
    return _above("signs of markup per word", one.text.markup, limits.max_markup)


def _few_stop_words(one: Candidate, limits: FilterSettings) -> str:
    if one.language != "en":
        return ""
    return _below("of the words are stop words", one.text.english_stop_words, limits.min_stop_words)


def _duplicate_lines(one: Candidate, limits: FilterSettings) -> str:
    return _above("of the lines repeated", one.text.duplicate_lines, limits.max_duplicate_lines) or _above(
        "of the characters in repeated lines", one.text.duplicate_line_characters, limits.max_duplicate_line_characters
    )


def _top_ngram(one: Candidate, limits: FilterSettings) -> str:
    for width, limit in sorted(limits.max_top_ngram.items()):
        share = one.text.top_ngram(width) if one.text.top_ngram_bound(width) > limit else 0.0
        detail = _above(f"of the characters in one run of {width} words", share, limit)
        if detail:
            return detail
    return ""


def _duplicate_ngrams(one: Candidate, limits: FilterSettings) -> str:
    ascending = sorted(limits.max_duplicate_ngrams.items())
    for place, (width, limit) in enumerate(ascending):
        share = one.text.duplicate_ngrams(width)
        detail = _above(f"of the characters in repeated runs of {width} words", share, limit)
        # Longer runs repeat no more than shorter ones, so that most articles are measured once.
        if detail or all(share <= longer for _, longer in ascending[place:]):
            return detail
    return ""


FILTERS: dict[str, Filter] = {
    "article-type": _article_type,
    "too-short": _too_short,
    "too-long": _too_long,
    "language": _language,
    "word-length": _word_length,
    "low-alphabetic": _low_alphabetic,
    "many-digits": _digits,
    "upper-case": _upper_case,
    "markup": _markup,
    "few-stop-words": _few_stop_words,
    "duplicate-lines": _duplicate_lines,
    "top-ngram": _top_ngram,
    "duplicate-ngrams": _duplicate_ngrams,
}
"""All filters by the reason that they drop an article for, in the order in which they are asked: the cheap ones first,
and those that measure prose after the language is known."""


def _below(what: str, value: float, limit: float) -> str:
    return f"{value:.4g} {what}, at least {limit:.4g} wanted" if value < limit else ""


def _above(what: str, value: float, limit: float) -> str:
    return f"{value:.4g} {what}, at most {limit:.4g} wanted" if value > limit else ""


_NOTICE = re.compile(
    r"(?:author'?s? |publisher'?s? )?(correction|corrigend(?:um|a)|errat(?:um|a)|retraction(?: note| notice)?|"
    r"retracted(?: article)?|expression of concern|addendum|withdrawal|withdrawn)(?:\s*(?:$|[:.–—])| to\b)",
    re.IGNORECASE,
)
_NOTICE_TYPES = {
    "corrigenda": "corrigendum",
    "errata": "erratum",
    "retracted": "retraction",
    "withdrawn": "withdrawal",
}

_ONLY_BY_TITLE = frozenset({"addendum"})  # some journals call whole papers that follow up on another so


def _type_of(article: Article) -> str:
    """Return the article's type; a notice that calls itself research in its type is known by its title."""
    notice = _NOTICE.match(article.title.replace("’", "'"))
    if not notice:
        return "" if article.article_type in _ONLY_BY_TITLE else article.article_type
    name = re.sub(r" (?:note|notice|article)$", "", notice[1].lower())
    return _NOTICE_TYPES.get(name, name.replace(" ", "-"))
