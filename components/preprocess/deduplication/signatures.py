"""MinHash signatures of article texts, and the exact word shingles they estimate.

Shingling is what near-duplicate search costs, not MinHash, so it is done on whole arrays: a text becomes one array of
code points, words are hashed by a prefix polynomial modulo 2**64, and five neighbouring word hashes make a shingle.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import rensa
import xxhash

from components.preprocess.settings import SIGNATURE_PERMUTATIONS

SHINGLE_WORDS = 5
SIGNATURE_TYPE = pa.list_(pa.uint32(), SIGNATURE_PERMUTATIONS)
"""Arrow type of the `signature` column of a clean shard."""
DIGEST_BYTES = 16

_SEED = 42
WORD_CATEGORIES = frozenset({"Mn", "Mc", "Me", "Cs"})  # combining marks, and halves of characters beyond the table
_BATCH_SHINGLES = 4_000_000  # bounds the flat hash buffer at 32 MB
_TABLE_SIZE = 0x10000  # UTF-16 code units: a rarer character is two surrogates, each with a value of its own
_POWERS = 1 << 20  # 16 MB for both tables, whatever the length of a text
_BASE = 0x9E3779B97F4A7C15  # odd, hence invertible modulo 2**64
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_WORD_BASE = np.uint64(0xD1342543DE82EF95)


class Words(NamedTuple):
    """The words of a text, in their order: runs of letters, digits and combining marks."""

    hashes: np.ndarray  # uint64; equal words have equal hashes, whatever their case
    lengths: np.ndarray  # int64; in UTF-16 code units


def signatures(texts: Sequence[str]) -> np.ndarray:
    """Sketch texts by MinHash over their lowercased word 5-grams (R-MinHash of `rensa`).

    The share of equal columns of two rows estimates the Jaccard similarity of the two shingle sets, with a standard
    error of at most sqrt(J (1 - J) / 112).

    Args:
        texts: Article texts. An empty text gets a row of 0xFFFFFFFF.

    Returns:
        uint32 array of shape (len(texts), 112).
    """
    return sketches(texts)[0]


def sketches(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what the search for copies needs of texts: the result of `signatures`, and that of `words_digest`.

    Both in one go, because cutting a text into words is most of the work.

    Returns:
        uint32 array of shape (len(texts), 112) and uint8 array of shape (len(texts), 16).
    """
    return sketches_of(map(word_hashes, texts))


