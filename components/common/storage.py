"""One object-store interface over ``file://`` and ``s3://``.

Everything is addressed by URI. A write is whole or not at all: S3 puts are atomic, on disk it is write-then-rename
(obstore does both). boto3 only supplies S3 credentials, so profiles, IRSA and SSO work as everywhere.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, S3Store

from components.common.errors import StorageError
from components.common.settings import get_settings

if TYPE_CHECKING:
    from obstore import WritableFile

FILE_SCHEME = "file://"
S3_SCHEME = "s3://"
_T = TypeVar("_T")
_CHUNK_BYTES = 1 << 20
_TAIL_BYTES = 1 << 16  # what pyarrow reads of a Parquet file's end at first


@dataclass(frozen=True)
class Entry:
    """A stored file: its URI, its size in bytes and the store's own mark of its content."""

    uri: str
    size: int
    etag: str = ""


def read(uri: str) -> bytes:
    """Return the bytes stored at ``uri``.

    Raises:
        StorageError: There is nothing at ``uri`` or it cannot be read.
    """
    return _attempt("read", uri, lambda store, key: bytes(obstore.get(store, key).bytes()))


def write(uri: str, data: bytes) -> None:
    """Store ``data`` at ``uri``, whole or not at all.

    Raises:
        StorageError: The store refuses (full disk, no permission, no such bucket).
    """
    _attempt("write", uri, lambda store, key: obstore.put(store, key, data))


def create(uri: str, data: bytes) -> bool:
    """Store ``data`` at ``uri`` if nothing is there yet; of several that try at once, one does.

    Returns:
        Whether it was stored.

    Raises:
        StorageError: The store refuses for another reason.
    """
    try:
        _attempt("write", uri, lambda store, key: obstore.put(store, key, data, mode="create"))
    except StorageError as error:
        if isinstance(error.__cause__, AlreadyExistsError):
            return False
        raise
    return True


def read_range(uri: str, start: int, length: int) -> bytearray:
    """Return some of the bytes stored at ``uri``: a copy that may be changed.

    Raises:
        StorageError: They are not there, or cannot be read.
    """
    return _attempt(
        "read", uri, lambda store, key: bytearray(obstore.get_range(store, key, start=start, length=length))
    )


def read_stream(uri: str) -> Generator[bytes, None, None]:
    """Yield the bytes stored at ``uri``, a chunk at a time.

    Raises:
        StorageError: There is nothing at ``uri``, or reading it breaks.
    """
    chunks = _attempt("read", uri, lambda store, key: iter(obstore.get(store, key).stream(min_chunk_size=_CHUNK_BYTES)))
    while (chunk := explained("read", uri, lambda: next(chunks, None))) is not None:
        yield bytes(chunk)


def open_writer(uri: str) -> "WritableFile":
    """Open a file of the store for writing; it appears when it is closed."""
    return _attempt("write", uri, lambda store, key: obstore.open_writer(store, key))


def open_reader(uri: str) -> "RangedReader":
    """Open a stored file for reading here and there; only the bytes that are asked for travel.

    Raises:
        StorageError: There is nothing at ``uri`` or it cannot be read.
    """
    return RangedReader(uri)


class RangedReader(io.RawIOBase):
    """A stored file as a seekable Python file, read by ranges.

    The end of the file is fetched with the first request: readers of Parquet and zip files look there first. One
    thread at a time may use it.

    Attributes:
        bytes_read: How many bytes of the file were fetched.
    """

    def __init__(self, uri: str) -> None:
        """Fetch the end of the file at ``uri``; raises StorageError as :func:`open_reader` does."""
        self._uri = uri
        self._place = 0
        self._size, self._tail = _attempt("read", uri, _end_of_file)
        self.bytes_read = len(self._tail)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from any place."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte that is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another place; nothing is fetched yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._uri} has no byte {base + offset}")
        self._place = base + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, all of them unless the file ends before.

        Raises:
            StorageError: The store refuses, or the file has changed its size.
        """
        left = max(self._size - self._place, 0)
        length = left if size is None or size < 0 else min(size, left)
        data = self._range(self._place, length) if length else b""
        self._place += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes; return how many there were."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _range(self, start: int, length: int) -> bytes:
        tail = self._size - len(self._tail)
        if start >= tail:
            return self._tail[start - tail : start - tail + length]
        data = _attempt("read", self._uri, lambda store, key: obstore.get_range(store, key, start=start, length=length))
        self.bytes_read += len(data)
        if len(data) != length:
            raise StorageError(f"{self._uri} has changed while it was read; rerun the step that writes it.")
        return bytes(data)


def exists(uri: str) -> bool:
    """Tell whether a file is stored at ``uri``."""
    try:
        _attempt("look up", uri, lambda store, key: obstore.head(store, key))
    except StorageError as error:
        if isinstance(error.__cause__, NotFoundError | FileNotFoundError):
            return False
        raise
    return True


def list_files(prefix_uri: str) -> list[Entry]:
    """Return the files below a folder or prefix, recursively, sorted by URI."""
    base = prefix_uri.rstrip("/")
    if prefix_uri.startswith(FILE_SCHEME) and not local_path(prefix_uri).is_dir():
        return []

    def collect() -> list[Entry]:
        store, prefix = _locate_prefix(prefix_uri)
        # A store that is rooted at the folder lists relative keys, a bucket lists keys from its root.
        skip = len(prefix) + 1 if prefix else 0
        pages = obstore.list(store, prefix=prefix or None)
        return [
            Entry(join(base, meta["path"][skip:]), meta["size"], (meta["e_tag"] or "").strip('"'))
            for page in pages
            for meta in page
        ]

    return sorted(explained("list", prefix_uri, collect), key=lambda entry: entry.uri)


def has_files(prefix_uri: str) -> bool:
    """Tell whether there is any file below a folder or prefix; of a large one only the beginning is listed."""
    if prefix_uri.startswith(FILE_SCHEME) and not local_path(prefix_uri).is_dir():
        return False

    def look() -> bool:
        store, prefix = _locate_prefix(prefix_uri)
        return any(page for page in obstore.list(store, prefix=prefix or None, chunk_size=1))

    return explained("list", prefix_uri, look)


def upload(path: Path, uri: str) -> None:
    """Store a local file at ``uri``, streamed, whole or not at all."""
    if uri.startswith(FILE_SCHEME):
        explained("write", uri, lambda: _copy(path, local_path(uri)))
    else:
        _attempt("write", uri, lambda store, key: obstore.put(store, key, path))


def download(uri: str, path: Path) -> None:
    """Fetch ``uri`` to a local file, streamed; the file appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")

    def stream(store: ObjectStore, key: str) -> None:
        with partial.open("wb") as file:
            for chunk in obstore.get(store, key).stream():
                file.write(chunk)

    _attempt("read", uri, stream)
    partial.replace(path)


