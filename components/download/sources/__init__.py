"""Sources of articles behind one small interface: list the work, then read a part of it.

A source is added by a module with a class that has the two methods of :class:`Source`, and a line in ``open_source``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from components.common.errors import InputError
from components.common.manifest import Rejected
from components.download.settings import DownloadSettings


@dataclass(frozen=True)
class Item:
    """An article that a source offers: its id, its path inside the source, its bytes, and what its content hashes to.

    ``rejected`` holds the reason why it will not be read at all (an unsafe path, too large).
    """

    id: str
    path: str
    size: int
    digest: str
    rejected: str = ""


class Source(Protocol):
    """Lists articles and reads some of them."""

    def list_items(self) -> list[Item]:
        """Return every article the source offers, in a stable order."""
        ...

    def read_items(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes | Rejected]]:
        """Yield each item, in the given order, with its bytes or with the reason why it has none."""
        ...


def require_place(settings: DownloadSettings) -> None:
    """Refuse a source that needs a place and has none, before anything is started.

    Raises:
        InputError: ``download.articles`` is missing.
    """
    if settings.source == "files" and not settings.articles:
        raise InputError(
            "source=files needs download.articles: a folder, .tar.gz, .zip or s3:// prefix of JATS files; "
            "with make, ARTICLES=/path/to/articles."
        )


def open_source(settings: DownloadSettings) -> Source:
    """Return the source that the settings name.

    Raises:
        InputError: The place it needs is not given or not there.
    """
    from components.download.sources import files

    if settings.source == "sample":
        from components.download.sample import ARTICLES_DIR

        return files.open_files(str(ARTICLES_DIR), settings.max_article_bytes)
    require_place(settings)
    return files.open_files(settings.articles, settings.max_article_bytes)
