"""PubMed Central by its Cloud Service: every article is two objects, its metadata and its XML.

Shards are cut by a hash of the PMCID. What a later inventory adds, changes or no longer lists touches only the shards
of those articles, and there only those articles are fetched: the rest comes from the shard's earlier state.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from components.common.article_index import FETCHED
from components.common.fingerprint import fingerprint
from components.common.manifest import Rejected
from components.common.pmc.bucket import Bucket
from components.common.pmc.inventory import newest_inventory
from components.common.pmc.metadata import Metadata, read_metadata
from components.common.transport import FetchError, with_md5
from components.download.policy import why_left_out, why_left_out_by_xml
from components.download.previous import PreviousShard
from components.download.sampling import chosen, hashes
from components.download.settings import DownloadSettings, PolicySettings
from components.download.sources import Article, LeftOut, Outcome, Part, SourcePlan, shard_count

log = logging.getLogger(__name__)

# A lower bound of what an article takes in a shard, to see beforehand that the disk cannot hold them.
_STORED_BYTES = 10_000
_ROWS_AT_A_TIME = 1024
_BATCH = 12  # articles that a thread takes at a time

_Listed = tuple[str, int, str]  # id, version, ETag of the metadata


class PmcSource:
    """The PMC Cloud Service's bucket, or a mirror of it."""

    def __init__(self, settings: DownloadSettings) -> None:
        """Open the bucket."""
        self._settings = settings
        self._bucket = Bucket(settings.pmc, settings.transport)

    def plan(self) -> SourcePlan:
        """Read the newest inventory and divide its articles, the highest version of each, into shards.

        Raises:
            InputError: There is no complete inventory.
            StorageError: The bucket cannot be read.
        """
        inventory = newest_inventory(self._bucket, self._settings.pmc.inventory)
        hashed = hashes(inventory.articles["article_id"])
        keep = chosen(hashed, self._settings.sample_fraction, self._settings.max_articles)
        articles, hashed = inventory.articles.filter(pa.array(keep)), hashed[keep]
        log.info("Inventory %s: %d articles, %d chosen", inventory.date, len(keep), len(hashed))
        return SourcePlan(
            parts=_parts(articles, hashed, _power_of_two(shard_count(len(hashed), self._settings))),
            articles=len(hashed),
            inputs={"inventory": inventory.date},
            totals={
                "inventory_articles": len(keep),
                "superseded_versions": inventory.superseded,
                "not_sampled": len(keep) - len(hashed),
                "unknown_keys": inventory.unknown,
            },
            extra={"inventory": inventory.date},
            least_bytes=len(hashed) * _STORED_BYTES,
        )

    def identity(self) -> str:
        """Name what decides, besides the listing, what a shard holds."""
        return fingerprint(self._settings.policy.model_dump(mode="json"), self._settings.max_article_bytes)

    def fetch(self, part: pa.Table, previous: PreviousShard | None) -> Iterator[Outcome]:
        """Yield what became of each listed article, by rising PMCID."""
        fetcher = _Fetcher(self._bucket, self._settings, previous)
        earlier = _Earlier(previous)
        for outcome in self._bucket.transport.map(fetcher, _listed(part), batch=_BATCH):
            if isinstance(outcome, _AsBefore):
                xml = earlier.xml(outcome.metadata.pmcid)
                yield _judged(outcome.metadata, xml, outcome.etag, self._settings.policy, reused=True)
            else:
                yield outcome
        transport = self._bucket.transport
        log.info("%d requests, %d of them tried again", transport.requests, transport.retries)


@dataclass(frozen=True, slots=True)
class _AsBefore:
    """An article whose XML is that of the earlier state."""

    metadata: Metadata
    etag: str


class _Earlier:
    """Walks the earlier state's articles beside the new ones; both rise by PMCID."""

    def __init__(self, previous: PreviousShard | None) -> None:
        self._rows = previous.rows() if previous else iter(())

    def xml(self, article_id: str) -> bytes:
        return next(row["xml"] for row in self._rows if row["article_id"] == article_id)


