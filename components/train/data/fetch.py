"""One token shard: bringing it to this node, and checking it in full.

A shard in a store on this machine is read where it is. A copy of a remote one is written under another name, checked as
it comes, and renamed when it is whole and right.
"""

import errno
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event

import numpy as np
from obstore.exceptions import GenericError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential
from tenacity.nap import sleep_using_event

from components.common import storage
from components.common.errors import InputError, StorageError
from components.train.launching.job import TokenShard

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600  # a store that is down for longer ends the run
_CHUNK_BYTES = 16 << 20


class FetchStopped(Exception):
    """The run ends: nobody wants the shard any more."""


def local_file(shard: TokenShard, folder: Path) -> Path:
    """Where a shard's tokens are on this node, now or later; its index is beside them."""
    if _is_here(shard):
        return storage.local_path(shard.uri)
    # Not the shard's own name, which comes from outside and could lead out of the folder.
    return folder / f"{hashlib.sha256(f'{shard.uri} {shard.sha256}'.encode()).hexdigest()[:32]}.bin"


def fetch_index(shard: TokenShard, folder: Path, dtype: str, stop: Event) -> None:
    """Bring a shard's index to this node and check it; check that its tokens are there to be fetched.

    Raises:
        InputError: The shard is missing, or its index is not what the manifest says.
        StorageError: The store is down for longer than `PATIENCE_SECONDS`, or the disk is full.
        FetchStopped: `stop` was set.
    """
    data = _patiently(lambda: _read_index(shard), stop)
    if shard.index_sha256 and (found := hashlib.sha256(data).hexdigest()) != shard.index_sha256:
        raise InputError(
            f"The index of token shard {shard.name} is corrupt: {_index_uri(shard)} has SHA-256 {found}, its manifest "
            f"says {shard.index_sha256}. Delete it and run preprocessing again."
        )
    _check_offsets(shard, data)
    file = local_file(shard, folder)
    if not _is_here(shard):
        _write_whole(file.with_suffix(".idx"), [data], shard)
    elif file.stat().st_size != _bytes(shard, dtype):
        raise _wrong_size(shard, file.stat().st_size, dtype)


def fetch_tokens(shard: TokenShard, folder: Path, dtype: str, vocabulary_size: int, stop: Event) -> None:
    """Bring a shard's tokens to this node, unless they are here, and check every one of them.

    Args:
        shard: What the corpus's manifest says of it.
        folder: For copies of remote shards; one that is left there from an earlier attempt is checked again.
        dtype: Of the token ids.
        vocabulary_size: Every id must be below it.
        stop: Ends the work early.

    Raises:
        InputError: The shard is missing, is not what its manifest says, or holds an id outside the vocabulary.
        StorageError: The store is down for longer than `PATIENCE_SECONDS`, or the disk is full.
        FetchStopped: `stop` was set.
    """

    def check(chunks: Iterable[bytes]) -> Iterator[bytes]:
        return _checked(chunks, shard, dtype, vocabulary_size, stop)

    file = local_file(shard, folder)
    if _is_here(shard):
        _exhaust(check(_read_file(file)))
        return
    if file.exists():
        try:
            _exhaust(check(_read_file(file)))
        except InputError:
            log.warning(
                "The copy of token shard %s from an earlier attempt is not whole: fetching it again.", shard.name
            )
        else:
            return
    _patiently(lambda: _write_whole(file, check(_read_store(shard)), shard), stop)


def check_room(shards: Sequence[TokenShard], folder: Path, dtype: str) -> None:
    """Prove that the disk can hold the shards that are still to come.

    Raises:
        InputError: It cannot.
    """
    coming = {local_file(shard, folder): _bytes(shard, dtype) for shard in shards if not _is_here(shard)}
    missing = sum(size for file, size in coming.items() if not file.exists())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise InputError(
            f"The token shards take {missing / 1e9:,.2f} GB, but the disk of {folder} has {free / 1e9:,.2f} GB left: "
            "free some space, or set TMPDIR to a larger disk."
        )


