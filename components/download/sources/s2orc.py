"""S2ORC, the paper's own source: Semantic Scholar's open texts as gzipped JSON lines, read from PDFs.

A bulk file is one shard. Of its records those with a PubMed Central id and text are kept, as JATS (see ``s2orc_jats``).
Licences are recorded where the record has one, but the licence policy is not applied: none is promised.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from components.common.errors import InputError
from components.common.manifest import Rejected
from components.download.previous import PreviousShard
from components.download.sampling import in_sample
from components.download.settings import DownloadSettings
from components.download.sources import Article, LeftOut, Outcome, Part, SourcePlan
from components.download.sources.s2orc_api import BulkFile, DatasetsApi
from components.download.sources.s2orc_jats import FORMAT_VERSION, BadAnnotations, to_jats, without_illegal_characters

SCHEMA = pa.schema([("release", pa.string()), ("file", pa.string())])

_READ_BYTES = 1 << 20
_UNZIP_BYTES = 1 << 16
# How each record of a release begins; it decides on most records before their long text is parsed.
_HEAD = re.compile(rb'\{\s*"corpusid"\s*:\s*(\d{1,18})\s*,\s*"externalids"\s*:\s*(\{[^{}]*\}|null)\s*,')
_PMC_ID = re.compile(r"(?:PMC)?0*([1-9]\d{0,11})", re.IGNORECASE | re.ASCII)
_CC_CODE = re.compile(r"CCBY(NC)?(SA|ND)?(?:\d+)?")


class S2orcSource:
    """Plans a release's files as shards and reads one of them."""

    def __init__(self, settings: DownloadSettings) -> None:
        """Bind the settings; the key and the address of the API come from the environment.

        Raises:
            InputError: There is no key, or ``max_articles`` is set.
        """
        if settings.max_articles is not None:
            raise InputError(
                f"download.max_articles={settings.max_articles} cannot be used with source=s2orc, whose ids are only "
                "known once it is read; set download.max_articles=null, and download.sample_fraction in its place."
            )
        self.settings = settings
        self.api = DatasetsApi(settings.transport)

    def plan(self) -> SourcePlan:
        """List the files of the release, a shard each.

        Raises:
            InputError: The key is refused, there is no such release, or the API does not answer.
        """
        release = self.api.release(self.settings.s2orc.release)
        names = list(self.api.files(release))
        return SourcePlan(
            parts=[_part(number, release, name) for number, name in enumerate(names)],
            articles=0,
            inputs={"s2orc": release},
            totals={"files": len(names)},
            extra={"release": release},
        )

    def identity(self) -> str:
        """Name the conversion and the choice of articles, which is only made while a file is read."""
        return f"{FORMAT_VERSION} {self.settings.sample_fraction} {self.settings.max_article_bytes}"

    def fetch(self, part: pa.Table, previous: PreviousShard | None) -> Iterator[Outcome]:  # noqa: ARG002
        """Yield what became of each record of a file, in the file's order.

        Raises:
            InputError: The file cannot be read to its end, is damaged, or is no longer in the release.
        """
        [row] = part.to_pylist()
        release, name, most = row["release"], row["file"], self.settings.max_article_bytes
        label = PurePosixPath(name).name
        with BulkFile(name, lambda: self.api.locate(release, name), self.settings.transport) as file:
            for number, line in _lines(file, most):
                where = f"{label}:{number}"
                if line is None:
                    yield Rejected(id=where, reason="too-large", detail=f"{where}: over {most:,} bytes")
                elif not line.isspace():
                    yield read_record(line, where, self.settings.sample_fraction)


def release_of(settings: DownloadSettings) -> str:
    """Return the id of the release that the settings name; ``latest`` becomes the one it stands for.

    Raises:
        InputError: The key is missing or refused, there is no such release, or the API does not answer.
    """
    return DatasetsApi(settings.transport).release(settings.s2orc.release)


def _part(number: int, release: str, name: str) -> Part:
    table = pa.Table.from_pylist([{"release": release, "file": name}], schema=SCHEMA)
    return Part(name=f"shard-{number:05d}", table=table, articles=0)


