"""The header of a safetensors file, read from a stream: what length the whole file must have.

The format: 8 bytes little-endian with the header's length, the header as JSON (tensor name to dtype, shape and
``data_offsets`` behind the header), then the data. https://github.com/huggingface/safetensors#format
"""

import json
import struct
from collections.abc import Generator
from contextlib import closing

from components.common.errors import InputError
from components.download.remote_file import RemoteFile

_LENGTH_BYTES = 8
# The limit of the safetensors library.
_MAX_HEADER_BYTES = 100_000_000


def with_checked_header(file: RemoteFile, content: Generator[bytes, None, None]) -> Generator[bytes]:
    """Yield the content; refuse a file whose length is not what its header says, if possible before the data comes.

    Raises:
        InputError: It is cut short, has more than its header says, or has no safetensors header.
    """
    head, expected, size = bytearray(), None, 0
    with closing(content) as chunks:
        for chunk in chunks:
            size += len(chunk)
            if expected is None:
                head += chunk
                expected = _expected_size(bytes(head), file)
                if expected is not None:
                    head.clear()
                    _compare(file, expected, file.size)
            yield chunk
    if expected is None:
        raise InputError(f"{file.place} is cut short: it ends after {size:,} bytes, within its header; fetch it again.")
    _compare(file, expected, size)


def _compare(file: RemoteFile, expected: int, size: int | None) -> None:
    if size is not None and size != expected:
        fault = "is cut short" if size < expected else "is too long"
        raise InputError(f"{file.place} {fault}: {size:,} bytes, and its header says {expected:,}; fetch it again.")


def _expected_size(head: bytes, file: RemoteFile) -> int | None:
    """Return the length that the file must have; None while the header is not whole."""
    if len(head) < _LENGTH_BYTES:
        return None
    (length,) = struct.unpack_from("<Q", head)
    if length > _MAX_HEADER_BYTES:
        raise InputError(f"{file.place} is no safetensors file: its header would have {length:,} bytes.")
    if len(head) < _LENGTH_BYTES + length:
        return None
    try:
        header = json.loads(head[_LENGTH_BYTES : _LENGTH_BYTES + length])
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{file.place} is no safetensors file: its header cannot be read.") from error
    return _LENGTH_BYTES + length + max(ends, default=0)