def _read_index(shard: TokenShard) -> bytes:
    missing = [uri for uri in (shard.uri, _index_uri(shard)) if not storage.exists(uri)]
    if missing:
        raise _missing(shard, missing[0])
    return storage.read(_index_uri(shard))


def _read_file(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _read_store(shard: TokenShard) -> Iterator[bytes]:
    try:
        yield from storage.read_stream(shard.uri)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):  # obstore's NotFoundError is one, too
            raise _missing(shard, shard.uri) from error
        raise


def _checked(
    chunks: Iterable[bytes], shard: TokenShard, dtype: str, vocabulary_size: int, stop: Event
) -> Iterator[bytes]:
    """Pass the shard's bytes on; raise at their end unless they are what the manifest says."""
    digest, size, largest, rest = hashlib.sha256(), 0, -1, b""
    for chunk in chunks:
        if stop.is_set():
            raise FetchStopped
        digest.update(chunk)
        size += len(chunk)
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % np.dtype(dtype).itemsize
        largest = max(largest, int(np.frombuffer(data, dtype, whole // np.dtype(dtype).itemsize).max(initial=0)))
        rest = data[whole:]
        yield chunk
    if size != _bytes(shard, dtype):
        raise _wrong_size(shard, size, dtype)
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


def _check_offsets(shard: TokenShard, data: bytes) -> None:
    offsets = np.frombuffer(data, dtype="<i8", count=len(data) // 8)
    if len(data) != 8 * (shard.documents + 1):
        fault = f"it lists {len(offsets) - 1} documents, the manifest {shard.documents}"
    elif offsets[0] != 0 or offsets[-1] != shard.tokens:
        fault = f"it spans tokens {offsets[0]} to {offsets[-1]}, the shard has {shard.tokens}"
    elif (empty := np.flatnonzero(np.diff(offsets) <= 0)).size:
        fault = f"document {empty[0]} has no tokens"
    else:
        return
    raise InputError(f"The index of token shard {shard.name} does not fit ({_index_uri(shard)}): {fault}.")


def _write_whole(file: Path, chunks: Iterable[bytes], shard: TokenShard) -> None:
    partial = file.with_suffix(file.suffix + ".partial")
    try:
        with partial.open("wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno != errno.ENOSPC:
            raise StorageError(f"Cannot write token shard {shard.name} to {file.parent}: {error.strerror}.") from error
        raise StorageError(
            f"The disk of {file.parent} is full: token shard {shard.name} does not fit. Free some space, or set TMPDIR "
            "to a larger disk."
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _patiently(action: Callable[[], "bytes | None"], stop: Event) -> bytes:
    """Try again while the store answers with errors that may pass: longer than its own client does."""

    def tell(state: RetryCallState) -> None:
        log.warning("%s Trying again.", state.outcome.exception() if state.outcome else "")

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error.__cause__, GenericError)),
        wait=wait_random_exponential(multiplier=1, max=30),
        stop=lambda state: stop.is_set() or stop_after_delay(PATIENCE_SECONDS)(state),
        sleep=sleep_using_event(stop),
        before_sleep=tell,
        reraise=True,
    )
    return retrying(action) or b""


def _exhaust(chunks: Iterable[bytes]) -> None:
    for _ in chunks:
        pass


def _is_here(shard: TokenShard) -> bool:
    return shard.uri.startswith(storage.FILE_SCHEME)


def _bytes(shard: TokenShard, dtype: str) -> int:
    return shard.tokens * np.dtype(dtype).itemsize


def _index_uri(shard: TokenShard) -> str:
    return shard.uri.removesuffix(".bin") + ".idx"


def _missing(shard: TokenShard, uri: str) -> InputError:
    return InputError(f"Token shard {shard.name} is missing: {uri} does not exist. Run preprocessing again.")


def _wrong_size(shard: TokenShard, size: int, dtype: str) -> InputError:
    return InputError(
        f"Token shard {shard.name} is corrupt: {shard.uri} has {size:,} bytes, its manifest says "
        f"{_bytes(shard, dtype):,}. Delete it and run preprocessing again."
    )
