"""A file of the store that is written as its content comes: no copy on a disk first, no wait for the upload after."""

import hashlib
import io
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from components.common import storage


class StoredFile(io.RawIOBase):
    """A new file at a URI, which appears there whole at the end of the ``with`` block, or not at all if that fails.

    Attributes:
        uri: Where it is stored.
        size: Bytes written so far.
    """

    def __init__(self, uri: str) -> None:
        """Name the file; nothing is stored yet."""
        self.uri = uri
        self.size = 0
        self._digest = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._hashing: Future[None] | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written, in hexadecimal digits."""
        self._wait()
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        self._writer = storage.open_writer(self.uri)
        return self

    def __exit__(
        self, failure: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A writer that is dropped unclosed leaves nothing at its address.
        if failure is None:
            storage.explained("write", self.uri, self._writer.close)
        del self._writer
        self._hasher.shutdown()
        super().close()

    def writable(self) -> bool:
        """Tell that this is a file to write to."""
        return True

    def tell(self) -> int:
        """Return the position: there is only the end."""
        return self.size

    def write(self, data: Any) -> int:
        """Append bytes.

        Raises:
            StorageError: The store refuses (full disk, no permission, no such bucket).
        """
        view = memoryview(bytes(data))
        self._wait()
        # Hashed while it is stored.
        self._hashing = self._hasher.submit(self._digest.update, view)
        storage.explained("write", self.uri, lambda: self._writer.write(view))
        self.size += view.nbytes
        return view.nbytes

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