def upload_folder(folder: Path, uri: str) -> None:
    """Store every file below ``folder`` under the prefix ``uri``."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            upload(path, join(uri, path.relative_to(folder).as_posix()))


def download_folder(uri: str, folder: Path) -> None:
    """Fetch every file below the prefix ``uri`` into ``folder``.

    Raises:
        StorageError: There is nothing below ``uri``.
    """
    entries = list_files(uri)
    if not entries:
        raise StorageError(f"There is nothing at {uri}; check the address, or rerun the step that writes it.")
    for entry in entries:
        download(entry.uri, folder / relative(entry.uri, uri))


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Give a file or a folder of the store as a local path, for libraries that need one.

    On ``file://`` it is the stored file itself (treat it as read-only); from ``s3://`` a temporary copy.
    """
    if uri.startswith(FILE_SCHEME):
        path = local_path(uri)
        if not path.exists():
            raise StorageError(f"There is nothing at {uri}; check the address, or rerun the step that writes it.")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="pmc-") as scratch:
        target = Path(scratch) / uri.rstrip("/").rpartition("/")[2]
        if exists(uri):
            download(uri, target)
        else:
            download_folder(uri, target)
        yield target


def delete(uri: str) -> None:
    """Delete the file at ``uri``; nothing there is fine.

    Raises:
        StorageError: The store refuses.
    """
    try:
        _attempt("delete", uri, lambda store, key: obstore.delete(store, key))
    except StorageError as error:
        if not isinstance(error.__cause__, NotFoundError | FileNotFoundError):
            raise


def delete_prefix(uri: str) -> None:
    """Delete every file below a folder or prefix; nothing there is fine."""
    if uri.startswith(FILE_SCHEME):
        shutil.rmtree(local_path(uri), ignore_errors=True)
        return
    for entry in list_files(uri):
        _attempt("delete", entry.uri, lambda store, key: obstore.delete(store, key))


def join(uri: str, *parts: str) -> str:
    """Append path segments to a URI."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def relative(uri: str, base: str) -> str:
    """Return the part of ``uri`` below ``base``."""
    return uri.removeprefix(base.rstrip("/")).lstrip("/")


def to_uri(place: str | Path) -> str:
    """Turn a path or a URI as a person writes it into a URI.

    Raises:
        StorageError: The scheme is neither ``file://`` nor ``s3://``.
    """
    text = str(place)
    if text.startswith(S3_SCHEME):
        return text.rstrip("/")
    if "://" in text and not text.startswith(FILE_SCHEME):
        raise StorageError(f"{text} is no place we can use; give a path, file:///path or s3://bucket/prefix.")
    return FILE_SCHEME + str(Path(text.removeprefix(FILE_SCHEME)).expanduser().resolve())


def local_path(uri: str) -> Path:
    """Return the path of a ``file://`` URI (taken as it is: nothing is percent-decoded)."""
    return Path(uri.removeprefix(FILE_SCHEME))


def check_writable(uri: str) -> None:
    """Prove that the store takes, gives back and deletes a file, before any work is done.

    Raises:
        StorageError: It does not, with the reason.
    """
    probe = join(uri, ".write-probe")
    write(probe, b"probe")
    if read(probe) != b"probe":
        raise StorageError(f"{uri} does not give back what is written to it; check what stands behind that address.")
    _attempt("delete", probe, lambda store, key: obstore.delete(store, key))


