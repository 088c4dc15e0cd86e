"""What the other tools' worker processes call: this project's extraction and filters, and their own sketches."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from components.preprocess.extraction import jats
from components.preprocess.filtering import filters
from components.preprocess.settings import ExtractSettings, FilterSettings

PERMUTATIONS, NGRAM, SCHEME = 112, 5, "affine32"
_EXTRACT, _FILTER = ExtractSettings(), FilterSettings()


def text_of(xml: bytes) -> str:
    """Return an article's text, or "" where it has none or a filter drops it."""
    try:
        article = jats.extract(xml, _EXTRACT)
    except jats.ArticleError:
        return ""
    return "" if filters.judge(article, _FILTER) else article.text


def raw_document(_reader: Any, row: dict[str, Any], _path: str, _number: int) -> dict[str, Any]:
    """Make a document of a raw row: datatrove's adapter."""
    return {"text": row["xml"], "id": row["article_id"]}


def to_text(data: Any, _rank: int = 0, _world_size: int = 1) -> Iterator[Any]:
    """Turn documents of XML into documents of text: a step of datatrove."""
    for document in data:
        document.text = text_of(document.text)
        if document.text:
            yield document


def texts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Turn a batch of rows into those that have a text."""
    pairs = [(one, text_of(xml)) for one, xml in zip(batch["article_id"], batch["xml"], strict=True)]
    kept = [(one, text) for one, text in pairs if text]
    return {"article_id": [one for one, _ in kept], "text": [text for _, text in kept]}


def signatures(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Sketch a batch with datasketch."""
    from datasketch import MinHash

    found = []
    for text in batch["text"]:
        words = text.lower().split()
        minhash = MinHash(PERMUTATIONS, scheme=SCHEME)
        grams = {" ".join(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))}
        minhash.update_batch([gram.encode() for gram in grams])
        found.append(minhash.hashvalues)
    return {"signature": found}


def tokens(batch: dict[str, list[Any]], tokenizer: str) -> dict[str, list[Any]]:
    """Encode a batch."""
    ids = [encoding.ids for encoding in _tokenizer(tokenizer).encode_batch(batch["text"], add_special_tokens=False)]
    return {"input_ids": ids}


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)
