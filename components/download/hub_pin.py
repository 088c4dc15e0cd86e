"""Data sets on the hub are named with the commit they are read at: ``owner/name@commit``."""

import re

from components.common.errors import InputError
from components.common.pmc.settings import TransportSettings
from components.download.hub import HubRepo, open_repo

_PIN = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")


def pinned(text: str, setting: str) -> tuple[str, str]:
    """Return name and commit.

    Args:
        text: ``owner/name@commit``.
        setting: What it is the value of, for the message.

    Raises:
        InputError: It is not of that form.
    """
    match = _PIN.fullmatch(text)
    if match is None:
        raise InputError(
            f"{setting} is {text!r}, which can change from day to day; give owner/name@commit, "
            "with the 40 hexadecimal digits of a commit."
        )
    return match["name"], match["commit"]


def open_pinned(name: str, commit: str, transport: TransportSettings) -> HubRepo:
    """Open a data set at that commit.

    Raises:
        InputError: It is not there, or the hub answers with another commit.
    """
    repo = open_repo(name, commit, "dataset", transport)
    if repo.commit != commit:
        raise InputError(f"The hub answers with commit {repo.commit} of {name} for {commit}; check HF_ENDPOINT.")
    return repo
