"""Asking a registry for an image's manifest, as a node does before it pulls.

API: https://github.com/opencontainers/distribution-spec/blob/main/spec.md; tokens:
https://distribution.github.io/distribution/spec/auth/token/.
"""

import base64
import json
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from components.common.logs import without_credentials

_DOCKER_HUB = "docker.io"
_ENDPOINTS = {_DOCKER_HUB: "registry-1.docker.io"}
_CONFIG_KEYS = {_DOCKER_HUB: "https://index.docker.io/v1/"}
_MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
_REFERENCE = re.compile(
    r"(?:(?P<registry>[A-Za-z0-9.-]+(?::\d+)?)/)?(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_SECONDS = 8.0

Answer = Literal["there", "missing", "unknown"]


@dataclass(frozen=True)
class Reference:
    """An image's name, taken apart.

    Attributes:
        registry: Host, with a port if there is one.
        name: Of the repository.
        tag: `latest` where none is given.
        digest: Empty where none is given.
    """

    registry: str
    name: str
    tag: str
    digest: str


def read_reference(image: str) -> Reference | None:
    """Take an image's name apart as container runtimes do; None if it is none."""
    match = _REFERENCE.fullmatch(image)
    if match is None:
        return None
    registry, name = match["registry"] or "", match["name"]
    if registry and not (set(".:") & set(registry) or registry == "localhost"):
        registry, name = "", f"{registry}/{name}"  # an owner on Docker Hub
    if not registry:
        registry, name = _DOCKER_HUB, name if "/" in name else f"library/{name}"
    return Reference(registry, name, match["tag"] or "latest", match["digest"] or "")


def look_up(reference: Reference) -> tuple[Answer, str]:
    """Ask the registry whether it has an image, without a name or with Docker's stored one.

    Returns:
        `there`, `missing` or `unknown` (it does not answer, or not us), and how that was seen.
    """
    scheme = "http" if _is_loopback(reference.registry) else "https"
    host = _ENDPOINTS.get(reference.registry, reference.registry)
    url = f"{scheme}://{host}/v2/{reference.name}/manifests/{reference.digest or reference.tag}"
    login = _login(reference.registry)
    try:
        answer = _request("HEAD", url, {"Accept": _MANIFESTS})
        if answer.status == 401 and (passport := _passport(answer.headers, url, login)):
            answer = _request("HEAD", url, {"Accept": _MANIFESTS, "Authorization": passport})
    except (HTTPError, ValueError) as error:
        return "unknown", f"it cannot be asked ({without_credentials(str(error))[:200]})"
    how = "with Docker's credentials" if login else "without credentials"
    if answer.status == 200:
        return "there", f"asked {how}"
    if answer.status == 404:
        return "missing", f"it answers 404 {how}"
    return "unknown", f"it answers {answer.status} {how}"


def _passport(headers: Mapping[str, str], url: str, login: str) -> str:
    """The Authorization that a registry's challenge asks for; empty if we have none."""
    scheme, _, rest = headers.get("WWW-Authenticate", "").partition(" ")
    if scheme.lower() == "basic":
        return f"Basic {login}" if login else ""
    parts = dict(_CHALLENGE.findall(rest))
    realm = parts.pop("realm", "")
    if scheme.lower() != "bearer" or urlsplit(realm).scheme not in ("https", urlsplit(url).scheme):
        return ""  # a password is not sent where it could be read on the way
    asked = f"{realm}?{urlencode({name: parts[name] for name in ('service', 'scope') if name in parts})}"
    answer = _request("GET", asked, {"Authorization": f"Basic {login}"} if login else {})
    if answer.status != 200:
        return ""
    found = json.loads(answer.data)
    return f"Bearer {found.get('token') or found.get('access_token') or ''}"


def _login(registry: str) -> str:
    """User and password of a registry from Docker's file, in base64; helpers of the desktop are not asked."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auths", {})
        entry = stored.get(_CONFIG_KEYS.get(registry, registry)) or stored.get(f"https://{registry}") or {}
        return base64.b64encode(base64.b64decode(entry.get("auth", ""), validate=True)).decode()
    except (OSError, ValueError, AttributeError):
        return ""


def _request(method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    direct = not proxy or urllib.request.proxy_bypass(parts.hostname or "")
    pool = urllib3.PoolManager() if direct else urllib3.ProxyManager(proxy)
    with pool:
        return pool.request(
            method,
            url,
            headers=headers,
            timeout=_SECONDS,
            retries=urllib3.Retry(0, redirect=2, raise_on_redirect=False),
        )


def _is_loopback(registry: str) -> bool:
    """Where container runtimes speak plain HTTP without being told to."""
    return registry.partition(":")[0] in ("localhost", "127.0.0.1")
