"""JATS files as they lie about: in a folder, an archive (.tar.gz, .tgz, .tar, .zip) or an S3 prefix.

Archives are read as streams and never unpacked to disk, so a member cannot write anywhere; a member whose path
escapes the archive, or that is a link or a device, is rejected by name all the same.
"""

import hashlib
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_file
from components.common.manifest import Rejected

ARTICLE_SUFFIXES = (".xml", ".nxml")
ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Item:
    """An article file: its id, its path inside the place, its bytes, and what its content hashes to.

    ``rejected`` holds the reason why it will not be read at all (an unsafe path, too large).
    """

    id: str
    path: str
    size: int
    digest: str
    rejected: str = ""


class Reader(Protocol):
    """Lists article files and reads some of them."""

    def list_items(self) -> list[Item]:
        """Return every article file, in a stable order."""
        ...

    def read_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes | Rejected]]:
        """Yield each item, in the given order, with its bytes or with the reason why it has none."""
        ...


def open_reader(place: str, max_bytes: int) -> Reader:
    """Return the reader of a folder, an archive or an S3 prefix.

    Raises:
        InputError: There is nothing of that name.
    """
    uri = storage.to_uri(place)
    if uri.endswith(ARCHIVE_SUFFIXES):
        if not storage.exists(uri):
            raise InputError(f"There is no archive {place}; check download.articles.")
        return ZipReader(uri, max_bytes) if uri.endswith(".zip") else TarReader(uri, max_bytes)
    if uri.startswith(storage.FILE_SCHEME) and not storage.local_path(uri).is_dir():
        raise InputError(
            f"{place} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)}); check download.articles."
        )
    return FolderReader(uri, max_bytes)


class FolderReader:
    """Article files below a folder or an S3 prefix."""

    def __init__(self, uri: str, max_bytes: int) -> None:
        """Bind the folder and the limit of bytes per article."""
        self.uri, self.max_bytes = uri, max_bytes

    def list_items(self) -> list[Item]:
        """List the article files by path; a file's digest is its SHA-256 on disk, its ETag on S3."""
        entries = [e for e in storage.list_files(self.uri) if _is_article(e.uri)]
        names = [(storage.relative(e.uri, self.uri), e.size) for e in entries]
        digests = dict(zip((name for name, _ in names), self._digests(entries), strict=True))
        return _items(names, self.max_bytes, lambda name: digests[name])

    def read_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes | Rejected]]:
        """Read the files one by one."""
        for item in items:
            yield item, _refusal(item) or storage.read(storage.join(self.uri, item.path))

    def _digests(self, entries: list[storage.Entry]) -> list[str]:
        if self.uri.startswith(storage.FILE_SCHEME):
            return [sha256_file(storage.local_path(e.uri)) for e in entries]
        return [e.etag for e in entries]


class TarReader:
    """Article files in a tar archive, compressed or not, read as a stream from first to last."""

    def __init__(self, uri: str, max_bytes: int) -> None:
        """Bind the archive and the limit of bytes per article."""
        self.uri, self.max_bytes = uri, max_bytes

    def list_items(self) -> list[Item]:
        """List the members; reading to the end proves that the archive is whole."""
        digests: dict[str, str] = {}
        names: list[tuple[str, int]] = []
        with storage.local_copy(self.uri) as path, _named(self.uri, lambda: len(names)), tarfile.open(path) as archive:
            for member in archive:
                if not _is_article(member.name) or member.isdir():
                    continue
                names.append((member.name, member.size))
                file = archive.extractfile(member) if member.isfile() else None
                digests[member.name] = _stream_sha256(file) if file else ""
            _require_end_of_gzip(path)
        return _items(names, self.max_bytes, lambda name: digests[name], links={n for n, d in digests.items() if not d})

    def read_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes | Rejected]]:
        """Read members in one pass over the archive, which must come in the archive's order or be held back."""
        wanted = list(items)
        by_path = {item.path: item for item in wanted}
        found: dict[str, bytes] = {}
        position = 0
        with storage.local_copy(self.uri) as path, _named(self.uri, lambda: position), tarfile.open(path) as archive:
            for member in archive:
                if member.name in by_path and not by_path[member.name].rejected:
                    file = archive.extractfile(member)
                    found[member.name] = file.read() if file else b""
                while position < len(wanted) and (wanted[position].rejected or wanted[position].path in found):
                    item = wanted[position]
                    yield item, _refusal(item) or found.pop(item.path)
                    position += 1
                if position == len(wanted):
                    return
        raise InputError(f"{self.uri} has lost the member {wanted[position].path} since it was listed; run again.")


class ZipReader:
    """Article files in a zip archive."""

    def __init__(self, uri: str, max_bytes: int) -> None:
        """Bind the archive and the limit of bytes per article."""
        self.uri, self.max_bytes = uri, max_bytes

    def list_items(self) -> list[Item]:
        """List the members from the archive's directory, whose CRCs serve as digests."""
        with storage.local_copy(self.uri) as path, _named(self.uri, lambda: 0), zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if _is_article(info.filename) and not info.is_dir()]
        crcs = {info.filename: f"{info.CRC:08x}-{info.file_size}" for info in infos}
        return _items([(i.filename, i.file_size) for i in infos], self.max_bytes, lambda name: crcs[name])

    def read_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes | Rejected]]:
        """Read members; one whose checksum fails is rejected, the others are not lost with it."""
        with storage.local_copy(self.uri) as path, _named(self.uri, lambda: 0), zipfile.ZipFile(path) as archive:
            for item in items:
                try:
                    yield item, _refusal(item) or archive.read(item.path)
                except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
                    yield item, Rejected(id=item.id, reason="unreadable", detail=f"{item.path}: {error}")


def _is_article(name: str) -> bool:
    return name.lower().endswith(ARTICLE_SUFFIXES) and not PurePosixPath(name).name.startswith("._")


def _items(
    names: list[tuple[str, int]], max_bytes: int, digest: Callable[[str], str], links: set[str] | None = None
) -> list[Item]:
    """Turn (path, size) into items; the id is the file's stem, or the path where stems are not unique."""
    stems = Counter(PurePosixPath(name).stem for name, _ in names)
    items = []
    for name, size in names:
        stem = PurePosixPath(name).stem
        unique = stem if stems[stem] == 1 else name.rpartition(".")[0]
        items.append(Item(unique, name, size, digest(name), _why_rejected(name, size, max_bytes, links or set())))
    return items


def _why_rejected(name: str, size: int, max_bytes: int, links: set[str]) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
        return "unsafe-path"
    if name in links:
        return "not-a-file"
    return "too-large" if size > max_bytes else ""


def _refusal(item: Item) -> Rejected | None:
    if not item.rejected:
        return None
    return Rejected(id=item.id, reason=item.rejected, detail=f"{item.path} ({item.size:,} bytes)")


@contextmanager
def _named(uri: str, good: Callable[[], int]) -> Iterator[None]:
    """Turn the many errors of a damaged archive into one sentence that names it."""
    try:
        yield
    except _DAMAGED as error:
        raise InputError(
            f"The archive {Path(uri).name} is truncated or damaged after {good()} readable articles "
            f"({type(error).__name__}: {error}); fetch it again."
        ) from error


def _stream_sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _require_end_of_gzip(path: Path) -> None:
    """Tarfile stops at the end-of-archive blocks; a gzip stream that is cut after them is still damaged."""
    if path.name.endswith((".gz", ".tgz")):
        import gzip

        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
