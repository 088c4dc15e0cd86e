"""Fingerprints: short hashes that name an output by everything it was made from."""

import hashlib
import json
from pathlib import Path
from typing import Any

FINGERPRINT_LENGTH = 16
_CHUNK_BYTES = 1 << 20


def fingerprint(*parts: Any) -> str:
    """Hash JSON-able values into a short hexadecimal name.

    Equal values give equal fingerprints whatever the order of their keys; the order of ``parts`` matters.

    Args:
        *parts: Strings, numbers, booleans, None, lists and dicts of these.

    Returns:
        16 hexadecimal digits of a SHA-256.

    Raises:
        TypeError: A part has no JSON form.
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return sha256_bytes(canonical.encode())[:FINGERPRINT_LENGTH]


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