def sketches_of(texts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `sketches` does, for the results of `word_hashes`."""
    rows: list[np.ndarray] = []
    digests: list[bytes] = []
    batch: list[np.ndarray] = []
    size = 0
    for words in texts:
        digests.append(words_digest_of(words))
        batch.append(_shingle_hashes(words))
        size += len(words)
        if size >= _BATCH_SHINGLES:
            rows.append(_sketch(batch))
            batch, size = [], 0
    if batch:
        rows.append(_sketch(batch))
    matrix = np.concatenate(rows) if rows else np.empty((0, SIGNATURE_PERMUTATIONS), dtype=np.uint32)
    return matrix, np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def words_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts of the same words: case, punctuation and layout do not matter."""
    return words_digest_of(word_hashes(text))


def words_digest_of(words: np.ndarray) -> bytes:
    """Return what `words_digest` does, for the result of `word_hashes`."""
    return xxhash.xxh3_128_digest(words.astype("<u8", copy=False).data)


def shingles(text: str) -> np.ndarray:
    """Return the set of a text's word 5-grams as sorted, unique uint64 hashes.

    Words are runs of letters, digits and combining marks; case, punctuation and spacing do not matter. A text of fewer
    than five words has one shingle, made of all of them; a text without words has none.
    """
    return shingles_of(word_hashes(text))


def shingles_of(words: np.ndarray) -> np.ndarray:
    """Return what `shingles` does, for the result of `word_hashes`."""
    hashes = np.sort(_shingle_hashes(words))  # np.unique takes 15 times as long
    return hashes[np.diff(hashes, prepend=~hashes[:1]) != 0]


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return |A & B| / |A | B| of two results of `shingles`; two empty sets are not similar (0.0)."""
    if not len(first) or not len(second):
        return 0.0
    both = np.sort(np.concatenate([first, second]), kind="stable")  # merges two sorted runs
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(first) + len(second) - shared)


def word_hashes(text: str) -> np.ndarray:
    """Return the hashes of the words of a text: uint64, one per word, as `words_of` makes them."""
    return words_of(text).hashes


def words_of(text: str) -> Words:
    """Hash and measure each word of a text, in their order, all at once.

    Words are runs of letters, digits and combining marks; case does not matter. The hash is the sum of
    value[c_i] * BASE**i over a word's characters, whatever its place in the text, and then mixed.
    """
    codes = np.frombuffer(text.encode("utf-16-le", errors="surrogatepass"), dtype="<u2")
    values = _character_values().take(codes)
    parts, start = [], 0
    while len(values) - start > _POWERS:
        # Long texts are taken in pieces that end between two words; only a word of a million characters is cut.
        between = np.flatnonzero(values[start : start + _POWERS] == 0)
        end = start + (int(between[-1]) + 1 if len(between) else _POWERS)
        parts.append(_runs(values[start:end]))
        start = end
    last = _runs(values[start:])
    return Words(*map(np.concatenate, zip(*parts, last, strict=True))) if parts else last


def ngram_hashes(words: np.ndarray, width: int) -> np.ndarray:
    """Hash each run of `width` neighbouring words, in their order.

    Args:
        words: The result of `word_hashes`.
        width: Words in a run.

    Returns:
        uint64 array with one hash per run, of length len(words) - width + 1; empty for fewer words than that.
    """
    count = len(words) - width + 1
    if width < 1 or count < 1:
        return np.empty(0, dtype=np.uint64)
    hashes = words[:count].copy()
    for offset in range(1, width):
        hashes *= _WORD_BASE
        hashes += words[offset : offset + count]
    return _mix(hashes)


def to_arrow(rows: np.ndarray) -> pa.Array:
    """Turn the result of `signatures` into an Arrow column of `SIGNATURE_TYPE`."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), pa.uint32()), type=SIGNATURE_TYPE)


def from_arrow(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Read a `signature` column back, stored as a list of uint32 or as little-endian bytes, as `signatures` made it."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [_chunk_to_numpy(chunk) for chunk in chunks if len(chunk)]
    return np.concatenate(arrays) if arrays else np.empty((0, SIGNATURE_PERMUTATIONS), dtype=np.uint32)


def _chunk_to_numpy(chunk: Any) -> np.ndarray:
    if pa.types.is_binary(chunk.type) or pa.types.is_fixed_size_binary(chunk.type):
        flat = np.frombuffer(b"".join(chunk.to_pylist()), dtype="<u4")
    else:
        flat = chunk.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.uint32, copy=False).reshape(len(chunk), SIGNATURE_PERMUTATIONS)


def _sketch(batch: list[np.ndarray]) -> np.ndarray:
    offsets = np.zeros(len(batch) + 1, dtype=np.uint64)
    np.cumsum([len(hashes) for hashes in batch], out=offsets[1:])
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(batch), offsets, SIGNATURE_PERMUTATIONS, _SEED
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _shingle_hashes(words: np.ndarray) -> np.ndarray:
    return ngram_hashes(words, min(SHINGLE_WORDS, len(words)))


def _runs(values: np.ndarray) -> Words:
    """Hash and measure each run of values other than 0."""
    inside = np.zeros(len(values) + 2, dtype=np.bool_)
    np.not_equal(values, 0, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    powers, inverses = _powers()
    prefix = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * powers[: len(values)], out=prefix[1:])
    return Words(_mix((prefix[ends] - prefix[starts]) * inverses[starts]), ends - starts)


@lru_cache(maxsize=1)
def _character_values() -> np.ndarray:
    """One random-looking value per code point, the same for both cases of a letter; 0 for what separates words."""
    lowered = np.zeros(_TABLE_SIZE, dtype=np.uint64)
    for code in range(_TABLE_SIZE):
        character = chr(code)
        if character.isalnum() or unicodedata.category(character) in WORD_CATEGORIES:
            lowered[code] = ord(character.lower()[0])
    return np.where(lowered == 0, np.uint64(0), _mix(lowered))


@lru_cache(maxsize=1)
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse modulo 2**64, as many as the characters of the longest piece of a text."""
    powers = np.full(_POWERS, _BASE, dtype=np.uint64)
    inverses = np.full(_POWERS, _BASE_INVERSE, dtype=np.uint64)
    powers[0] = inverses[0] = 1
    return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverses, dtype=np.uint64)


def _mix(hashes: np.ndarray) -> np.ndarray:
    """Finaliser of SplitMix64 (Steele, Lea and Flood, 2014): spreads every input bit over the whole word."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
