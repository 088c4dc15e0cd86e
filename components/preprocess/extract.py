"""One raw shard to one clean shard: JATS to text, filtered, every article accounted for."""

import logging
import multiprocessing
import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.manifest import Shard
from components.common.progress import track
from components.common.shards import finished_shard, write_shard
from components.preprocess import filters, jats
from components.preprocess.settings import SIGNATURE_PERMUTATIONS, ExtractSettings, FilterSettings

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""Part of the fingerprint of clean shards: raise it when the same article would become other text."""

CLEAN_SCHEMA = pa.schema(
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
        ("sha256", pa.string()),
    ]
)
"""Columns of a clean shard; with a signature function also `signature`, 112 uint32."""

Signature = Callable[[list[str]], np.ndarray]
_RawRow = dict[str, Any]

_RAW_COLUMNS = ["article_id", "xml"]
# What the source says of an article counts more than what the article says of itself.
_SOURCE_COLUMNS = ["licence", "doi", "pmid", "pmcid"]
_BATCH = 64  # articles a process takes at a time
_INLINE = 200  # below this many articles, starting processes costs more than it gains
_ROW_GROUP = 1024


def extract_shard(
    raw: Shard,
    prefix_uri: str,
    extract: ExtractSettings,
    filters: FilterSettings,
    signature: Signature | None = None,
    workers: int | None = None,
) -> Shard:
    """Turn a raw shard into a clean one, or return the clean one if it is finished.

    The clean shard's stats hold `listed`, `kept`, `dropped` (reason to count), `rejected` (id, reason, detail of what
    could not be read), `filtered` (id and reason of what was dropped) and `repaired` (what was mended, to count);
    listed = kept + all dropped + all rejected.

    Args:
        raw: A Parquet shard in the store with the columns `article_id` and `xml`.
        prefix_uri: The folder of the clean shard; it contains the fingerprint.
        extract: What becomes text.
        filters: Which texts stay.
        signature: Maps texts to MinHash signatures, shape (texts, 112), uint32; an importable function.
        workers: How many processes; None takes one per CPU this process may use.

    Returns:
        The clean shard, of the raw shard's name.

    Raises:
        InputError: The raw shard is no readable Parquet file or lacks a column.
        StorageError: The store refuses.
        PipelineError: A worker process died.
    """
    done = finished_shard(prefix_uri, raw.name)
    if done is not None:
        log.info("%s is finished: %d articles kept.", raw.name, done.rows)
        return done
    tally = _Tally()
    work = _Work(extract, filters, signature)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clean.parquet"
        with storage.local_copy(raw.uri) as source, pq.ParquetWriter(path, work.schema, compression="zstd") as writer:
            batches = _raw_batches(source, raw.uri)
            workers = workers or _cpus()
            total = -(-raw.rows // _BATCH) or None
            alone = workers == 1 or raw.rows <= _INLINE
            results = map(work, batches) if alone else _in_processes(work, batches, workers, raw)
            _write(track(results, total, f"Extracting {raw.name}", "batches"), writer, work.schema, tally)
        shard = write_shard(prefix_uri, raw.name, {".parquet": path}, tally.kept, tally.stats())
    log.info("%s: %d of %d articles kept.", raw.name, tally.kept, tally.listed)
    return shard


@dataclass
class _Tally:
    """What became of every article."""

    listed: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)
    filtered: list[dict[str, str]] = field(default_factory=list)
    characters: int = 0
    words: int = 0

    def add(self, outcome: "_Outcome") -> None:
        self.listed += outcome.listed
        self.kept += outcome.table.num_rows
        self.dropped.update(item["reason"] for item in outcome.filtered)
        self.repaired.update(outcome.repaired)
        self.rejected += outcome.rejected
        self.filtered += outcome.filtered
        self.characters += sum(outcome.table["characters"].to_pylist())
        self.words += sum(outcome.table["words"].to_pylist())

    def stats(self) -> dict[str, Any]:
        return {
            "listed": self.listed,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "rejected": self.rejected,
            "filtered": self.filtered,
            "repaired": dict(sorted(self.repaired.items())),
            "characters": self.characters,
            "words": self.words,
        }


@dataclass(frozen=True)
class _Outcome:
    """What became of one batch."""

    listed: int
    table: pa.Table
    rejected: list[dict[str, str]]
    filtered: list[dict[str, str]]
    repaired: dict[str, int]


@dataclass(frozen=True)
class _Work:
    """The work on one batch; it travels to the worker processes."""

    extract: ExtractSettings
    filters: FilterSettings
    signature: Signature | None

    @property
    def schema(self) -> pa.Schema:
        if self.signature is None:
            return CLEAN_SCHEMA
        return CLEAN_SCHEMA.append(pa.field("signature", pa.list_(pa.uint32(), SIGNATURE_PERMUTATIONS)))

    def __call__(self, batch: list[_RawRow]) -> _Outcome:
        rows: list[dict[str, Any]] = []
        rejected, filtered = [], []
        repaired: Counter[str] = Counter()
        for raw in batch:
            article_id = raw["article_id"] or ""
            try:
                article = jats.extract(raw["xml"] or b"", self.extract)
            except jats.ArticleError as error:
                rejected.append({"id": article_id, "reason": error.reason, "detail": error.detail})
                continue
            except Exception as error:
                error.add_note(f"while extracting {article_id}")
                raise
            repaired.update(article.repairs)
            language = filters.identify_language(article)
            reason = filters.judge(article, self.filters, language)
            if reason:
                detail = language if reason == "language" else ""
                filtered.append({"id": article_id, "reason": reason, "detail": detail})
            else:
                rows.append(_row(article_id, article, language) | _said_by_source(raw))
        return _Outcome(len(batch), self._table(rows), rejected, filtered, dict(repaired))

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        table = pa.Table.from_pylist(rows, CLEAN_SCHEMA)
        if self.signature is None:
            return table
        sketches = np.asarray(self.signature([row["text"] for row in rows]), dtype=np.uint32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(sketches.reshape(-1)), SIGNATURE_PERMUTATIONS)
        return table.append_column(self.schema.field("signature"), column)


def _row(article_id: str, article: jats.Article, language: str) -> dict[str, Any]:
    return {
        "article_id": article_id,
        "title": article.title,
        "text": article.text,
        "language": language,
        "article_type": article.article_type,
        "journal": article.journal,
        "licence": article.licence,
        "doi": article.doi,
        "pmid": article.pmid,
        "pmcid": article.pmcid,
        "sha256": sha256(article.text.encode()).hexdigest(),
        "year": article.year,
        "sections": article.sections,
        "characters": len(article.text),
        "words": len(article.text.split()),
    }


def _said_by_source(raw: _RawRow) -> dict[str, Any]:
    return {name: raw[name] for name in _SOURCE_COLUMNS if raw.get(name)}


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _raw_batches(path: Path, uri: str) -> Iterator[list[_RawRow]]:
    """Yield the articles of a raw shard in small batches; the shard is never in memory whole."""
    try:
        with pq.ParquetFile(path) as parquet:
            missing = [column for column in _RAW_COLUMNS if column not in parquet.schema_arrow.names]
            if missing:
                raise InputError(f"The raw shard {uri} lacks the column {missing[0]!r}; download it again.")
            known = [column for column in _SOURCE_COLUMNS if column in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_BATCH, columns=[*_RAW_COLUMNS, *known]):
                yield batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(
            f"The raw shard {uri} is no whole Parquet file ({problem}); delete it and download it again."
        ) from error


def _in_processes(work: _Work, batches: Iterator[list[_RawRow]], workers: int, raw: Shard) -> Iterator[_Outcome]:
    """Yield the outcomes in the order of the batches, with only a few batches waiting."""
    # Spawned, not forked: the store's and Arrow's threads would leave locks behind in a fork.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[_Outcome]] = deque()
    with ProcessPoolExecutor(min(workers, -(-raw.rows // _BATCH)), mp_context=context) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise PipelineError(
                f"A process extracting {raw.uri} died, most likely for want of memory; give it more, or fewer CPUs."
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _write(outcomes: Iterator[_Outcome], writer: pq.ParquetWriter, schema: pa.Schema, tally: _Tally) -> None:
    """Write the kept articles in row groups of a steady size, so that the file doesn't depend on the batches."""
    held: list[pa.Table] = []
    for outcome in outcomes:
        tally.add(outcome)
        held.append(outcome.table)
        if sum(table.num_rows for table in held) >= _ROW_GROUP:
            writer.write_table(pa.concat_tables(held), row_group_size=_ROW_GROUP)
            held = []
    writer.write_table(pa.concat_tables([schema.empty_table(), *held]), row_group_size=_ROW_GROUP)
