"""The bucket itself: NLM's, a mirror in S3, or a mirror in a folder."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from components.common import storage
from components.common.errors import InputError, StorageError
from components.common.pmc.settings import PmcSettings, TransportSettings
from components.common.settings import get_settings
from components.common.transport import FetchError, Transport, classified, first_words

_R = TypeVar("_R")

# NLM's bucket lies in us-east-1; a mirror of another region says so by its endpoint.
_AWS_REGION = "us-east-1"
_AWS_ENDPOINT = f"https://s3.{_AWS_REGION}.amazonaws.com"


class Bucket:
    """Reads objects of PubMed Central's bucket by their keys."""

    def __init__(self, settings: PmcSettings, transport: TransportSettings) -> None:
        """Open the bucket; nothing is read yet.

        Raises:
            InputError: ``pmc.bucket`` is no S3 address and no folder.
        """
        self.place = settings.bucket
        self._store, self._prefix = _open(settings, transport)
        self.transport = Transport(self._store, transport)

    def read(self, key: str, use: Callable[[memoryview], _R], most_bytes: int = 0) -> _R:
        """Read an object; see :meth:`Transport.get`."""
        return self.transport.get(self._prefix + key, use, most_bytes)

    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix that have something below them, sorted.

        Raises:
            StorageError: The bucket cannot be listed; says what to check.
        """
        try:
            found = self.transport.attempt(lambda: self._list(prefix))
        except FetchError as error:
            if error.reason == "missing":
                return []
            raise StorageError(self._explain(error.detail)) from error
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def _list(self, prefix: str) -> Sequence[str]:
        try:
            return obstore.list_with_delimiter(self._store, prefix=self._prefix + prefix)["common_prefixes"]
        except (BaseError, OSError) as error:
            raise classified(f"the list of {prefix}", error) from error

    def _explain(self, detail: str) -> str:
        endpoint = get_settings().pmc_endpoint
        where = f"{self.place} at {endpoint}" if endpoint else self.place
        detail = first_words(detail).rstrip(".")
        return (
            f"Cannot read the articles' bucket {where} ({detail}); check the network and the address "
            "(download.pmc.bucket, PMC_OA_ENDPOINT_URL), and for a private mirror its credentials "
            "(download.pmc.anonymous=false)."
        )


def _open(settings: PmcSettings, transport: TransportSettings) -> tuple[ObjectStore, str]:
    uri = storage.to_uri(settings.bucket)
    if uri.startswith(storage.FILE_SCHEME):
        folder = storage.local_path(uri)
        if not folder.is_dir():
            raise InputError(f"There is no folder {settings.bucket}; check download.pmc.bucket.")
        return LocalStore(prefix=str(folder)), ""
    bucket, _, prefix = uri.removeprefix(storage.S3_SCHEME).partition("/")
    return _s3(bucket, settings, transport), f"{prefix}/" if prefix else ""


def _s3(bucket: str, settings: PmcSettings, transport: TransportSettings) -> S3Store:
    endpoint = get_settings().pmc_endpoint
    credentials = {"skip_signature": True} if settings.anonymous else storage.s3_credentials(bucket)
    return S3Store(
        bucket,
        endpoint=endpoint or _AWS_ENDPOINT,
        region=get_settings().s3_region if endpoint else _AWS_REGION,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=transport.connect_timeout_seconds),
            "read_timeout": timedelta(seconds=transport.read_timeout_seconds),
            # The whole request: what trickles in slower than this is not worth waiting for.
            "timeout": timedelta(seconds=10 * transport.read_timeout_seconds),
            "pool_max_idle_per_host": str(transport.concurrency),
        },
        # Every answer must be seen here, or nobody could slow down.
        retry_config={"max_retries": 0},
        **credentials,
    )
