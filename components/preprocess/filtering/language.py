"""Which language an article is written in."""

from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from components.preprocess.extraction.jats import Article

# The languages of the literature. Restricting the choice keeps short or Latin-heavy English texts from becoming Latin.
LANGUAGES = (
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "gl", "he", "hi",
    "hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl",
    "sr", "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
# Characters from the start, the middle and the end of a text each. Time goes by the character; 200 tell as much as 600
# on every one of the real articles, 100 do not (docs/preprocess.md).
_SAMPLE = 200
ENOUGH = 300
"""Characters below which the declared language is believed."""


def identify_language(article: Article) -> str:
    """Return the ISO 639-1 code of the language an article is written in, "" when nothing tells.

    The text decides, not the declaration: files say `en` over Portuguese bodies, and most say nothing. Only a text too
    short to tell is believed to be what it says.
    """
    text = article.text
    if len(text) < ENOUGH and article.language:
        return article.language
    sample = _sample(text)
    if not any(map(str.isalpha, sample)):
        return article.language
    return str(_identifier().classify(sample)[0])


def _sample(text: str) -> str:
    if len(text) <= 3 * _SAMPLE:
        return text
    middle = (len(text) - _SAMPLE) // 2
    return " ".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier
