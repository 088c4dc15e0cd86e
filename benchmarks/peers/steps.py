"""What the other tools' worker processes call: ways from an article's XML to its text, sketches and tokens.

There are two ways to the text: this project's extraction and filters, and what somebody without this project would
take, the `jats` package, py3langid, and datatrove's quality filters.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.preprocess.settings import ExtractSettings, FilterSettings

PERMUTATIONS, NGRAM, SCHEME = 112, 5, "affine32"
LANGUAGE_CHARACTERS = 1_000
"""py3langid gets the beginning of a text: its time goes by the character, and for whole articles would be 5 ms."""

_EXTRACT, _FILTER = ExtractSettings(), FilterSettings()


# From XML to text. Each returns "" where there is none, or a filter drops it.


def text_by_ours(xml: bytes) -> str:
    """Return an article's text by this project's extraction, if its filters keep it."""
    from components.preprocess.extraction import jats
    from components.preprocess.filtering import filters

    try:
        article = jats.extract(xml, _EXTRACT)
    except jats.ArticleError:
        return ""
    return "" if filters.judge(article, _FILTER) else article.text


def text_by_others(xml: bytes) -> str:
    """Return an article's Markdown by the `jats` package, if it is English and datatrove's filters keep it."""
    from datatrove.data import Document

    text = markdown_of(xml)
    if not text or not is_english(text):
        return ""
    document = Document(text=text, id="")
    return text if all(each.filter(document) is True for each in quality_filters()) else ""


def markdown_of(xml: bytes) -> str:
    """Return an article's Markdown by the `jats` package; it fails in ways of its own."""
    import jats

    with tempfile.NamedTemporaryFile(suffix=".xml") as file:  # it reads files only
        file.write(xml)
        file.flush()
        try:
            return str(jats.convert_to_markdown(jats.parse_jats_xml(Path(file.name))))
        except Exception:  # noqa: BLE001 - an article without text
            return ""


def is_english(text: str) -> bool:
    """Tell whether py3langid calls the beginning of a text English."""
    import py3langid

    return bool(py3langid.classify(text[:LANGUAGE_CHARACTERS])[0] == "en")


@lru_cache(maxsize=1)
def quality_filters() -> tuple[Any, ...]:
    """Return datatrove's filters of Gopher and FineWeb, with this project's limits where they have the same rule.

    Two rules of FineWeb's are off, by which a third of the papers would go: lines that end in punctuation, short lines.
    """
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    from benchmarks.peers.words import SpaceWords

    words = SpaceWords()
    return (
        GopherQualityFilter(
            min_doc_words=_FILTER.min_words,
            max_doc_words=None,
            max_symbol_word_ratio=_FILTER.max_markup,
            max_non_alpha_words_ratio=_FILTER.min_alphabetic,
            language=words,
        ),
        FineWebQualityFilter(
            line_punct_thr=0,
            short_line_thr=1,
            char_duplicates_ratio=_FILTER.max_duplicate_line_characters,
            language=words,
        ),
        GopherRepetitionFilter(
            dup_line_frac=_FILTER.max_duplicate_lines,
            dup_para_frac=_FILTER.max_duplicate_lines,
            dup_line_char_frac=_FILTER.max_duplicate_line_characters,
            dup_para_char_frac=_FILTER.max_duplicate_line_characters,
            top_n_grams=tuple(_FILTER.max_top_ngram.items()),
            dup_n_grams=tuple(_FILTER.max_duplicate_ngrams.items()),
            language=words,
        ),
    )


def get_ready(by_others: bool) -> None:
    """Load what takes its time to load, before the processes are forked that would each load it again."""
    if by_others:
        import jats  # noqa: F401 - for the processes

        quality_filters()
        is_english("Ready?")
    else:
        text_by_ours(b"")


# Steps of datatrove.


def raw_document(_reader: Any, row: dict[str, Any], _path: str, _number: int) -> dict[str, Any]:
    """Make a document of a raw row: datatrove's adapter."""
    return {"text": row["xml"], "id": row["article_id"]}


def to_text(data: Any, _rank: int = 0, _world_size: int = 1) -> Iterator[Any]:
    """Turn documents of XML into documents of text, this project's."""
    yield from _with_text(data, text_by_ours)


def to_markdown(data: Any, _rank: int = 0, _world_size: int = 1) -> Iterator[Any]:
    """Turn documents of XML into documents of Markdown; datatrove's filters are steps of their own."""
    yield from _with_text(data, markdown_of)


def english(data: Any, _rank: int = 0, _world_size: int = 1) -> Iterator[Any]:
    """Leave the documents that are English. datatrove's own filter fetches a model from elsewhere."""
    return (document for document in data if is_english(document.text))


def _with_text(data: Any, text_of: Callable[[bytes], str]) -> Iterator[Any]:
    for document in data:
        document.text = text_of(document.text)
        if document.text:
            yield document


# Functions that datasets maps.


def sketched_texts(batch: dict[str, list[Any]], by_others: bool) -> dict[str, list[Any]]:
    """Turn a batch of rows into those that have a text, and sketch them: one pass, one table written."""
    text_of = text_by_others if by_others else text_by_ours
    pairs = [(one, text_of(xml)) for one, xml in zip(batch["article_id"], batch["xml"], strict=True)]
    kept = [(one, text) for one, text in pairs if text]
    return {
        "article_id": [one for one, _ in kept],
        "text": [text for _, text in kept],
        "signature": [signature(text) for _, text in kept],
    }


def signature(text: str) -> Any:
    """Sketch a text with datasketch: words of bytes and xxHash in place of SHA-1, which is twice as fast."""
    words = text.lower().encode().split()
    minhash = _empty_sketch().copy()
    shifted = [words[start:] for start in range(NGRAM)]
    minhash.update_batch(set(map(b" ".join, zip(*shifted, strict=False))) or {b" ".join(words)})
    return minhash.hashvalues


def tokens(batch: dict[str, list[Any]], tokenizer: str) -> dict[str, list[Any]]:
    """Encode a batch, without the offsets; the ids as an array, which takes less time to write than a list."""
    import numpy as np

    encoded = _tokenizer(tokenizer).encode_batch_fast(batch["text"], add_special_tokens=False)
    return {"input_ids": [np.array(one.ids, dtype=np.uint16) for one in encoded]}


@lru_cache(maxsize=1)
def _empty_sketch() -> Any:
    import xxhash
    from datasketch import MinHash

    return MinHash(PERMUTATIONS, scheme=SCHEME, hashfunc=xxhash.xxh32_intdigest)


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)
