"""Sources of articles behind one small interface: plan the shards, then fetch one of them.

A source is added by a module with a class that has the two methods of :class:`Source`, and a line in ``open_source``.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from components.common.errors import InputError
from components.common.manifest import Rejected
from components.download.previous import PreviousShard
from components.download.settings import DownloadSettings


@dataclass(frozen=True, slots=True)
class Article:
    """An article as a raw shard keeps it; what a source does not know stays empty.

    ``version`` is PubMed Central's, ``metadata`` what it says of the article (JSON) and ``etag`` the mark of that
    state, ``md5`` the checksum of the XML, ``reused`` whether it came from an earlier state of the shard.
    """

    article_id: str
    xml: bytes | memoryview
    path: str = ""
    version: int = 0
    pmcid: str = ""
    pmid: str = ""
    doi: str = ""
    title: str = ""
    licence: str = ""
    is_manuscript: bool = False
    is_historical_ocr: bool = False
    is_retracted: bool = False
    md5: str = ""
    etag: str = ""
    metadata: str = ""
    reused: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An article that the policy or the source's own rule leaves out, and why."""

    id: str
    reason: str
    version: int = 0
    etag: str = ""
    metadata: str = ""


Outcome = Article | LeftOut | Rejected
"""What became of a listed article: fetched, left out on purpose, or failed."""


@dataclass(frozen=True)
class Part:
    """What one shard is made of.

    Attributes:
        name: Such as ``shard-00012``.
        table: What :meth:`Source.fetch` gets back; its content names the shard, so an equal one is never fetched twice.
        articles: How many are listed; 0 where only reading tells.
        place: Names the part whatever it holds at a time, where an earlier state of it can be built upon; else empty.
        earlier: Other places whose state may hold some of these articles.
    """

    name: str
    table: pa.Table
    articles: int
    place: str = ""
    earlier: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SourcePlan:
    """What a source offers, divided into shards.

    Attributes:
        parts: One per shard.
        articles: How many articles are listed; 0 where only reading tells.
        inputs: What was listed, by name, with its hash or date.
        totals: Numbers for the manifest.
        extra: What else the manifest should say.
        least_bytes: What the shards take at the very least.
    """

    parts: Iterable[Part]
    articles: int
    inputs: dict[str, str]
    totals: dict[str, int | float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    least_bytes: int = 0


class Source(Protocol):
    """Plans the work and does a part of it."""

    def plan(self) -> SourcePlan:
        """List what there is and divide it into shards."""
        ...

    def identity(self) -> str:
        """Name what decides, besides a part's table, what its shard holds; part of the shard's fingerprint."""
        ...

    def fetch(self, part: pa.Table, previous: PreviousShard | None) -> Iterator[Outcome]:
        """Yield what became of each article of a part, in an order that depends on the part alone.

        ``previous`` is an earlier state of the same shard, from which unchanged articles may be taken.
        """
        ...


def shard_count(articles: int, settings: DownloadSettings) -> int:
    """Return how many shards the recipe asks for."""
    return max(math.ceil(articles / settings.articles_per_shard), min(settings.min_shards, articles), 1)


def require_place(settings: DownloadSettings) -> None:
    """Refuse a source that needs a place and has none, before anything is started.

    Raises:
        InputError: ``download.articles`` is missing.
    """
    if settings.source == "files" and not settings.articles:
        raise InputError(
            "source=files needs download.articles: a folder, .tar.gz, .zip or s3:// prefix of JATS files; "
            "with make, ARTICLES=/path/to/articles."
        )


def source_version(settings: DownloadSettings) -> str:
    """Return the newest state that a remote source offers, such as the date of an inventory; empty for other sources.

    Raises:
        InputError: There is none.
        StorageError: The source cannot be read.
    """
    if settings.source == "pmc":
        from components.common.pmc.bucket import Bucket
        from components.common.pmc.inventory import inventory_dates

        return inventory_dates(Bucket(settings.pmc, settings.transport), settings.pmc.inventory)[0]
    if settings.source == "s2orc":
        from components.download.sources.s2orc import release_of

        return release_of(settings)
    return ""


def open_source(settings: DownloadSettings) -> Source:
    """Return the source that the settings name.

    Raises:
        InputError: The place it needs is not given or not there.
    """
    require_place(settings)
    if settings.source == "pmc":
        from components.download.sources.pmc import PmcSource

        return PmcSource(settings)
    if settings.source == "s2orc":
        from components.download.sources.s2orc import S2orcSource

        return S2orcSource(settings)
    from components.download.sources.files import FilesSource

    return FilesSource(settings)
