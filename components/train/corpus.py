"""The token shards as one list of documents, memory-mapped."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.common import storage
from components.common.errors import InputError
from components.train.job import TokenShard

_CHUNK_BYTES = 16 * 1024 * 1024
_PARALLEL_SHARDS = 8


class Corpus:
    """Documents of several shards under one numbering: shard by shard, in the order given.

    Attributes:
        lengths: int64, tokens of each document.
    """

    def __init__(self, files: list[Path], dtype: str) -> None:
        """Map the shards' files, which `fetch_shards` has checked.

        Args:
            files: The `.bin` files; each has its `.idx` beside it.
            dtype: Of the token ids, `uint16` or `uint32`.
        """
        self._tokens = [np.memmap(file, dtype=_little_endian(dtype), mode="r") for file in files]
        offsets = [np.fromfile(file.with_suffix(".idx"), dtype="<i8") for file in files]
        self.lengths: NDArray[np.int64] = np.concatenate([np.diff(of_shard) for of_shard in offsets])
        self._starts: NDArray[np.int64] = np.concatenate([of_shard[:-1] for of_shard in offsets])
        self._last_document = np.cumsum([len(of_shard) - 1 for of_shard in offsets])

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    def gather(self, documents: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens at the given offsets of the given documents.

        Args:
            documents: Shape (n,).
            offsets: Shape (n, context), each within its document.

        Returns:
            Token ids, int64, shape (n, context).
        """
        places = self._starts[documents][:, None] + offsets
        shards = np.searchsorted(self._last_document, documents, side="right")
        tokens = np.empty(places.shape, dtype=np.int64)
        for shard in np.unique(shards):
            rows = shards == shard
            tokens[rows] = self._tokens[shard][places[rows]]
        return tokens


def fetch_shards(shards: list[TokenShard], dtype: str, vocabulary_size: int, folder: Path) -> list[Path]:
    """Bring the shards to this machine if they are elsewhere, and check every one of them in full.

    Args:
        shards: What the corpus manifest names.
        dtype: Of the token ids.
        vocabulary_size: Every id must be below it.
        folder: Where copies of remote shards go.

    Returns:
        The local `.bin` files, in the order of `shards`.

    Raises:
        InputError: A shard is missing, is not what the manifest says, or holds an id outside the vocabulary.
    """

    def fetch(shard: TokenShard) -> Path:
        file = _local_file(shard, folder)
        _check_tokens(shard, file, dtype, vocabulary_size)
        _check_offsets(shard, file, dtype)
        return file

    with ThreadPoolExecutor(_PARALLEL_SHARDS) as pool:  # hashing and downloading both release the interpreter lock
        return list(pool.map(fetch, shards))


def local_files(shards: list[TokenShard], folder: Path) -> list[Path]:
    """Where `fetch_shards` leaves the files: for the processes that let another one fetch."""
    return [_local_path(shard, folder) for shard in shards]


def _local_path(shard: TokenShard, folder: Path) -> Path:
    if shard.uri.startswith(storage.FILE_SCHEME):
        return storage.local_path(shard.uri)
    return folder / f"{shard.sha256[:16]}-{shard.name}.bin"


def _local_file(shard: TokenShard, folder: Path) -> Path:
    file = _local_path(shard, folder)
    for uri, path in ((shard.uri, file), (_index_uri(shard.uri), file.with_suffix(".idx"))):
        if path.exists():
            continue
        if not storage.exists(uri):
            raise InputError(f"Token shard {shard.name} is missing: {uri} does not exist. Run preprocessing again.")
        storage.download(uri, path)
    return file


def _index_uri(uri: str) -> str:
    return uri.removesuffix(".bin") + ".idx"


def _check_tokens(shard: TokenShard, file: Path, dtype: str, vocabulary_size: int) -> None:
    digest = hashlib.sha256()
    largest = -1
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            whole = len(chunk) - len(chunk) % np.dtype(dtype).itemsize
            ids = np.frombuffer(chunk[:whole], dtype=_little_endian(dtype))
            largest = max(largest, int(ids.max(initial=0)))
    if digest.hexdigest() != shard.sha256:
        raise InputError(
            f"Token shard {shard.name} is corrupt: {shard.uri} has SHA-256 {digest.hexdigest()}, its manifest says "
            f"{shard.sha256}. Delete it and run preprocessing again."
        )
    if largest >= vocabulary_size:
        raise InputError(
            f"Token shard {shard.name} holds token id {largest}, but the vocabulary ends at {vocabulary_size - 1}: "
            "it was tokenised for another model."
        )


def _check_offsets(shard: TokenShard, file: Path, dtype: str) -> None:
    offsets = np.fromfile(file.with_suffix(".idx"), dtype="<i8")
    tokens = file.stat().st_size // np.dtype(dtype).itemsize
    if len(offsets) != shard.documents + 1:
        fault = f"it lists {len(offsets) - 1} documents, the manifest {shard.documents}"
    elif offsets[0] != 0 or offsets[-1] != tokens:
        fault = f"it spans tokens {offsets[0]} to {offsets[-1]}, the shard has {tokens}"
    elif (empty := np.flatnonzero(np.diff(offsets) <= 0)).size:
        fault = f"document {empty[0]} has no tokens"
    else:
        return
    raise InputError(f"The index of token shard {shard.name} does not fit ({_index_uri(shard.uri)}): {fault}.")


def _little_endian(dtype: str) -> np.dtype:
    return np.dtype(dtype).newbyteorder("<")