def check_room(uri: str, least_bytes: int) -> None:
    """Prove that a disk can hold what is coming; a bucket is taken to be large enough.

    Raises:
        StorageError: There is less room than that.
    """
    if not uri.startswith(FILE_SCHEME):
        return
    folder = next(each for each in [local_path(uri), *local_path(uri).parents] if each.exists())
    free = shutil.disk_usage(folder).free
    if free < least_bytes:
        raise StorageError(
            f"{uri} has {free / 1e9:,.1f} GB left, and what is to be stored there takes {least_bytes / 1e9:,.1f} GB at "
            "least; free some space, or set PMC_STORE_URI to another place."
        )


def explained(verb: str, uri: str, action: Callable[[], _T]) -> _T:
    """Do something with the store; its errors become one sentence that says what could not be done, and why.

    Raises:
        StorageError: The store refuses.
    """
    try:
        return action()
    except (BaseError, OSError) as error:
        raise StorageError(_explain(verb, uri, error)) from error
    except Exception as error:
        # botocore's credential errors reach us as they are: boto3 is called back from inside the client.
        if type(error).__module__.startswith("botocore"):
            raise StorageError(f"Cannot {verb} {uri}: {error}; give S3 credentials (AWS_PROFILE or keys).") from error
        raise


def _end_of_file(store: ObjectStore, key: str) -> tuple[int, bytes]:
    """Return a file's size and its last bytes, in one request."""
    found = obstore.get(store, key, options={"range": {"suffix": _TAIL_BYTES}})
    return found.meta["size"], bytes(found.bytes())


def _copy(path: Path, target: Path) -> None:
    """Copy within the machine, by the kernel; named as obstore names what it is still writing, so no list shows it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}#{os.getpid()}")
    try:
        shutil.copyfile(path, unfinished)
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _attempt(verb: str, uri: str, action: Callable[[ObjectStore, str], _T]) -> _T:
    def run() -> _T:
        store, key = _locate(uri)
        return action(store, key)

    return explained(verb, uri, run)


def _explain(verb: str, uri: str, error: Exception) -> str:
    text = str(error)
    if isinstance(error, NotFoundError | FileNotFoundError):
        hint = "there is nothing there; check the address, or rerun the step that writes it"
    elif "No space left" in text or "os error 28" in text:
        hint = "the disk is full; free some space, or set PMC_STORE_URI to another place"
    elif isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError) or "os error 13" in text:
        hint = "permission denied; check the credentials and the rights on that place"
    elif "os error 30" in text or "Read-only file system" in text:
        hint = "the file system is read-only; set PMC_STORE_URI to a writable place"
    elif any(each in text for each in ("Not a directory", "os error 20", "os error 17")):
        hint = "a part of that path is a file, not a folder; set PMC_STORE_URI to another place"
    else:
        hint = text.splitlines()[0][:300] if text else type(error).__name__
    return f"Cannot {verb} {uri}: {hint}."


def _locate(uri: str) -> tuple[ObjectStore, str]:
    if uri.startswith(FILE_SCHEME):
        path = local_path(uri)
        return _local_store(str(path.parent)), path.name
    bucket, key = _split_s3(uri)
    return _s3_store(bucket), key


def _locate_prefix(uri: str) -> tuple[ObjectStore, str]:
    if uri.startswith(FILE_SCHEME):
        return _local_store(str(local_path(uri))), ""
    bucket, key = _split_s3(uri)
    return _s3_store(bucket), key.rstrip("/")


def _split_s3(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    if not uri.startswith(S3_SCHEME) or not bucket:
        raise StorageError(f"{uri!r} is no address of a store; give file:///path or s3://bucket/prefix.")
    return bucket, key


def _local_store(folder: str) -> LocalStore:
    # Rooted at the folder itself, so that a space or a % in its path is never taken for an encoded key.
    return LocalStore(prefix=folder, mkdir=True)


@lru_cache(maxsize=16)
def _s3_store(bucket: str) -> S3Store:
    settings = get_settings()
    endpoint = settings.s3_endpoint
    return S3Store(
        bucket,
        region=settings.s3_region,
        client_options={"timeout": timedelta(seconds=60), "allow_http": endpoint.startswith("http://")},
        retry_config={"max_retries": 6, "retry_timeout": timedelta(seconds=120)},
        **s3_credentials(bucket),
        **({"endpoint": endpoint, "virtual_hosted_style_request": False} if endpoint else {}),
    )


def s3_credentials(bucket: str) -> dict[str, Any]:
    """Return the part of an obstore S3 configuration that signs requests, with boto3's credentials.

    Raises:
        StorageError: boto3 finds none.
    """
    from boto3.session import Session
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return {"credential_provider": Boto3CredentialProvider(Session(region_name=get_settings().s3_region))}
    except ValueError as error:
        raise StorageError(f"No S3 credentials for s3://{bucket}; set AWS_PROFILE or the AWS key variables.") from error
