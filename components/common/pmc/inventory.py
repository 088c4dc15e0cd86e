"""The daily S3 Inventory of the bucket's metadata: which article versions there are, and the state of each.

Format: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html. Millions of rows are read as Arrow
columns, a file at a time; no row ever becomes a Python object.
"""

import logging
import re
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pydantic import BaseModel, Field, ValidationError

from components.common.errors import InputError, StorageError
from components.common.pmc.bucket import Bucket
from components.common.progress import track
from components.common.transport import FetchError, with_md5

log = logging.getLogger(__name__)

ROOT = "inventory-reports/pmc-oa-opendata/metadata/"
LATEST = "latest"
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}Z")
_METADATA_KEY = r"^metadata/PMC(?P<id>[1-9][0-9]{0,11})\.(?P<version>[1-9][0-9]{0,3})\.json$"
_NEEDED = ("Key", "ETag")
_FILES_AT_A_TIME = 4
# Sorting by id and version at once: the version fits below it.
_VERSIONS = 10_000


class InventoryFile(BaseModel):
    """A data file that an inventory names."""

    key: str
    size: int = 0
    md5: str = Field(alias="MD5checksum", pattern=r"^[0-9a-fA-F]{32}$")


class InventoryManifest(BaseModel):
    """An inventory's ``manifest.json``."""

    file_format: str = Field(alias="fileFormat")
    file_schema: str = Field(alias="fileSchema")
    files: list[InventoryFile]


@dataclass(frozen=True)
class Inventory:
    """The articles of an inventory, one row each: the highest version of each, by rising id.

    Attributes:
        date: The inventory's own name, such as ``2026-08-25T01-00Z``.
        articles: Columns ``article_id`` (``PMC123``), ``version`` (int32), ``etag`` (of the metadata).
        versions: How many article versions were listed, superseded ones included.
        unknown: How many keys are no article's metadata.
    """

    date: str
    articles: pa.Table
    versions: int
    unknown: int

    @property
    def superseded(self) -> int:
        """How many versions a higher one has replaced."""
        return self.versions - self.articles.num_rows


def newest_inventory(bucket: Bucket, wanted: str = LATEST) -> Inventory:
    """Read the newest complete inventory, or the one that is asked for.

    An inventory that is still being written (its manifest or a file is missing, or a file is not yet what the manifest
    says) gives way to the one before it.

    Raises:
        InputError: There is none, none is complete, or one has a format that is not S3 Inventory's CSV.
        StorageError: The bucket cannot be read.
    """
    dates = inventory_dates(bucket, wanted)
    problems = []
    for date in dates:
        try:
            return _read(bucket, date)
        except FetchError as error:
            if error.reason not in _INCOMPLETE:
                raise StorageError(f"Cannot read the inventory {date} of {bucket.place} ({error.detail}).") from error
            problems.append(f"{date}: {error.detail}")
            log.warning("The inventory %s is not complete (%s); trying the one before.", date, error.detail)
    raise InputError(f"No inventory of {bucket.place} is complete ({'; '.join(problems[:3])}); try again later.")


def inventory_dates(bucket: Bucket, wanted: str = LATEST) -> list[str]:
    """Return the dates of the inventories that may be read, the newest first.

    Raises:
        InputError: There is none, or not the one that is asked for.
        StorageError: The bucket cannot be listed.
    """
    dates = sorted((name for name in bucket.folders(ROOT) if _DATED.fullmatch(name)), reverse=True)
    if not dates:
        raise InputError(f"{bucket.place} has no inventory below {ROOT}; check download.pmc.bucket.")
    if wanted == LATEST:
        return dates
    if wanted not in dates:
        raise InputError(
            f"{bucket.place} has no inventory {wanted} (download.pmc.inventory); it has {dates[-1]} to {dates[0]}."
        )
    return [wanted]


# What a file looks like while it is still being written.
_INCOMPLETE = {"missing", "md5-mismatch"}


def _read(bucket: Bucket, date: str) -> Inventory:
    manifest = _manifest(bucket, date)
    columns = _columns(manifest, f"{bucket.place}/{ROOT}{date}")

    def parse(file: InventoryFile) -> tuple[pa.Table, int]:
        data = bucket.read(file.key, with_md5(file.md5.lower(), file.key))
        return _parse(data, columns, file.key)

    parsed = bucket.transport.map(parse, manifest.files, threads=_FILES_AT_A_TIME)
    parts = list(track(parsed, len(manifest.files), f"Reading the inventory {date}", "files"))
    rows = pa.concat_tables([_EMPTY, *(table for table, _ in parts)])
    return _highest(date, rows, sum(listed for _, listed in parts) - rows.num_rows)


