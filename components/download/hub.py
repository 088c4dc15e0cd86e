"""The Hugging Face hub, or a mirror of it (HF_ENDPOINT): a repository at one commit and its files as streams.

huggingface_hub does names, tokens (HF_TOKEN), proxies and the meaning of answers. Its own downloads fill a cache on
disk; a pod has no room for a model there, so a file's bytes pass through here straight to where they belong.
"""

import logging
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import httpx
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from components.common.errors import InputError
from components.common.pmc.settings import TransportSettings
from components.download.remote_file import RemoteFile

log = logging.getLogger(__name__)

_FIRST_WAIT_SECONDS = 1.0
# The hub counts requests over five minutes, and says how long is left of them.
_LONGEST_ASKED_SECONDS = 310.0
_CHUNK_BYTES = 1 << 20
_MAY_PASS = (408, 429, 500, 502, 503, 504)
# ValueError and its like: what answers is no hub, and the library finds no JSON, or not the fields it expects.
_EXPECTED = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TypeError, KeyError)
_T = TypeVar("_T")


@dataclass(frozen=True)
class HubRepo:
    """A repository of the hub at one commit; ``files`` by name."""

    name: str
    commit: str
    files: dict[str, RemoteFile]

    @property
    def pin(self) -> str:
        """``owner/name@commit``."""
        return f"{self.name}@{self.commit}"

    def file(self, name: str) -> RemoteFile:
        """Return a file.

        Raises:
            InputError: There is none of that name.
        """
        if name not in self.files:
            raise InputError(f"{self.pin} on the Hugging Face hub has no file {name}; check the name and the commit.")
        return self.files[name]


def open_repo(name: str, revision: str, kind: Literal["model", "dataset"], transport: TransportSettings) -> HubRepo:
    """Resolve a revision to its commit and list the files there.

    Args:
        name: ``owner/name``.
        revision: A commit, a tag or a branch.
        kind: What the hub calls the repository's type.
        transport: Attempts and timeouts, of this and of every file that is read later.

    Raises:
        InputError: The name or the revision is not there or not open to us, or the hub cannot be reached.
    """
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
    what = f"{kind} {name} (revision {revision})"
    # The library reads HF_ENDPOINT once, when it is imported; what counts is the environment now.
    api = HfApi(endpoint=endpoint)
    seconds = transport.connect_timeout_seconds + transport.read_timeout_seconds
    ask = partial(api.repo_info, name, revision=revision, repo_type=kind, files_metadata=True, timeout=seconds)
    try:
        info = _patiently(ask, what, transport)
        commit, siblings = _listed(info)
    except _EXPECTED as error:
        raise _explained(error, what, endpoint) from error
    pin = f"{name}@{commit}"

    def as_file(entry: RepoSibling) -> RemoteFile:
        url = hf_hub_url(name, entry.rfilename, repo_type=kind, revision=commit, endpoint=endpoint)
        return RemoteFile(
            name=entry.rfilename,
            place=f"{pin}/{entry.rfilename}",
            read=partial(_read, url, f"{pin}/{entry.rfilename}", endpoint, transport),
            size=entry.size,
            sha256=entry.lfs.sha256 if entry.lfs else "",
            # Of an LFS file it is the pointer's id.
            git_blob="" if entry.lfs else entry.blob_id or "",
        )

    return HubRepo(name, commit, {entry.rfilename: as_file(entry) for entry in siblings})


def _listed(info: object) -> tuple[str, list[RepoSibling]]:
    if not isinstance(info, ModelInfo | DatasetInfo) or not info.sha:
        raise ValueError("no commit in the answer")
    return info.sha, list(info.siblings or [])


