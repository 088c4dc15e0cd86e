"""The articles a corpus was trained on, and those of them that an inventory shows in another state than they had then.

Millions of ids are compared as numbers in arrays; only an article that has to be looked at becomes an object.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.common import article_index, storage
from components.common.errors import InputError, StorageError
from components.common.manifest import Manifest, Shard
from components.common.pmc.inventory import Inventory
from components.common.progress import track
from components.common.transport import Transport

log = logging.getLogger(__name__)

_PMCID = r"^PMC[1-9][0-9]{0,11}$"
_TRAIN = "train"
_COMPARED = ["article_id", "version", "etag", "outcome"]
_FILES_AT_A_TIME = 4
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Trained:
    """What a corpus was trained on: the numbers of the PMCIDs, rising, and how many ids are none."""

    numbers: np.ndarray
    foreign: int


@dataclass(frozen=True, slots=True)
class Look:
    """A trained article that has to be looked at.

    Attributes:
        number: Of its PMCID.
        trained: The version it was trained on; 0 when nobody recorded it.
        listed: The version that the inventory lists; 0 when it lists none.
        known: Its metadata at the time of the download (JSON); empty when nobody recorded it.
        retracted: Whether it was known as retracted already then.
        same: The inventory shows no change.
    """

    number: int
    trained: int
    listed: int
    known: str = ""
    retracted: bool = False
    same: bool = False

    @property
    def needs_metadata(self) -> bool:
        """Whether only its metadata can tell what became of it."""
        return bool(self.listed) and not self.same


def trained_articles(corpus: Manifest, transport: Transport) -> Trained:
    """Read the ids of the training split, as they lie beside its token shards.

    Args:
        corpus: What the model was trained on.
        transport: Lends its threads.

    Raises:
        InputError: No id is a PMCID, or the ids are not what the manifest says.
        StorageError: The store cannot be read.
    """
    shards = [shard for shard in corpus.shards if shard.stats.get("split") == _TRAIN]
    parts = transport.map(_ids, shards, threads=_FILES_AT_A_TIME)
    numbers = [_numbers(ids) for ids in track(parts, len(shards), "Reading the article ids", "shards")]
    every = np.concatenate([np.empty(0, np.int64), *numbers])
    pmc = _distinct(every[every > 0])
    if not len(pmc):
        raise InputError(
            f"None of the {len(every)} articles of the corpus {corpus.fingerprint} has an id of PubMed Central, like "
            "PMC1234567, so there is nothing to look up; files that are named by their PMCIDs give such ids."
        )
    return Trained(pmc, int((every == 0).sum()))


def articles_to_look_at(
    trained: Trained, corpus: Manifest, inventory: Inventory, transport: Transport
) -> Iterator[Look]:
    """Yield each trained article whose state now is not known to be the one it had then.

    An article is as it was when the inventory lists the version and the ETag that the index beside its raw shard names.

    Args:
        trained: What :func:`trained_articles` returned.
        corpus: The same corpus; it names its raw shards.
        inventory: What PubMed Central lists now.
        transport: Lends its threads.

    Raises:
        InputError: An index is damaged.
        StorageError: The store cannot be read.
    """
    state = _State(trained.numbers, inventory, corpus.extra.get("retracted", []))
    missing = 0
    uris = [article_index.index_uri(uri) for uri in corpus.extra.get("raw_shards", [])]
    log.info(
        "Comparing %d articles with the inventory %s, by %d indexes", *(len(state.numbers), inventory.date, len(uris))
    )
    # No progress of its own: the reader of these articles shows one, and a terminal has room for one at a time.
    for index in transport.map(_read_index, uris, threads=_FILES_AT_A_TIME):
        if index is None:
            missing += 1
        else:
            yield from _of_index(index, state)
    rest = np.flatnonzero(~state.seen)
    if len(rest):
        log.info(
            "Of %d articles no state at the training is recorded (%d indexes are gone): each is looked up",
            *(len(rest), missing),
        )
    for start in range(0, len(rest), _ROWS_AT_A_TIME):
        places = rest[start : start + _ROWS_AT_A_TIME]
        columns = (column[places].tolist() for column in (state.numbers, state.listed, state.retracted))
        yield from (Look(number, 0, listed, retracted=bad) for number, listed, bad in zip(*columns, strict=True))


class _State:
    """What is known of each trained article, one row each, by rising number.

    Attributes:
        numbers: Of their PMCIDs.
        listed: The version that the inventory lists; 0 for none.
        retracted: Whether it was known as retracted when it was downloaded.
        seen: Whether an index has told of it.
    """

    def __init__(self, numbers: np.ndarray, inventory: Inventory, retracted: list[str]) -> None:
        articles = inventory.articles
        ids = pc.cast(pc.utf8_slice_codeunits(articles["article_id"], 3), pa.int64()).to_numpy()
        self.numbers = numbers
        # Both sides rise, so this one walk is quick; looking up each index's articles among all of them would not be.
        self._rows, known = _places(ids, numbers)
        self.listed = np.zeros(len(numbers), np.int64)
        self.listed[known] = articles["version"].to_numpy()[self._rows[known]]
        self.retracted = np.isin(numbers, _numbers(pa.array(retracted, pa.string())))
        self.seen = np.zeros(len(numbers), dtype=bool)
        self._etags = articles["etag"]

    def is_same(self, places: np.ndarray, versions: np.ndarray, etags: pa.ChunkedArray) -> np.ndarray:
        """Tell of the articles at these places whether this version of each is listed with this ETag."""
        same = (versions > 0) & (self.listed[places] == versions)
        candidates = np.flatnonzero(same)
        then, now = etags.take(pa.array(candidates)), self._etags.take(pa.array(self._rows[places[candidates]]))
        equal = pc.and_(pc.equal(then, now), pc.not_equal(then, ""))
        same[candidates] = np.asarray(equal.fill_null(False))
        return same


def _of_index(index: pq.ParquetFile, state: _State) -> Iterator[Look]:
    """Yield what is to be looked at of the articles of one raw shard, and mark them all as seen."""
    table = index.read(columns=_COMPARED)
    places, wanted = _places(state.numbers, _numbers(table["article_id"]))
    wanted &= np.asarray(pc.equal(table["outcome"], article_index.FETCHED))
    wanted[wanted] = ~state.seen[places[wanted]]
    rows = np.flatnonzero(wanted)
    places, table = places[rows], table.take(pa.array(rows))
    state.seen[places] = True
    versions = table["version"].to_numpy()
    same = state.is_same(places, versions, table["etag"])
    chosen = np.flatnonzero(~same | state.retracted[places])
    if not len(chosen):
        return
    metadata = index.read(columns=["metadata"])["metadata"].take(pa.array(rows[chosen])).to_pylist()
    versions, same, places = versions[chosen], same[chosen], places[chosen]
    columns = (state.numbers[places], versions, state.listed[places], state.retracted[places], same)
    rows_of_columns = zip(*(column.tolist() for column in columns), metadata, strict=True)
    for number, version, listed, bad, unchanged, known in rows_of_columns:
        yield Look(number, version, listed, known or "", retracted=bad, same=unchanged)


def _ids(shard: Shard) -> pa.Array:
    uri = shard.uri.removesuffix(".bin") + ".ids.json"
    try:
        ids = pa.array(json.loads(storage.read(uri)), pa.string())
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"{uri} is no list of article ids ({str(error).splitlines()[0][:200]}).") from error
    if len(ids) != shard.rows:
        raise InputError(f"{uri} names {len(ids)} articles, but its shard has {shard.rows}; rerun the tokenise step.")
    return ids


def _read_index(uri: str) -> pq.ParquetFile | None:
    """Open the index of a raw shard; None when it has been deleted, as raw shards may be to save room."""
    try:
        data = storage.read(uri)
    except StorageError:
        if storage.exists(uri):
            raise
        return None
    try:
        index = pq.ParquetFile(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise InputError(f"{uri} is no readable index ({str(error).splitlines()[0][:200]}); delete it.") from error
    absent = sorted(set(article_index.SCHEMA.names) - set(index.schema_arrow.names))
    if absent:
        raise InputError(f"The index {uri} has no column {absent[0]!r}; it is not one of this pipeline.")
    return index


def _numbers(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the numbers of PMCIDs, and 0 for what is none."""
    digits = pc.if_else(pc.match_substring_regex(ids, _PMCID), pc.utf8_slice_codeunits(ids, 3), "0")
    return np.asarray(pc.cast(digits.fill_null("0"), pa.int64()))


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Return each number once, rising; numpy's own way hashes them first, which takes ten times as long."""
    ordered = np.sort(numbers)
    return ordered[np.diff(ordered, prepend=0) > 0]


def _places(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where in rising numbers each wanted one stands, and whether it is there at all."""
    places = np.searchsorted(ordered, wanted)
    places[places == len(ordered)] = 0
    return places, ordered[places] == wanted if len(ordered) else np.zeros(len(wanted), dtype=bool)