def read_record(line: bytes, where: str, sample_fraction: float) -> Outcome:
    """Turn a line of a bulk file into an article, or say why it is none.

    The head of a line decides whether the article is wanted, so the rest of one that is not is never looked at.

    Args:
        line: A record in JSON.
        where: The name of the file and the number of the line.
        sample_fraction: The share of the articles that is wanted.

    Returns:
        The article; or that it is left out (no-pmc-id, not-sampled, no-text, no-body) or rejected (not-json,
        bad-record, bad-pmc-id, bad-annotations).
    """
    head = _HEAD.match(line)
    if head:
        try:
            unwanted = _unwanted(head[1].decode(), json.loads(head[2]), sample_fraction)
        except ValueError:  # a brace within an id, or no JSON; parsing all of it will tell
            unwanted = None
        if unwanted:
            return unwanted
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        detail = f"{where}: {type(error).__name__}: {error}"[:200]
        return Rejected(id=f"corpusid:{head[1].decode()}" if head else where, reason="not-json", detail=detail)
    if not isinstance(record, dict):
        return Rejected(id=where, reason="bad-record", detail=f"{where}: it is no object")
    corpus_id, external = str(record.get("corpusid", where))[:40], record.get("externalids")
    return _unwanted(corpus_id, external, sample_fraction) or _article(record, where)


def _article(record: dict[str, Any], where: str) -> Outcome:
    """Make the article of a record that has a PubMed Central id and is in the sample."""
    ids = _external_ids(record["externalids"])
    pmcid = _pmcid(ids)
    content = record.get("content")
    content = {} if content is None else content
    text = content.get("text") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(text, str | None):
        return Rejected(id=pmcid, reason="bad-record", detail=f"{where}: content is not as documented")
    if not text or text.isspace():
        return LeftOut(pmcid, "no-text")
    annotations = content.get("annotations")
    annotations = {} if annotations is None else annotations
    pmid, doi, licence = _text(ids.get("pubmed")), _text(ids.get("doi")), _licence(content)
    try:
        if not isinstance(annotations, dict):
            raise BadAnnotations("they are no object")
        jats = to_jats(text, annotations, pmcid=pmcid, pmid=pmid, doi=doi, licence=licence)
    except BadAnnotations as error:
        return Rejected(id=pmcid, reason="bad-annotations", detail=f"{where}: {error}")
    if not jats.xml:
        return LeftOut(pmcid, "no-body")
    return Article(
        article_id=pmcid,
        xml=jats.xml,
        path=where,
        pmcid=pmcid,
        pmid=pmid,
        doi=doi,
        title=jats.title,
        licence=licence,
    )


def _unwanted(corpus_id: str, external: object, sample_fraction: float) -> LeftOut | Rejected | None:
    ids = _external_ids(external)
    if ids.get("pubmedcentral") in (None, ""):
        return LeftOut(f"corpusid:{corpus_id}", "no-pmc-id")
    pmcid = _pmcid(ids)
    if not pmcid:
        detail = f"pubmedcentral is {str(ids['pubmedcentral'])[:60]!a}"
        return Rejected(id=f"corpusid:{corpus_id}", reason="bad-pmc-id", detail=detail)
    return None if in_sample(pmcid, sample_fraction) else LeftOut(pmcid, "not-sampled")


def _external_ids(external: object) -> dict[str, Any]:
    """Return the ids that there are, by lower-case name: releases differ in ``pubmedcentral`` and ``PubMedCentral``."""
    found = external.items() if isinstance(external, dict) else ()
    return {name.lower(): value for name, value in found if value is not None}


def _pmcid(ids: dict[str, Any]) -> str:
    found = _PMC_ID.fullmatch(_text(ids.get("pubmedcentral")))
    return f"PMC{found[1]}" if found else ""


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return without_illegal_characters(value).strip() if isinstance(value, str) else ""


def _licence(content: dict[str, Any]) -> str:
    """Return the licence as PubMed Central writes it, such as ``CC BY-NC``; "" for none or any other."""
    source = content.get("source")
    access = source.get("oainfo") if isinstance(source, dict) else None
    given = access.get("license") if isinstance(access, dict) else None
    code = re.sub(r"[^A-Z0-9]", "", given.upper()) if isinstance(given, str) else ""
    if re.fullmatch(r"CC0(?:\d+)?", code):
        return "CC0"
    found = _CC_CODE.fullmatch(code)
    return "CC " + "-".join(filter(None, ("BY", found[1], found[2]))) if found else ""


def _lines(file: BulkFile, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines of a gzipped file with their numbers; None stands for one that is too long.

    Raises:
        InputError: The file is damaged.
    """
    number = 0
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(file, _READ_BYTES)) as unzipped:
            lines = io.BufferedReader(unzipped, _UNZIP_BYTES)
            while line := lines.readline(max_bytes + 1):
                number += 1
                too_long = len(line) > max_bytes
                while too_long and line and not line.endswith(b"\n"):
                    line = lines.readline(max_bytes)
                yield number, None if too_long else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{file.name} is truncated or damaged after {number:,} readable records ({error}); run again, and if "
            "that does not help choose another download.s2orc.release."
        ) from error
