"""One raw shard to one clean shard: JATS to text, filtered, every article accounted for."""

import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.common import storage
from components.common.manifest import Shard
from components.common.progress import track
from components.common.shards import finished_shard, write_shard
from components.common.stored_file import StoredFile
from components.preprocess.article_work import (
    CLEAN_SCHEMA,
    ArticleWork,
    Outcome,
    RawArticle,
    name_of,
    size_of,
)
from components.preprocess.decontamination.decontaminate import SUFFIX, Decontaminator, write_matches
from components.preprocess.dropped_samples import lowest
from components.preprocess.raw_articles import BATCH_ARTICLES, read_batches
from components.preprocess.settings import ExtractSettings, FilterSettings, WorkerSettings
from components.preprocess.workers import pod
from components.preprocess.workers.worker_pool import Limits, Names, in_workers

__all__ = ["CLEAN_SCHEMA", "FORMAT_VERSION", "extract_shard"]

log = logging.getLogger(__name__)

FORMAT_VERSION = 4
"""Part of the fingerprint of clean shards: raise it when the same article would become other text."""

_ROW_GROUP = 1024
# Signatures and texts hardly repeat: dictionaries of theirs would make the file larger and slower to write.
_DICTIONARIES = ["language", "article_type", "journal", "licence"]
_STEP_BYTES = 500_000_000  # for the step itself beside its workers
_LOSSES, _LOSSES_PER_ARTICLE = 12, 0.01


def extract_shard(
    raw: Shard,
    prefix_uri: str,
    extract: ExtractSettings,
    filters: FilterSettings,
    workers: WorkerSettings | None = None,
    decontaminator: Decontaminator | None = None,
) -> Shard:
    """Turn a raw shard into a clean one, or return the clean one if it is finished.

    The clean shard's stats hold `listed`, `kept`, `dropped` (reason to count), `rejected` (id, reason, detail of what
    could not be read), `filtered` (id, reason, detail of what was dropped), `dropped_samples` (id, reason, title, text
    of a few of these), `repaired` (what was mended, to count) and `overlaps` (rows of the file
    `<name>.contamination.parquet` beside the shard: articles and test questions that share a run of words);
    listed = kept + all dropped + all rejected.

    Args:
        raw: A Parquet shard in the store with the columns `article_id` and `xml`.
        prefix_uri: The folder of the clean shard; it contains the fingerprint.
        extract: What becomes text.
        filters: Which texts stay.
        workers: The processes that do the work; what they are has no say in what the shard holds, articles apart that
            are too much for them.
        decontaminator: Looks for test questions in the texts that stay; None looks for none.

    Returns:
        The clean shard, of the raw shard's name.

    Raises:
        InputError: The raw shard is no readable Parquet file or lacks a column.
        StorageError: The store refuses.
        PipelineError: Worker processes can't start, or too many of them died.
    """
    done = finished_shard(prefix_uri, raw.name)
    if done is not None:
        log.info("%s is finished: %d articles kept.", raw.name, done.rows)
        return done
    tally = _Tally()
    work = ArticleWork(extract, filters, decontaminator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clean.parquet"
        with (
            storage.local_copy(raw.uri) as source,
            pq.ParquetWriter(path, CLEAN_SCHEMA, compression="zstd", use_dictionary=_DICTIONARIES) as writer,
            contextlib.closing(_outcomes(work, source, raw, workers or WorkerSettings())) as outcomes,
        ):
            articles = track(_article_by_article(outcomes), raw.rows or None, f"Extracting {raw.name}", "articles")
            _write(articles, writer, tally)
        files: dict[str, bytes | Path | StoredFile] = {".parquet": path, SUFFIX: write_matches(tally.matches)}
        shard = write_shard(prefix_uri, raw.name, files, tally.kept, tally.stats())
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
    samples: list[dict[str, str]] = field(default_factory=list)
    matches: list[dict[str, Any]] = field(default_factory=list)
    characters: int = 0
    words: int = 0

    def add(self, outcome: Outcome) -> None:
        self.listed += outcome.listed
        self.kept += outcome.table.num_rows
        self.dropped.update(item["reason"] for item in outcome.filtered)
        self.repaired.update(outcome.repaired)
        self.rejected += outcome.rejected
        self.filtered += outcome.filtered
        self.samples = lowest([*self.samples, *outcome.samples])
        self.matches += outcome.matches
        self.characters += sum(outcome.table["characters"].to_pylist())
        self.words += sum(outcome.table["words"].to_pylist())

    def stats(self) -> dict[str, Any]:
        return {
            "listed": self.listed,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "rejected": self.rejected,
            "filtered": self.filtered,
            "dropped_samples": self.samples,
            "repaired": dict(sorted(self.repaired.items())),
            "overlaps": len(self.matches),
            "characters": self.characters,
            "words": self.words,
        }


def _outcomes(work: ArticleWork, source: Path, raw: Shard, workers: WorkerSettings) -> Generator[Outcome, None, None]:
    """Yield what became of the articles, in their order."""
    batches = read_batches(source, raw.uri)
    first = list(islice(batches, 2))
    if len(first) < 2:
        # What fits into one batch has no article that could take the step's memory; starting workers would cost more.
        yield from map(work, first)
        return
    limits = Limits(
        processes=min(_processes(workers), max(2, -(-raw.rows // BATCH_ARTICLES))),
        memory_mb=workers.memory_mb,
        seconds=workers.article_seconds,
        losses=max(_LOSSES, int(_LOSSES_PER_ARTICLE * raw.rows)),
    )
    names: Names[RawArticle] = Names(raw.uri, name_of, size_of)
    with contextlib.closing(in_workers(work, chain(first, batches), limits, names)) as outcomes:
        yield from outcomes


def _processes(workers: WorkerSettings) -> int:
    """Return how many workers to start: one per CPU, if the memory is enough for each to take what it may take."""
    if workers.processes:
        return workers.processes
    cpus = pod.cpus()
    fit = max(1, (pod.memory_bytes() - _STEP_BYTES) // (workers.memory_mb * 1_000_000))
    if fit < cpus:
        log.info("Memory is enough for %d workers of %d MB; there are %d CPUs.", fit, workers.memory_mb, cpus)
    return min(cpus, fit)


def _article_by_article(outcomes: Iterator[Outcome]) -> Iterator[Outcome | None]:
    """Yield each outcome, then nothing for each further article in it: progress is told in articles."""
    for outcome in outcomes:
        yield outcome
        yield from repeat(None, outcome.listed - 1)


def _write(outcomes: Iterator[Outcome | None], writer: pq.ParquetWriter, tally: _Tally) -> None:
    """Write the kept articles in row groups of one size, so that the file doesn't depend on how they were batched."""
    held = CLEAN_SCHEMA.empty_table()
    for outcome in filter(None, outcomes):
        tally.add(outcome)
        held = pa.concat_tables([held, outcome.table])
        while held.num_rows >= _ROW_GROUP:
            writer.write_table(held.slice(0, _ROW_GROUP).combine_chunks(), row_group_size=_ROW_GROUP)
            held = held.slice(_ROW_GROUP)
    writer.write_table(held.combine_chunks(), row_group_size=_ROW_GROUP)