def _read(url: str, what: str, endpoint: str, transport: TransportSettings) -> Generator[bytes, None, None]:
    """Yield a file's bytes; a connection that breaks is opened again where it broke."""
    timeout = httpx.Timeout(transport.read_timeout_seconds, connect=transport.connect_timeout_seconds)
    done = tries = 0
    while True:
        # Only bytes as they are stored have offsets, so no compression on the way.
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        try:
            with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
                hf_raise_for_status(response)
                # A server that knows no ranges sends everything again.
                skip = done if response.status_code == httpx.codes.OK else 0
                for chunk in response.iter_raw(_CHUNK_BYTES):
                    fresh = chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    if fresh:
                        done, tries = done + len(fresh), 0
                        yield fresh
            return
        except (httpx.HTTPError, OSError) as error:
            tries += 1
            if not _wait(error, what, tries, transport):
                raise _explained(error, what, endpoint) from error


def _patiently(action: Callable[[], _T], what: str, transport: TransportSettings) -> _T:
    tries = 0
    while True:
        try:
            return action()
        except httpx.HTTPError as error:
            tries += 1
            # A hub that was never reached is a wrong address or no network far more often than a short fault.
            if isinstance(error, httpx.ConnectError) or not _wait(error, what, tries, transport):
                raise


def _wait(error: Exception, what: str, tries: int, transport: TransportSettings) -> bool:
    """Sleep and tell that another try may help; False when it cannot."""
    seconds = min(_FIRST_WAIT_SECONDS * 2 ** (tries - 1), transport.longest_backoff_seconds)
    if isinstance(error, HfHubHTTPError):
        may_pass, reason = error.response.status_code in _MAY_PASS, f"answer {error.response.status_code}"
        asked = error.response.headers.get("Retry-After", "")
        seconds = float(asked) if asked.isdigit() else seconds
    else:
        may_pass = isinstance(error, httpx.TimeoutException | httpx.NetworkError | httpx.RemoteProtocolError)
        reason = type(error).__name__
    if not may_pass or tries >= transport.attempts or seconds > _LONGEST_ASKED_SECONDS:
        return False
    log.warning("%s: %s; trying again in %.0f s (%d of %d).", what, reason, seconds, tries + 1, transport.attempts)
    time.sleep(seconds)
    return True


def _explained(error: Exception, what: str, endpoint: str) -> InputError:
    """Turn what the library raises into one sentence; the answers' own text may hold signed addresses."""
    return InputError(f"Cannot fetch {what} from the hub {endpoint}: {_hint(error)}.")


def _hint(error: Exception) -> str:
    token = "HF_TOKEN gives no access to it" if get_token() else "it needs an account: set HF_TOKEN"
    if isinstance(error, HFValidationError):
        return "that is no name of a repository; give owner/name"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it, or give a folder or an s3:// prefix that holds the files"
    if isinstance(error, GatedRepoError):
        return "it is gated; accept its terms on its page and set HF_TOKEN to a token of that account"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision; give a commit of that repository"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such repository, or {token}"
    if isinstance(error, RemoteEntryNotFoundError):
        return "the file is listed but not there; try again later"
    if isinstance(error, HfHubHTTPError):
        return _status_hint(error.response, token)
    if isinstance(error, httpx.TransportError | httpx.TooManyRedirects):
        return (
            f"it cannot be reached ({type(error).__name__}); check the network and HF_ENDPOINT, "
            "or give a folder or an s3:// prefix that holds the files"
        )
    if isinstance(error, httpx.InvalidURL):
        return "that is no address; check HF_ENDPOINT"
    if isinstance(error, OSError):
        return f"{type(error).__name__} on this machine ({error.strerror}); check its certificates and its network"
    return f"what answers there is no Hugging Face hub ({type(error).__name__}); check HF_ENDPOINT"


def _status_hint(response: httpx.Response, token: str) -> str:
    status = response.status_code
    if status == 401 and "Invalid credentials" in response.headers.get("X-Error-Message", ""):
        return "it does not accept HF_TOKEN; give a valid token or none"
    if status == 401:
        # The hub does not tell a stranger whether a name is private or not there.
        return f"there is no such repository, or {token}"
    if status == 403:
        return token
    if status == 429:
        return "it limits the rate of requests (answer 429); wait some minutes, or set HF_TOKEN for a higher limit"
    return f"it answers {status}; " + ("try again later" if status >= 500 else "check the name and HF_ENDPOINT")
