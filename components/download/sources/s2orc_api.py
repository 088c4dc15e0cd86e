"""Semantic Scholar's Datasets API, and its bulk files as streams that go on where a connection broke.

The API gives a presigned address of each file: whoever has it may read the file for some hours. It is a secret, so only
the path before its query ever leaves this module, in names, errors and log lines.
"""

import io
import logging
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError
from urllib3.util import Retry, Timeout, make_headers

from components.common.errors import InputError
from components.common.logs import without_credentials
from components.common.pmc.settings import TransportSettings

API_URL = "https://api.semanticscholar.org/datasets/v1"
DATASET = "s2orc"

_BUSY = (429, 500, 502, 503, 504)
# S3 answers 403 to a presigned address that has expired, and 400 where the token behind it has.
_EXPIRED = (400, 401, 403)
_LONGEST_RETRY_AFTER_SECONDS = 120
_PROGRESS_BYTES = 1 << 20  # who got so far since the last fault may fail as often again
_QUERY = re.compile(r"\?\S*")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class DatasetsApi:
    """The part of the API that lists a data set: https://api.semanticscholar.org/api-docs/datasets."""

    def __init__(self, transport: TransportSettings) -> None:
        """Read the address and the key from the environment.

        Raises:
            InputError: There is no key, or the address is none.
        """
        self._key = os.environ.get("S2_API_KEY", "").strip()
        self._url = os.environ.get("S2_API_URL", "").strip().rstrip("/") or API_URL
        if not self._key:
            raise InputError(
                "source=s2orc needs a key of the Semantic Scholar API in the environment variable S2_API_KEY; "
                "ask for one at https://www.semanticscholar.org/product/api."
            )
        if not _is_address(self._url):
            shown = _public(without_credentials(self._url))
            raise InputError(f"S2_API_URL={shown!r} is no plain http(s) address; leave it unset or mend it.")
        self._transport = transport
        self._pool = _connections(self._url)

    def release(self, wanted: str) -> str:
        """Return the id of a release (a date); ``latest`` becomes the one it stands for.

        Raises:
            InputError: There is no such release, or the API does not answer as documented.
        """
        found = self._get(f"release/{quote(wanted, safe='')}", wanted).get("release_id")
        if not isinstance(found, str) or not re.fullmatch(r"[\w.-]{1,40}", found):
            raise InputError(f"{self._url}/release/{wanted} names no release_id; check S2_API_URL.")
        return found

    def files(self, release: str) -> dict[str, str]:
        """Return the presigned address of each file of a release by the file's name, in the order of the names.

        Raises:
            InputError: There is no such release, or the API does not answer as documented.
        """
        path = f"release/{release}/dataset/{DATASET}"
        found = self._get(path, release).get("files")
        if not isinstance(found, list) or not found or not all(isinstance(u, str) and _is_address(u) for u in found):
            raise InputError(f"{self._url}/{path} lists no files; check download.s2orc.release and S2_API_URL.")
        return dict(sorted((file_name(address), address) for address in found))

    def locate(self, release: str, name: str) -> str:
        """Return a fresh address of a file.

        Raises:
            InputError: The release has no such file (any more).
        """
        address = self.files(release).get(name)
        if address is None:
            raise InputError(f"The release {release} of S2ORC has lost the file {name} since it was listed; run again.")
        return address

    def _get(self, path: str, release: str) -> dict[str, Any]:
        url = f"{self._url}/{path}"
        try:
            response = self._pool.request(
                "GET",
                url,
                headers={"x-api-key": self._key},
                retries=_retries(self._transport),
                redirect=False,  # another host must not get the key
                timeout=_timeout(self._transport),
            )
        except HTTPError as error:
            raise InputError(f"{url} cannot be reached ({error}); check the network and S2_API_URL.") from error
        if response.status != 200:
            raise InputError(_api_refusal(url, response.status, release))
        try:
            answer = response.json()
        except (ValueError, RecursionError) as error:
            raise InputError(f"{url} does not answer in JSON; check S2_API_URL.") from error
        return answer if isinstance(answer, dict) else {}