def _manifest(bucket: Bucket, date: str) -> InventoryManifest:
    key = f"{ROOT}{date}/manifest.json"
    try:
        manifest = InventoryManifest.model_validate_json(bucket.read(key, bytes))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise InputError(f"{bucket.place}/{key} is no S3 Inventory manifest ({where}: {first['msg']}).") from error
    if not manifest.files:
        raise InputError(f"{bucket.place}/{key} names no file.")
    return manifest


def _columns(manifest: InventoryManifest, where: str) -> list[str]:
    columns = [name.strip() for name in manifest.file_schema.split(",")]
    if manifest.file_format != "CSV" or any(name not in columns for name in _NEEDED):
        raise InputError(
            f"The inventory {where} is {manifest.file_format} with {manifest.file_schema!r}; "
            f"CSV with {' and '.join(_NEEDED)} is what can be read here."
        )
    return columns


_EMPTY = pa.table(
    {
        "id": pa.array([], pa.int64()),
        "version": pa.array([], pa.int16()),
        "etag": pa.array([], pa.string()),
    }
)


def _parse(data: memoryview, columns: list[str], key: str) -> tuple[pa.Table, int]:
    """Turn a gzipped CSV into the columns of its article versions; returns also how many keys it lists."""
    tables, listed = [_EMPTY], 0
    options = {
        "read_options": pa.csv.ReadOptions(column_names=columns, block_size=1 << 24),
        "parse_options": pa.csv.ParseOptions(newlines_in_values=False),
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), include_columns=list(_NEEDED), strings_can_be_null=False
        ),
    }
    try:
        with pa.input_stream(data, compression="gzip") as stream:
            if not stream.read(1):  # S3 Inventory writes files without a row too
                return _EMPTY, 0
        with (
            pa.input_stream(data, compression="gzip") as stream,
            pa.csv.open_csv(stream, **options) as reader,
        ):
            for batch in reader:
                listed += batch.num_rows
                tables.append(_batch(batch))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InputError(f"The inventory file {key} cannot be read ({str(error).splitlines()[0]}).") from error
    return pa.concat_tables(tables), listed


def _batch(batch: pa.RecordBatch) -> pa.Table:
    parts = pc.extract_regex(_decoded(batch["Key"]), _METADATA_KEY)
    known = pc.is_valid(parts)
    columns = [pc.struct_field(parts, "id"), pc.struct_field(parts, "version"), pc.utf8_trim(batch["ETag"], '"')]
    return pa.table([column.filter(known) for column in columns], names=_EMPTY.column_names).cast(_EMPTY.schema)


def _decoded(keys: pa.Array) -> pa.Array:
    """Undo the URL encoding of keys; as a rule there is nothing to undo in them."""
    encoded = pc.match_substring(keys, "%")
    if not pc.any(encoded).as_py():
        return keys
    plain = pa.array([unquote(key) for key in keys.filter(encoded).to_pylist()], pa.string())
    return pc.replace_with_mask(keys, encoded, plain)


def _highest(date: str, rows: pa.Table, unknown: int) -> Inventory:
    """Keep each article's highest version; a key that is listed twice (S3 Inventory may) is one version."""
    numbers = rows["id"].to_numpy() * _VERSIONS
    numbers += rows["version"].to_numpy()
    # Rows are counted in 32 bits: at millions of them each column counts.
    order = np.argsort(numbers, kind="stable").astype(np.int32)
    numbers = numbers[order]
    versions = int(_last_of_each(numbers).sum())
    last = _last_of_each(numbers // _VERSIONS)
    order, numbers = order[last], numbers[last]
    articles = pa.table(
        {
            "article_id": _ids(numbers // _VERSIONS),
            "version": pa.array((numbers % _VERSIONS).astype(np.int32)),
            "etag": rows["etag"].take(pa.array(order)),
        }
    )
    return Inventory(date, articles, versions, unknown)


def _ids(numbers: np.ndarray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise("PMC", pc.cast(pa.array(numbers), pa.string()), "")


def _last_of_each(ordered: np.ndarray) -> np.ndarray:
    """Mark the last of each run of equal numbers."""
    return np.append(ordered[1:] != ordered[:-1], np.ones(min(len(ordered), 1), dtype=bool))
