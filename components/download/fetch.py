"""Fetch one planned shard: read its articles and pack them into one Parquet file."""

import contextlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.common import article_index, storage
from components.common.article_index import FETCHED
from components.common.errors import InputError
from components.common.manifest import Manifest, Rejected, Shard
from components.common.progress import track
from components.common.shards import finished_shard, write_shard
from components.common.stored_file import StoredFile
from components.common.throughput import for_throughput
from components.download.plan import load_part
from components.download.policy import RETRACTED
from components.download.previous import PreviousShard
from components.download.raw_shard import raw_shard
from components.download.settings import DownloadSettings
from components.download.sources import Article, LeftOut, Outcome, open_source

log = logging.getLogger(__name__)

WITHDRAWN = "withdrawn"
_REMOTE = {"pmc", "s2orc"}
_LATEST = "latest.json"


def fetch_shard(plan: Manifest, name: str, settings: DownloadSettings) -> Manifest:
    """Fetch the articles of a planned shard, unless the store has it already.

    Args:
        plan: What :func:`plan_download` returned.
        name: The shard's name in the plan.
        settings: The recipe's download section.

    Returns:
        Manifest of kind ``raw`` with one shard, whose rows are :data:`raw_shard.SCHEMA`; listed = articles + all
        dropped + rejected. ``extra`` holds the ids of the retracted articles, and of those that an earlier state of
        the shard had and that were retracted or withdrawn since.

    Raises:
        InputError: The source is damaged or has changed since the plan was made, or too many articles failed.
        StorageError: The store or the source cannot be read, or the store cannot be written.
    """
    planned = plan.shard(name)
    shard = finished_shard(planned.stats["prefix"], name)
    if shard:
        log.info("%s is there already (%d articles)", name, shard.rows)
        changes = {"new": 0, "changed": 0, "unchanged": shard.rows, "removed_since": 0}
    else:
        shard = _fetch(planned, settings)
        changes = shard.stats["changes"]
    # Where a shard has no earlier state to compare with, everything would be new.
    changes = changes if planned.stats["place"] else {}
    return Manifest(
        kind="raw",
        fingerprint=planned.stats["fingerprint"],
        inputs={"listing": planned.sha256},
        settings=plan.settings,
        shards=[shard],
        totals={"listed": shard.stats["listed"], "articles": shard.rows, **changes},
        dropped=shard.stats["dropped"],
        rejected=[Rejected(**entry) for entry in shard.stats["rejected"]],
        extra={
            "retracted": shard.stats["retracted"],
            "removed": shard.stats["removed"],
            "origin": {"source": settings.source, **plan.extra},
        },
    )


@dataclass
class _Account:
    """What became of the listed articles, and what changed against the earlier state of the shard."""

    previous: PreviousShard | None
    limit: float
    planned: int
    listed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)
    retracted: list[str] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    removed: list[dict[str, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.listed += 1
        if isinstance(outcome, Article):
            self._fetched(outcome)
            return
        if isinstance(outcome, LeftOut):
            self.dropped[outcome.reason] += 1
            if outcome.reason == RETRACTED:
                self.retracted.append(outcome.id)
        else:
            self.rejected.append(outcome)
            # Where nobody knows how many are to come, only the end can tell.
            if self.planned:
                self._check_failures(self.planned)
        if self._was_fetched(outcome.id):
            self.removed.append({"id": outcome.id, "reason": outcome.reason})

    def finish(self, part: pa.Table) -> None:
        """Name what the earlier state had and nobody lists any more, and judge the failures."""
        self._check_failures(self.listed)
        if self.previous is not None and self.previous.same_place:
            listed_ids = set(part["article_id"].to_pylist())
            gone = [each for each in self.previous.fetched_ids() if each not in listed_ids]
            self.removed += [{"id": each, "reason": WITHDRAWN} for each in gone]

    def stats(self) -> dict[str, Any]:
        return {
            "listed": self.listed,
            "dropped": dict(sorted(self.dropped.items())),
            "rejected": [each.model_dump() for each in self.rejected],
            "retracted": self.retracted,
            "removed": self.removed,
            "changes": {name: self.changes[name] for name in ("new", "changed", "unchanged")}
            | {"removed_since": len(self.removed)},
        }

    def _fetched(self, article: Article) -> None:
        if article.is_retracted:
            self.retracted.append(article.article_id)
        if article.reused:
            self.changes["unchanged"] += 1
        else:
            self.changes["changed" if self._was_fetched(article.article_id) else "new"] += 1

    def _was_fetched(self, article_id: str) -> bool:
        known = self.previous.known(article_id) if self.previous else None
        return known is not None and known["outcome"] == FETCHED

    def _check_failures(self, articles: int) -> None:
        most = math.ceil(self.limit * articles)
        if len(self.rejected) <= most:
            return
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(r.reason for r in self.rejected).items())
        first = self.rejected[0]
        raise InputError(
            f"{len(self.rejected)} of the first {self.listed} articles of this shard could not be fetched ({reasons}), "
            f"more than the {most} that download.max_failed_fraction allows; the first was {first.id} "
            f"({first.detail[:300]}). Mend the source and run again, or raise the limit."
        )


def _fetch(planned: Shard, settings: DownloadSettings) -> Shard:
    part = load_part(planned)
    prefix, name = planned.stats["prefix"], planned.name
    # Files of one's own do not fail to come: the preprocess stage judges those that cannot be used.
    limit = settings.max_failed_fraction if settings.source in _REMOTE else 1.0
    uri = storage.join(prefix, name + article_index.DATA_SUFFIX)
    with _previous(planned) as previous:
        account = _Account(previous, limit, planned.rows)
        with for_throughput(), raw_shard(uri, settings.source) as writer:
            outcomes = open_source(settings).fetch(part, previous)
            for outcome in track(outcomes, planned.rows or None, label=f"Fetching {name}", unit="articles"):
                account.add(outcome)
                writer.add(outcome)
            account.finish(part)
    files: dict[str, bytes | Path | StoredFile] = {
        article_index.DATA_SUFFIX: writer.file,
        article_index.SUFFIX: writer.index,
    }
    shard = write_shard(prefix, name, files, writer.rows, account.stats())
    if planned.stats["place"]:
        pointer = json.dumps({"fingerprint": planned.stats["fingerprint"], "name": name})
        storage.write(storage.join(planned.stats["place"], _LATEST), pointer.encode())
    _log(name, account, shard)
    return shard


@contextlib.contextmanager
def _previous(planned: Shard) -> Iterator[PreviousShard | None]:
    """Open the last finished state of the shard's place, or of one that held its articles before."""
    place = planned.stats["place"]
    for candidate in filter(None, [place, *planned.stats["earlier"]]):
        pointer = storage.join(candidate, _LATEST)
        if not storage.exists(pointer):
            continue
        latest = json.loads(storage.read(pointer))
        prefix = storage.join(candidate, latest["fingerprint"])
        shard = finished_shard(prefix, latest["name"])
        if shard is None:
            continue
        index_uri = article_index.index_uri(shard.uri)
        with storage.local_copy(shard.uri) as articles, storage.local_copy(index_uri) as index:
            yield PreviousShard(pq.read_table(index), articles, same_place=candidate == place)
            return
    yield None


def _log(name: str, account: _Account, shard: Shard) -> None:
    changes = shard.stats["changes"]
    log.info(
        "%s: %d of %d articles (%d new, %d changed, %d as before); %d left out, %d failed, %d removed since",
        *(name, shard.rows, account.listed, changes["new"], changes["changed"], changes["unchanged"]),
        *(sum(account.dropped.values()), len(account.rejected), changes["removed_since"]),
    )
