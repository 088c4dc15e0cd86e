"""Which extracted articles stay in the corpus."""

import re
from collections import Counter
from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from components.preprocess.jats import Article
from components.preprocess.settings import FilterSettings

# The languages of the literature. Restricting the choice keeps short or Latin-heavy English texts from becoming Latin.
LANGUAGES = (
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "gl", "he", "hi",
    "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl",
    "sr", "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
_SAMPLE = 600  # characters from the start, the middle and the end of a text each
_ENOUGH = 300  # characters below which the declared language is believed
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


def judge(article: Article, settings: FilterSettings, language: str | None = None) -> str | None:
    """Say why an article is dropped.

    Args:
        article: An extracted article.
        settings: The limits.
        language: Its language where the caller has identified it already.

    Returns:
        ``article-type``, ``too-short``, ``too-long``, ``low-alphabetic``, ``repetitive``, ``language``, or None to
        keep it. The cheap reasons come first.
    """
    if _type_of(article) in settings.drop_article_types:
        return "article-type"
    words = article.text.split()
    if len(words) < settings.min_words:
        return "too-short"
    if settings.max_words and len(words) > settings.max_words:
        return "too-long"
    if settings.min_alphabetic and _alphabetic(words) < settings.min_alphabetic:
        return "low-alphabetic"
    if _repeated(article.text) > settings.max_repeated:
        return "repetitive"
    if settings.languages and (language or identify_language(article)) not in settings.languages:
        return "language"
    return None


def identify_language(article: Article) -> str:
    """Return the ISO 639-1 code of the language an article is written in, "" when nothing tells.

    The text decides, not the declaration: files say `en` over Portuguese bodies, and most say nothing. Only a text too
    short to tell is believed to be what it says.
    """
    text = article.text
    if len(text) < _ENOUGH and article.language:
        return article.language
    if not any(map(str.isalpha, text[:_SAMPLE])):
        return article.language
    middle = max(len(text) // 2 - _SAMPLE // 2, _SAMPLE)
    end = max(middle + _SAMPLE, len(text) - _SAMPLE)
    sample = " ".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[end:]))
    return str(_identifier().classify(sample)[0])


def _type_of(article: Article) -> str:
    """Return the article's type; a notice that calls itself research in its type is known by its title."""
    notice = _NOTICE.match(article.title.replace("’", "'"))
    if not notice:
        return article.article_type
    name = re.sub(r" (?:note|notice|article)$", "", notice[1].lower())
    return _NOTICE_TYPES.get(name, name.replace(" ", "-"))


def _alphabetic(words: list[str]) -> float:
    """Return the share of words that hold a letter, from some thousand of them (Rae et al. 2021, "Gopher", A1.1)."""
    sample = words[:: max(len(words) // 1000, 1)]
    return sum(word.isalpha() or any(map(str.isalpha, word)) for word in sample) / max(len(sample), 1)


def _repeated(text: str) -> float:
    """Return the share of characters in paragraphs that occurred before (Rae et al. 2021, "Gopher", A1.1)."""
    paragraphs = [paragraph for paragraph in text.split("\n") if paragraph]
    counts = Counter(paragraphs)
    if len(counts) == len(paragraphs):
        return 0.0
    return sum(len(paragraph) * (count - 1) for paragraph, count in counts.items()) / max(len(text), 1)


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier
