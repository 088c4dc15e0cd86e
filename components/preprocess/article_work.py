"""The work on a batch of articles, as a worker process does it: JATS to rows of the clean shard, or the reason why not.

What a worker imports is this file and what it needs: nothing of the store, so that a worker starts in half a second.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
from lxml import etree

from components.preprocess.decontamination.decontaminate import CONTAMINATED, Decontaminator
from components.preprocess.deduplication.signatures import (
    DIGEST_BYTES,
    SIGNATURE_TYPE,
    sketches_of,
    to_arrow,
    word_hashes,
)
from components.preprocess.dropped_samples import lowest, sample
from components.preprocess.extraction import jats
from components.preprocess.filtering import filters
from components.preprocess.settings import ExtractSettings, FilterSettings

TEXT_SCHEMA = pa.schema(
    [
        ("article_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("article_type", pa.string()),
        ("journal", pa.string()),
        ("year", pa.int32()),
        ("licence", pa.string()),
        ("doi", pa.string()),
        ("pmid", pa.string()),
        ("pmcid", pa.string()),
        ("sections", pa.int32()),
        ("characters", pa.int32()),
        ("words", pa.int32()),
        ("is_manuscript", pa.bool_()),
        ("sha256", pa.string()),
    ]
)
SKETCH_FIELDS = [pa.field("words_digest", pa.binary(DIGEST_BYTES)), pa.field("signature", SIGNATURE_TYPE)]
CLEAN_SCHEMA = pa.schema([*TEXT_SCHEMA, *SKETCH_FIELDS])
"""Columns of a clean shard: what is known of a text, and what the search for copies needs of it."""

SOURCE_COLUMNS = ["licence", "doi", "pmid", "pmcid", "is_manuscript"]
"""What the source says of an article counts more than what the article says of itself."""

RawArticle = dict[str, Any]


@dataclass(frozen=True)
class Fate:
    """What became of one article: a row, a reason why it was dropped, or one why it could not be read."""

    row: dict[str, Any] | None = None
    words: np.ndarray | None = None  # of the row's text, hashed
    filtered: dict[str, str] | None = None
    rejected: dict[str, str] | None = None
    sample: dict[str, str] | None = None
    repairs: tuple[str, ...] = ()
    matches: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What became of one batch; `samples` are those of dropped articles that may be shown."""

    listed: int
    table: pa.Table
    rejected: list[dict[str, str]]
    filtered: list[dict[str, str]]
    samples: list[dict[str, str]]
    repaired: dict[str, int]
    matches: list[dict[str, Any]]