class BulkFile(io.RawIOBase):
    """A file behind an expiring address, as a stream of its bytes.

    A broken, stalled or refused read goes on at the same byte, with a fresh address where the old one has expired.
    """

    def __init__(self, name: str, locate: Callable[[], str], transport: TransportSettings) -> None:
        """Bind the file; ``locate`` gives a fresh address of it each time it is called.

        Raises:
            InputError: From ``locate``.
        """
        logging.getLogger("urllib3.connectionpool").addFilter(_hide_queries)  # it logs whole addresses
        self.name = name
        self._locate = locate
        self._transport = transport
        self._address = locate()
        self._pool = _connections(self._address)
        self._position = 0
        self._size: int | None = None
        self._etag = ""
        self._response: urllib3.BaseHTTPResponse | None = None
        self._renewed = False
        self._hope()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end of the file.

        Raises:
            InputError: The file is gone, refused or changed, or the attempts are used up.
        """
        while True:
            try:
                self._response = self._response or self._open()
                data = self._response.read(len(buffer), decode_content=False)
            except HTTPError as error:
                self._despair(error=error)
                continue
            if not data and self._size is not None and self._position < self._size:
                self._despair(error=HTTPError("the connection ended early"))
                continue
            buffer[: len(data)] = data
            self._position += len(data)
            self._renewed = False
            if self._position - self._hoped_at >= _PROGRESS_BYTES:
                self._hope()
            return len(data)

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        super().close()

    def _open(self) -> urllib3.BaseHTTPResponse:
        """Return the answer whose next byte is the one at our position."""
        while True:
            response = self._pool.request(
                "GET",
                self._address,
                headers={"Range": f"bytes={self._position}-"} if self._position else {},
                preload_content=False,
                decode_content=False,
                retries=False,
                redirect=False,
                timeout=_timeout(self._transport),
            )
            if response.status in (200, 206):
                self._place(response)
                return response
            response.close()
            if response.status in _EXPIRED and not self._renewed:
                self._renewed = True
                self._address = self._locate()
            elif response.status in _BUSY:
                self._despair(response=response)
            else:
                raise InputError(_file_refusal(self.name, response.status))

    def _place(self, response: urllib3.BaseHTTPResponse) -> None:
        """Check that the answer is of the same file, and bring it to our position."""
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        length = span[2] if span else response.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
        etag = response.headers.get("ETag", "")
        if (self._etag and etag and etag != self._etag) or (self._size and size and size != self._size):
            response.close()
            raise InputError(f"{self.name} has changed while it was read; run again.")
        self._etag, self._size = self._etag or etag, self._size or size
        start = int(span[1]) if response.status == 206 and span else 0
        if response.status == 206 and start != self._position:
            response.close()
            raise InputError(f"{self.name}: asked for byte {self._position}, its host sends byte {start}; run again.")
        skip = self._position - start  # a host that knows no ranges sends all of it again
        while skip:
            skipped = response.read(min(skip, _PROGRESS_BYTES), decode_content=False)
            if not skipped:
                raise HTTPError("the connection ended early")
            skip -= len(skipped)

    def _hope(self) -> None:
        """Allow all attempts anew."""
        self._retry = _retries(self._transport)
        self._hoped_at = self._position

    def _despair(self, error: Exception | None = None, response: urllib3.BaseHTTPResponse | None = None) -> None:
        """Use up one attempt and wait as the host or the backoff says.

        Raises:
            InputError: It was the last, or another cannot help.
        """
        self._drop()
        cause = f"HTTP {response.status}" if response else _public(str(error))
        try:
            if isinstance(error, SSLError):
                raise MaxRetryError(self._pool, self.name)  # type: ignore[arg-type]
            self._retry = self._retry.increment("GET", self.name, response=response, error=error)
        except MaxRetryError:
            of = f" of {self._size:,}" if self._size else ""
            # Nothing is chained: the library's errors may hold the whole address.
            raise InputError(
                f"{self.name} cannot be read beyond byte {self._position:,}{of} ({cause}); run again."
            ) from None
        self._retry.sleep(response)

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def file_name(address: str) -> str:
    """Return the path of an address, which names the file without the signature."""
    return unquote(urlsplit(address).path).strip("/")


def _is_address(text: str) -> bool:
    try:
        parts = urllib3.util.parse_url(text)
    except HTTPError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.host) and not parts.auth


def _connections(url: str) -> urllib3.PoolManager:
    """Return a pool that goes by the proxy the environment names for an address."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc):
        return urllib3.PoolManager()
    user = urllib3.util.parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(user)) if user else None
    return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", proxy_headers=headers)


def _retries(transport: TransportSettings) -> Retry:
    return Retry(
        total=transport.attempts - 1,
        status_forcelist=_BUSY,
        raise_on_status=False,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        backoff_max=transport.longest_backoff_seconds,
        retry_after_max=_LONGEST_RETRY_AFTER_SECONDS,
    )


def _timeout(transport: TransportSettings) -> Timeout:
    return Timeout(connect=transport.connect_timeout_seconds, read=transport.read_timeout_seconds)


def _api_refusal(url: str, status: int, release: str) -> str:
    if status in (401, 403):
        return f"The Semantic Scholar API refuses the key (HTTP {status}); check the environment variable S2_API_KEY."
    if status == 404:
        return (
            f"There is no release {release!r} of S2ORC at {url}; set download.s2orc.release to latest or the date of a "
            "release, and check S2_API_URL if it is set."
        )
    if status == 429:
        return "The Semantic Scholar API is asked too often (HTTP 429); run again later, or with a key of your own."
    return f"{url} answers HTTP {status}; run again later, or check S2_API_URL."


def _file_refusal(name: str, status: int) -> str:
    if status in _EXPIRED:
        return f"The host of {name} refuses even a fresh address (HTTP {status}); check this machine's clock."
    return f"The host of {name} answers HTTP {status}; run again later, or choose another download.s2orc.release."


def _public(text: str) -> str:
    """Return the text without the queries of the addresses in it."""
    return _QUERY.sub("", text)


def _hide_queries(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_public(arg) if isinstance(arg, str) else arg for arg in record.args)
    return True