class _Fetcher:
    """What happens to one listed article; called from many threads."""

    def __init__(self, bucket: Bucket, settings: DownloadSettings, previous: PreviousShard | None) -> None:
        self._bucket, self._settings, self._previous = bucket, settings, previous

    def __call__(self, listed: _Listed) -> Outcome | _AsBefore:
        article_id, version, etag = listed
        known = self._previous.known(article_id) if self._previous else None
        try:
            metadata = self._metadata(listed, known)
            reason = why_left_out(metadata, self._settings.policy)
            if reason:
                return LeftOut(article_id, reason, version, etag, metadata.model_dump_json())
            if _same_xml(known, metadata):
                return _AsBefore(metadata, etag)
            key, md5 = metadata.xml_address()
            xml = self._bucket.read(key, with_md5(md5, key), self._settings.max_article_bytes)
        except FetchError as error:
            return Rejected(id=article_id, reason=error.reason, detail=error.detail)
        return _judged(metadata, xml, etag, self._settings.policy)

    def _metadata(self, listed: _Listed, known: dict[str, Any] | None) -> Metadata:
        """Return the metadata, from the earlier state if the inventory says that it is the same.

        The inventory's ETag is what is kept of it, not the answer's: a mirror's may be another.
        """
        article_id, version, etag = listed
        if known and known["metadata"] and (known["version"], known["etag"]) == (version, etag):
            return Metadata.model_validate_json(known["metadata"])
        return read_metadata(self._bucket, article_id, version)


def _same_xml(known: dict[str, Any] | None, metadata: Metadata) -> bool:
    if not known or known["outcome"] != FETCHED:
        return False
    return Metadata.model_validate_json(known["metadata"]).xml_url == metadata.xml_url


def _judged(
    metadata: Metadata, xml: bytes | memoryview, etag: str, policy: PolicySettings, reused: bool = False
) -> Article | LeftOut:
    """Return the article, unless its XML shows what the metadata left open."""
    reason = why_left_out_by_xml(metadata, xml, policy)
    if reason:
        return LeftOut(metadata.pmcid, reason, metadata.version, etag, metadata.model_dump_json())
    key, md5 = metadata.xml_address()
    return Article(
        article_id=metadata.pmcid,
        xml=xml,
        path=key,
        version=metadata.version,
        pmcid=metadata.pmcid,
        pmid=metadata.pmid or "",
        doi=metadata.doi or "",
        title=metadata.title or "",
        licence=metadata.license_code or "",
        is_manuscript=metadata.is_manuscript,
        is_historical_ocr=metadata.is_historical_ocr,
        is_retracted=metadata.is_retracted,
        md5=md5,
        etag=etag,
        metadata=metadata.model_dump_json(),
        reused=reused,
    )


def _listed(part: pa.Table) -> Iterator[_Listed]:
    for batch in part.to_batches(_ROWS_AT_A_TIME):
        yield from zip(*(batch[name].to_pylist() for name in ("article_id", "version", "etag")), strict=True)


def _parts(articles: pa.Table, hashed: np.ndarray, count: int) -> Iterator[Part]:
    """Cut the articles into shards by their hashes; within a shard they keep their order."""
    numbers = _numbers(hashed, count)
    order = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers, minlength=count)
    start = 0
    for number, size in enumerate(sizes.tolist()):
        if size:
            table = articles.take(pa.array(order[start : start + size])).combine_chunks()
            earlier = [f"pmc/{count // 2:05d}/{number // 2:05d}"] if count > 1 else []
            yield Part(f"shard-{number:05d}", table, size, f"pmc/{count:05d}/{number:05d}", earlier)
        start += size


def _numbers(hashed: np.ndarray, count: int) -> np.ndarray:
    """Number the shards by the hashes' first bits, so that twice as many shards are halves of these."""
    bits = count.bit_length() - 1
    return (hashed >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(hashed), dtype=np.int64)


def _power_of_two(count: int) -> int:
    """Round up: the number of shards, and so every shard, stays the same until the articles have doubled."""
    return 1 << max(count - 1, 0).bit_length()