@dataclass(frozen=True)
class ArticleWork:
    """The work on a batch; it travels to the worker processes."""

    extract: ExtractSettings
    filters: FilterSettings
    decontaminator: Decontaminator | None = None

    def __call__(self, batch: Sequence[RawArticle]) -> Outcome:
        """Work on the articles of a batch, one after the other.

        Raises:
            MemoryError: There is not enough of it for one of them.
        """
        return self._outcome([self._named(raw) for raw in batch])

    def article(self, raw: RawArticle) -> Fate:
        """Work on one article. A further step between extraction and row goes into this function."""
        article_id = name_of(raw)
        try:
            article = jats.extract(raw["xml"] or b"", self.extract)
        except jats.ArticleError as error:
            if _for_want_of_memory(error):
                raise MemoryError(error.detail) from error
            return Fate(rejected={"id": article_id, "reason": error.reason, "detail": error.detail})
        candidate = filters.Candidate(article)
        verdict = filters.assess(candidate, self.filters)
        if verdict:
            return _dropped(article_id, article, verdict.reason, verdict.detail)
        said_by_source = {name: raw[name] for name in SOURCE_COLUMNS if raw.get(name)}
        text, words, hashes, matches = article.text, candidate.text.words, candidate.text.word_hashes, []
        if self.decontaminator:
            examined = self.decontaminator.examine(article_id, said_by_source.get("pmid", article.pmid), text)
            text, matches, reason = examined.text, examined.matches, examined.reason
            if text != article.text:
                words, hashes = len(text.split()), word_hashes(text)
                if words < self.filters.min_words:
                    reason = CONTAMINATED  # too little is left without the question
            if reason:
                matches = [match | {"action": "drop"} for match in matches]
                return _dropped(article_id, article, reason, "", matches)
        row = _row(article_id, article, text, words, candidate.language) | said_by_source
        return Fate(row, hashes, repairs=article.repairs, matches=matches)

    def give_up(self, raw: RawArticle, reason: str, detail: str) -> Outcome:
        """Reject an article that no worker survives."""
        return self._outcome([Fate(rejected={"id": name_of(raw), "reason": reason, "detail": detail})])

    def _named(self, raw: RawArticle) -> Fate:
        try:
            return self.article(raw)
        except Exception as error:
            error.add_note(f"while extracting {name_of(raw)}")
            raise

    def _outcome(self, fates: list[Fate]) -> Outcome:
        return Outcome(
            listed=len(fates),
            table=_table(fates),
            rejected=[fate.rejected for fate in fates if fate.rejected],
            filtered=[fate.filtered for fate in fates if fate.filtered],
            samples=lowest([fate.sample for fate in fates if fate.sample]),
            repaired=dict(Counter(repair for fate in fates for repair in fate.repairs)),
            matches=[match for fate in fates for match in fate.matches],
        )


def with_sketches(texts: pa.Table, words: Iterable[np.ndarray] | None = None) -> pa.Table:
    """Add to rows of `TEXT_SCHEMA` the columns that make them rows of `CLEAN_SCHEMA`.

    Args:
        texts: The rows.
        words: What `word_hashes` returned for the text of each, where it is at hand.
    """
    signatures, digests = sketches_of(map(word_hashes, texts["text"].to_pylist()) if words is None else words)
    digest_column = pa.array([digest.tobytes() for digest in digests], SKETCH_FIELDS[0].type)
    return texts.append_column(SKETCH_FIELDS[0], digest_column).append_column(SKETCH_FIELDS[1], to_arrow(signatures))


def name_of(raw: RawArticle) -> str:
    """Return the article's id."""
    return raw["article_id"] or ""


def size_of(raw: RawArticle) -> int:
    """Return the bytes of the article's XML."""
    return len(raw["xml"] or b"")


def _table(fates: list[Fate]) -> pa.Table:
    rows = [fate.row for fate in fates if fate.row]
    words = [fate.words for fate in fates if fate.words is not None]
    return with_sketches(pa.Table.from_pylist(rows, TEXT_SCHEMA), words)


def _dropped(
    article_id: str, article: jats.Article, reason: str, detail: str, matches: list[dict[str, Any]] | None = None
) -> Fate:
    return Fate(
        filtered={"id": article_id, "reason": reason, "detail": detail},
        sample=sample(article_id, reason, article.title, article.text),
        repairs=article.repairs,
        matches=matches or [],
    )


def _for_want_of_memory(error: BaseException | None) -> bool:
    """Tell whether libxml2 ran out of memory: lxml says so with a syntax error ("unknown error") as often as not."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:
            return True
        error = error.__cause__ or error.__context__
    return False


def _row(article_id: str, article: jats.Article, text: str, words: int, language: str) -> dict[str, Any]:
    encoded = text.encode()
    return {
        "article_id": article_id,
        "title": article.title,
        "text": encoded,
        "language": language,
        "article_type": article.article_type,
        "journal": article.journal,
        "licence": article.licence,
        "doi": article.doi,
        "pmid": article.pmid,
        "pmcid": article.pmcid,
        "sha256": sha256(encoded).hexdigest(),
        "year": article.year,
        "sections": article.sections,
        "characters": len(text),
        "words": words,
    }
