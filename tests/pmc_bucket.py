"""A local copy of the PMC Cloud Service's bucket, of any size: a file's path below the folder is its key.

The layout, the inventory and the metadata are those of NLM's bucket ``pmc-oa-opendata``, so that a reader which works
against this folder (or a server over it) works against the real one. What was planted is known, and can be compared.
"""

import csv
import gzip
import hashlib
import html
import io
import json
import random
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

BUCKET = "pmc-oa-opendata"
INVENTORIES = f"inventory-reports/{BUCKET}/metadata"
SCHEMA = "Bucket, Key, LastModifiedDate, ETag"
SAMPLE = Path(__file__).parents[1] / "components" / "download" / "sample" / "articles"

Corruption = Literal[
    "no manifest", "missing file", "file", "gzip", "size", "manifest", "format", "columns", "key", "empty"
]


@dataclass(frozen=True)
class PlantedArticle:
    """One version of an article, with what is to be wrong with it.

    Attributes:
        flags_as_strings: The metadata says "yes" and "no" in place of true and false.
        xml_missing: The inventory lists the article, its XML answers 404.
        metadata_missing: The inventory lists the article, its metadata answers 404.
        wrong_md5: The metadata gives a checksum that the XML doesn't have.
        raw_metadata: Bytes in place of the metadata JSON, such as malformed ones.
        metadata_changes: Fields of the metadata JSON to set; a value of ``...`` removes the field.
    """

    pmcid: int
    xml: bytes
    version: int = 1
    licence: str | None = "CC BY"
    open_access: bool = True
    manuscript: bool = False
    historical_ocr: bool = False
    retracted: bool = False
    doi: str | None = None
    pmid: int | None = None
    title: str = "An article"
    citation: str = ""
    flags_as_strings: bool = False
    xml_missing: bool = False
    metadata_missing: bool = False
    wrong_md5: bool = False
    raw_metadata: bytes | None = None
    metadata_changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``PMC<id>.<version>``, the stem of every key of this version."""
        return f"PMC{self.pmcid}.{self.version}"

    @property
    def metadata_key(self) -> str:
        return f"metadata/{self.name}.json"

    @property
    def xml_key(self) -> str:
        return f"{self.name}/{self.name}.xml"

    def text(self) -> bytes:
        return f"{self.title}\n{self.citation}\n".encode()

    def metadata(self) -> bytes:
        """Return the metadata JSON as the bucket holds it."""
        if self.raw_metadata is not None:
            return self.raw_metadata
        md5 = "0" * 32 if self.wrong_md5 else hashlib.md5(self.xml).hexdigest()
        address = f"s3://{BUCKET}/{self.name}/{self.name}"
        values = {
            "pmcid": f"PMC{self.pmcid}",
            "version": self.version,
            "pmid": self.pmid,
            "doi": self.doi,
            "title": self.title,
            "citation": self.citation,
            "mid": f"NIHMS{self.pmcid}" if self.manuscript else None,
            "is_pmc_openaccess": self._flag(self.open_access),
            "is_manuscript": self._flag(self.manuscript),
            "is_historical_ocr": self._flag(self.historical_ocr),
            "is_retracted": self._flag(self.retracted),
            "license_code": self.licence,
            "xml_url": f"{address}.xml?md5={md5}",
            "text_url": f"{address}.txt?md5={hashlib.md5(self.text()).hexdigest()}",
            "pdf_url": None,
            "media_urls": [],
        } | self.metadata_changes
        return json.dumps({name: value for name, value in values.items() if value is not ...}).encode()

    def _flag(self, value: bool) -> bool | str:
        return ("yes" if value else "no") if self.flags_as_strings else value


@dataclass(frozen=True)
class _Listed:
    """A metadata object as an inventory row tells of it."""

    etag: str
    modified: str


class PmcBucket:
    """The bucket in ``folder``, as NLM keeps it: articles come, change and go; inventories tell of a moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.articles: dict[tuple[int, int], PlantedArticle] = {}
        self._listed: dict[str, _Listed] = {}
        self._writes = 0

    def add(self, article: PlantedArticle) -> PlantedArticle:
        """Write an article, or a further version of one, into the bucket."""
        self._writes += 1
        minutes, seconds = divmod(self._writes, 60)
        modified = f"2026-08-{20 + minutes // 1440 % 5:02d}T{minutes // 60 % 24:02d}:{minutes % 60:02d}:{seconds:02d}"
        metadata = article.metadata()
        self.articles[article.pmcid, article.version] = article
        self._listed[article.metadata_key] = _Listed(hashlib.md5(metadata).hexdigest(), f"{modified}.000Z")
        stem = f"{article.name}/{article.name}"
        self._write(article.xml_key, None if article.xml_missing else article.xml)
        self._write(f"{stem}.txt", article.text())
        self._write(f"{stem}.json", metadata)
        self._write(article.metadata_key, None if article.metadata_missing else metadata)
        return article

    def update(self, pmcid: int, **changes: Any) -> PlantedArticle:
        """Change the current version of an article in place, as a late retraction or a corrected licence does."""
        return self.add(replace(self.current(pmcid), **changes))

    def revise(self, pmcid: int, **changes: Any) -> PlantedArticle:
        """Add a new version of an article; the one before stays in the bucket, superseded."""
        article = self.current(pmcid)
        return self.add(replace(article, **{"version": article.version + 1} | changes))

    def withdraw(self, pmcid: int) -> None:
        """Remove every version of an article from the bucket and from later inventories."""
        for key in [key for key in self.articles if key[0] == pmcid]:
            article = self.articles.pop(key)
            del self._listed[article.metadata_key]
            (self.folder / article.metadata_key).unlink(missing_ok=True)
            shutil.rmtree(self.folder / article.name)

    def current(self, pmcid: int) -> PlantedArticle:
        """Return the highest version of an article."""
        return self.articles[max(key for key in self.articles if key[0] == pmcid)]

    def listed(self) -> list[PlantedArticle]:
        """Return the current version of every article, by PMCID: what a plan should list."""
        highest = dict(sorted(self.articles))  # of several versions the last stays
        return [self.articles[key] for key in highest.items()]

    @property
    def superseded(self) -> int:
        """How many versions are not the current ones."""
        return len(self.articles) - len(self.listed())

    def left_out(
        self,
        licences: Iterable[str],
        retracted: bool = False,
        manuscripts: bool = True,
        historical_ocr: bool = False,
    ) -> Counter[str]:
        """Count the listed articles that a policy leaves out, each under the first reason that holds.

        The order is: not open access, retracted, manuscript, historical OCR, licence.
        """
        allowed = set(licences)
        reasons: Counter[str] = Counter()
        for article in self.listed():
            if not article.open_access:
                reasons["not open access"] += 1
            elif article.retracted and not retracted:
                reasons["retracted"] += 1
            elif article.manuscript and not manuscripts:
                reasons["manuscript"] += 1
            elif article.historical_ocr and not historical_ocr:
                reasons["historical OCR"] += 1
            elif article.licence not in allowed:
                reasons[f"licence {article.licence or 'none'}"] += 1
        return reasons

    def write_inventory(
        self,
        date: str = "2026-08-25T01-00Z",
        files: int = 3,
        corrupt: Corruption | None = None,
        schema: str = SCHEMA,
        slashes_encoded: bool = False,
        extra_keys: Sequence[str] = (),
    ) -> Path:
        """Write an S3 Inventory of ``metadata/`` as it is now; returns the path of its manifest.

        Args:
            date: The dated folder's name.
            files: Data files; rows go to them in turn, so that versions of an article lie in different files.
            corrupt: What is wrong with it: ``no manifest`` and ``missing file`` as while it is still being written;
                ``file``: flipped bytes, so that the checksum differs; ``gzip``: a torn gzip stream whose checksum is
                right; ``size``: the manifest gives another size; ``manifest``: no JSON; ``format``: another
                ``fileFormat``; ``columns``: rows with a column less; ``key``: a row whose key is no article's;
                ``empty``: no data files.
            schema: The manifest's ``fileSchema``, and the columns that are written.
            slashes_encoded: Encode ``/`` in keys too, as some S3 implementations do.
            extra_keys: Further keys to list, which are no metadata objects of articles.
        """
        columns = [column.strip() for column in schema.split(",")]
        if corrupt == "columns":
            columns = columns[:-1]
        rows = [*self._rows(columns, extra_keys, "" if slashes_encoded else "/")]
        if corrupt == "key":
            rows.insert(len(rows) // 2, [_column(each, "metadata/PMC12x.1.json", "", "") for each in columns])
        entries = [] if corrupt == "empty" else [self._data_file(date, i, rows[i::files]) for i in range(files)]
        if corrupt in ("file", "gzip"):
            self._damage(entries[-1], corrupt)
        if corrupt == "missing file":
            (self.folder / entries[-1]["key"]).unlink()
        if corrupt == "size":
            entries[-1]["size"] += 1
        manifest = {
            "sourceBucket": BUCKET,
            "destinationBucket": f"arn:aws:s3:::{BUCKET}",
            "version": "2016-11-30",
            "creationTimestamp": "1787619600000",
            "fileFormat": "ORC" if corrupt == "format" else "CSV",
            "fileSchema": schema,
            "files": entries,
        }
        content = b'{"sourceBucket": ' if corrupt == "manifest" else json.dumps(manifest, indent=2).encode()
        key = f"{INVENTORIES}/{date}/manifest.json"
        self._write(key, None if corrupt == "no manifest" else content)
        self._write(f"{INVENTORIES}/{date}/manifest.checksum", hashlib.md5(content).hexdigest().encode())
        links = "".join(f"s3://{BUCKET}/{entry['key']}\n" for entry in entries)
        self._write(f"{INVENTORIES}/hive/dt={date[:-1].replace('T', '-')}/symlink.txt", links.encode())
        return self.folder / key

    def _rows(self, columns: list[str], extra_keys: Sequence[str], safe: str) -> Iterator[list[str]]:
        for key, row in sorted(self._listed.items()):
            yield [_column(each, quote(key, safe=safe), row.etag, row.modified) for each in columns]
        for key in extra_keys:
            yield [_column(each, quote(key, safe=safe), "0" * 32, "2026-08-20T00:00:00.000Z") for each in columns]

    def _data_file(self, date: str, index: int, rows: list[list[str]]) -> dict[str, Any]:
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
        content = gzip.compress(text.getvalue().encode(), 6, mtime=0)
        key = f"{INVENTORIES}/data/{uuid.uuid5(uuid.NAMESPACE_URL, f'{date}/{index}')}.csv.gz"
        self._write(key, content)
        return {"key": key, "size": len(content), "MD5checksum": hashlib.md5(content).hexdigest()}

    def _damage(self, entry: dict[str, Any], corrupt: str) -> None:
        content = bytearray((self.folder / entry["key"]).read_bytes())
        if corrupt == "file":
            content[len(content) // 2] ^= 0xFF
        else:
            content = content[: len(content) // 2]
            entry |= {"size": len(content), "MD5checksum": hashlib.md5(content).hexdigest()}
        self._write(entry["key"], bytes(content))

    def _write(self, key: str, content: bytes | None) -> None:
        path = self.folder / key
        if content is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _column(name: str, key: str, etag: str, modified: str) -> str:
    known = {"Bucket": BUCKET, "Key": key, "ETag": etag, "LastModifiedDate": modified, "Size": "900"}
    return known.get(name, "")


LICENCES = {
    "CC BY": 0.60, "CC BY-NC": 0.09, "CC BY-NC-ND": 0.12, "CC BY-NC-SA": 0.03, "CC0": 0.02, "CC BY-SA": 0.01,
    "CC BY-ND": 0.01, "TDM": 0.07, None: 0.05,
}  # fmt: skip
"""Shares of the licence codes, about as PubMed Central has them."""


def realistic_bucket(
    folder: Path,
    articles: int,
    seed: int = 0,
    sources: Sequence[bytes] | None = None,
    distinct: bool = True,
    first_pmcid: int = 7_000_001,
) -> PmcBucket:
    """Fill a bucket with JATS articles, repeated under new ids, with licences, versions and flags about as they occur.

    Args:
        folder: Where the bucket is laid out.
        articles: How many PMCIDs.
        seed: Same seed, same bucket.
        sources: JATS articles to repeat; None takes the bundled synthetic ones.
        distinct: Move words about in each copy's body, so that copies are no near-duplicates of one another.
        first_pmcid: Ids count up from here, with gaps.
    """
    bucket = PmcBucket(folder)
    chosen = sample_articles() if sources is None else list(sources)
    draw = random.Random(seed)
    pmcids = [first_pmcid + 3 * i + draw.randrange(3) for i in range(articles)]
    for index, xml in enumerate(chosen):
        template = JatsTemplate(xml)
        for copy, pmcid in enumerate(pmcids[index :: len(chosen)]):
            _plant(bucket, template, pmcid, copy if distinct else 0, random.Random(f"{seed}/{pmcid}"))
    return bucket


def sample_articles() -> list[bytes]:
    """Return the bundled synthetic articles that parse."""
    return [path.read_bytes() for path in sorted(SAMPLE.iterdir())]


def _plant(bucket: PmcBucket, template: "JatsTemplate", pmcid: int, copy: int, draw: random.Random) -> None:
    licence = draw.choices([*LICENCES], [*LICENCES.values()])[0]
    doi, pmid = f"10.5555/synthetic.{pmcid}", 40_000_000 + pmcid
    year, month, day = draw.randint(1998, 2026), draw.choice(("Jan", "Apr", "Jun", "Oct")), draw.randint(1, 28)
    article = PlantedArticle(
        pmcid=pmcid,
        xml=template.render(pmcid, pmid, doi, copy),
        licence=licence,
        open_access=licence != "TDM" and (licence is not None or draw.random() < 0.5),
        manuscript=licence == "TDM" or draw.random() < 0.02,
        historical_ocr=licence is None and draw.random() < 0.3,
        retracted=draw.random() < 0.01,
        doi=doi if draw.random() < 0.9 else None,
        pmid=pmid if draw.random() < 0.9 else None,
        title=template.title,
        citation=f"J Synth Med. {year} {month} {day}; {year - 1980}({draw.randint(1, 12)}):{draw.randint(1, 999)}",
        flags_as_strings=draw.random() < 0.1,
    )
    bucket.add(article)
    for _ in range(draw.choices((0, 1, 2), (0.95, 0.04, 0.01))[0]):
        # A later version may turn out ineligible: then the article is out, whatever its first version was.
        bucket.revise(pmcid, licence=licence if draw.random() < 0.8 else "TDM", xml=article.xml + b"<!-- revised -->")


_ARTICLE_ID = re.compile(rb'<article-id\b[^>]*\bpub-id-type="(?:pmc|pmcid|pmid|doi)"[^>]*>.*?</article-id>', re.DOTALL)
_WORD = re.compile(rb"(?<=[ \n])([a-z]{3,})(?=[ ])")
_TITLE = re.compile(rb"<article-title\b[^>]*>(.*?)</article-title>", re.DOTALL)


class JatsTemplate:
    """A JATS article that can be had under other ids and with other text, any number of times, quickly."""

    def __init__(self, xml: bytes) -> None:
        start = re.search(rb"<article-meta\b[^>]*>", xml)
        end = xml.find(b"</article-meta>")
        body = xml.find(b"<body")
        found = _TITLE.search(xml)
        self.title = _plain(found.group(1)) if found else "An article"
        if start is None or end < 0:  # not an article: it is repeated as it is
            self._head, self._meta, self._pieces = xml, None, []
            return
        self._head = xml[: start.end()]
        self._meta = _ARTICLE_ID.sub(b"", xml[start.end() : end])
        self._between = xml[end:body] if body >= 0 else xml[end:]
        self._pieces = _WORD.split(xml[body:]) if body >= 0 else []

    def render(self, pmcid: int, pmid: int, doi: str, copy: int = 0) -> bytes:
        """Return the article under these ids; every ``copy`` but 0 has every other longer word of the body moved."""
        if self._meta is None:
            return self._head
        ids = (
            f'<article-id pub-id-type="pmc">{pmcid}</article-id><article-id pub-id-type="pmid">{pmid}</article-id>'
            f'<article-id pub-id-type="doi">{html.escape(doi)}</article-id>'
        )
        pieces = self._pieces
        if copy and pieces:
            pieces, moved = pieces.copy(), pieces[1::4]
            cut = (copy * 37 + 11) % max(len(moved), 1)
            pieces[1::4] = moved[cut:] + moved[:cut]
        return b"".join([self._head, ids.encode(), self._meta, self._between, *pieces])


def _plain(markup: bytes) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup.decode("utf-8", "replace"))).split())


def upload(
    folder: Path, endpoint: str, bucket: str, key: str, secret: str, prefix: str = "", concurrency: int = 16
) -> int:
    """Put every file of a bucket's folder into a bucket of an S3 server; returns how many."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(max_pool_connections=concurrency, s3={"addressing_style": "path"}),
    )
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]

    def put(path: Path) -> None:
        client.put_object(Bucket=bucket, Key=prefix + path.relative_to(folder).as_posix(), Body=path.read_bytes())

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(put, paths))
    return len(paths)
