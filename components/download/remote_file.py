"""A file that is fetched as a stream, and checked against what its source says of it while it passes."""

import hashlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from components.common.errors import InputError
from components.common.fingerprint import sha256_bytes


@dataclass(frozen=True)
class RemoteFile:
    """A file of a folder, a bucket or the Hugging Face hub.

    Attributes:
        name: Within its folder or repository.
        place: Its full address, for messages.
        read: Opens it and yields its bytes from the start.
        size: In bytes; None where the source does not say.
        sha256: As the source gives it (the hub's LFS files), else empty.
        git_blob: The git object id as the source gives it (the hub's small files), else empty.
        etag: The store's own mark of the content, else empty.
    """

    name: str
    place: str
    read: Callable[[], Generator[bytes, None, None]]
    size: int | None = None
    sha256: str = ""
    git_blob: str = ""
    etag: str = ""

    @property
    def mark(self) -> str:
        """What tells this content from another without reading it."""
        return self.sha256 or self.git_blob or (f"{self.size} {self.etag}" if self.etag else self.place)


def checked(file: RemoteFile) -> Generator[bytes, None, None]:
    """Yield the file's bytes.

    The error comes after the last byte, so a store that takes the stream whole or not at all never keeps a wrong file.

    Raises:
        InputError: It has another size or another hash than its source says.
    """
    size, sha256 = 0, hashlib.sha256()
    git_blob = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    # Closed here and now: a connection that is left to the garbage collector is closed at any time, in any thread.
    with closing(file.read()) as chunks:
        for chunk in chunks:
            size += len(chunk)
            sha256.update(chunk)
            git_blob.update(chunk)
            yield chunk
    if file.size is not None and size != file.size:
        raise InputError(f"{file.place} has {file.size:,} bytes and {size:,} came; fetch it again.")
    if file.sha256 and sha256.hexdigest() != file.sha256:
        raise InputError(_differs(file, "SHA-256", sha256.hexdigest(), file.sha256))
    if file.git_blob and file.size is not None and git_blob.hexdigest() != file.git_blob:
        raise InputError(_differs(file, "git object id", git_blob.hexdigest(), file.git_blob))


def fetch(file: RemoteFile) -> tuple[bytes, str]:
    """Return the content of a file that fits into memory, checked, and its SHA-256.

    Raises:
        InputError: As :func:`checked`.
    """
    with closing(checked(file)) as chunks:
        content = b"".join(chunks)
    return content, sha256_bytes(content)


def _differs(file: RemoteFile, kind: str, seen: str, expected: str) -> str:
    return f"{file.place} came with the {kind} {seen} where its source says {expected}; fetch it again."
