"""All documents of the clean shards in one index, without their texts, and the order from the best to the worst."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.manifest import Shard
from components.preprocess.clean_shards import open_clean
from components.preprocess.deduplication.lsh import CompactSignatures
from components.preprocess.deduplication.signatures import from_arrow
from components.preprocess.deduplication.threads import for_each
from components.preprocess.settings import DeduplicateSettings

_RANKING = ["year", "article_type", "journal", "is_manuscript", "characters"]
_COLUMNS = ["article_id", "sha256", "words_digest", "signature", *_RANKING]

_PREPRINT_TYPE = r"^(preprint|working-paper)$"
_PREPRINT_SERVER = r"^(arxiv|biorxiv|medrxiv|chemrxiv|psyarxiv|research square|ssrn|authorea|preprints)\b"
_PUBLISHED, _ACCEPTED, _PREPRINT = 0, 1, 2
_THREADS = 8  # shards read at a time: they wait for the store more than they work


@dataclass(frozen=True)
class DocumentIndex:
    """What is known of every document, numbered shard after shard and row after row; 0.3 kB for each.

    Attributes:
        shards: The clean shards.
        starts: Number of each shard's first document, and at last how many there are.
        ids: The article ids.
        id_ranks: int32, the place of each id among the sorted ids; equal ids have equal ranks.
        texts: uint64, shape (documents, 2): equal for documents of the same words.
        signatures: For finding similar ones.
        order: Document numbers, the best document first; depends on nothing but the documents.
    """

    shards: list[Shard]
    starts: np.ndarray
    ids: pa.StringArray
    id_ranks: np.ndarray
    texts: np.ndarray
    signatures: CompactSignatures
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)


def read_index(shards: list[Shard], settings: DeduplicateSettings) -> DocumentIndex:
    """Read the index of clean shards; of a shard in a bucket nothing but these columns travels.

    The best first: published before an author's manuscript before a preprint, newer, longer, smaller id. The texts'
    hashes and the numbers decide only between documents of the same id.

    Args:
        shards: Clean shards, sorted by name.
        settings: Shape of the bands.

    Raises:
        InputError: A shard cannot be read, lacks a column, or has not the rows its manifest names.
        StorageError: The store refuses.
    """
    index = _Reading.of(shards, settings)
    for_each(index.read, range(len(shards)), _THREADS, "Reading signatures", "shards")
    ids = pa.concat_arrays(index.ids)
    id_ranks = _ranks(ids)
    # Of the last key, the number, lexsort takes care itself: it is stable.
    keys = (index.text_keys, id_ranks, -index.characters, -index.years, index.tiers)
    return DocumentIndex(shards, index.starts, ids, id_ranks, index.texts, index.signatures, np.lexsort(keys))


@dataclass
class _Reading:
    """The index while it is filled, by several threads, each in its own rows."""

    shards: list[Shard]
    starts: np.ndarray
    signatures: CompactSignatures
    texts: np.ndarray
    text_keys: np.ndarray
    years: np.ndarray
    characters: np.ndarray
    tiers: np.ndarray
    ids: list[pa.StringArray] = field(default_factory=list)

    @classmethod
    def of(cls, shards: list[Shard], settings: DeduplicateSettings) -> "_Reading":
        starts = np.cumsum([0, *(shard.rows for shard in shards)])
        count = int(starts[-1])
        return cls(
            shards=shards,
            starts=starts,
            signatures=CompactSignatures.empty(count, settings.bands, settings.rows_per_band),
            texts=np.empty((count, 2), dtype=np.uint64),
            text_keys=np.empty(count, dtype=np.uint64),
            years=np.empty(count, dtype=np.int32),
            characters=np.empty(count, dtype=np.int32),
            tiers=np.empty(count, dtype=np.int8),
            ids=[pa.array([], pa.string())] * len(shards),
        )

    def read(self, number: int) -> None:
        with open_clean(self.shards[number], _COLUMNS, at_once=True) as parquet:
            table = parquet.read(_COLUMNS)
        place = slice(self.starts[number], self.starts[number + 1])
        self.signatures.put(int(self.starts[number]), from_arrow(table["signature"]))
        self.text_keys[place] = _keys(table["sha256"])
        self.texts[place] = np.frombuffer(b"".join(table["words_digest"].to_pylist()), dtype="<u8").reshape(-1, 2)
        self.years[place] = pc.fill_null(table["year"], 0).to_numpy()
        self.characters[place] = pc.fill_null(table["characters"], 0).to_numpy()
        self.tiers[place] = _tiers(table)
        self.ids[number] = pa.concat_arrays([pa.array([], pa.string()), *table["article_id"].chunks])


def _tiers(table: pa.Table) -> np.ndarray:
    preprint = pc.or_(
        pc.match_substring_regex(pc.utf8_lower(pc.fill_null(table["article_type"], "")), _PREPRINT_TYPE),
        pc.match_substring_regex(pc.utf8_lower(pc.fill_null(table["journal"], "")), _PREPRINT_SERVER),
    ).to_numpy()
    accepted = pc.fill_null(table["is_manuscript"], False).to_numpy()
    return np.where(preprint, _PREPRINT, np.where(accepted, _ACCEPTED, _PUBLISHED))


def _keys(column: pa.ChunkedArray) -> np.ndarray:
    """Shorten the hashes of texts, 64 hexadecimal digits, to a number each."""
    return np.array([int(digits[:16], 16) for digits in column.to_pylist()], dtype=np.uint64)


def _ranks(ids: pa.StringArray) -> np.ndarray:
    order = pc.sort_indices(ids).to_numpy()
    ordered = ids.take(pa.array(order))
    ranks = np.zeros(len(ids), dtype=np.int32)
    if len(ids):
        differs = pc.not_equal(ordered[1:], ordered[:-1]).to_numpy(zero_copy_only=False)
        ranks[order[1:]] = np.cumsum(differs)
    return ranks
