"""Real articles for the benchmarks, and as many different ones of their length as are wanted, made of them."""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from components.download.settings import DownloadSettings
from components.download.sources import Article, open_source
from components.preprocess.extraction import jats
from components.preprocess.settings import ExtractSettings

EVERY = 3
"""Each third word is replaced: two articles made of the same original share next to no word 5-grams."""
EVERY_OF_COPY = 100
"""Each hundredth word of a planted near-duplicate is replaced: its Jaccard similarity is 0.9."""

_Word = TypeVar("_Word", str, bytes)

_MARKUP_OR_WORD = re.compile(rb"<!--.*?-->|<[^>]*>|&[^;\s]*;|([A-Za-z]{4,})", re.DOTALL)
_BODY = re.compile(rb"<body[\s>]")


def read(place: str) -> dict[str, bytes]:
    """Return the XML of every article in a folder or archive, by id; of the bundled sample if no place is given."""
    settings = DownloadSettings(source="files", articles=place) if place else DownloadSettings()
    source = open_source(settings)
    outcomes = [outcome for part in source.plan().parts for outcome in source.fetch(part.table, None)]
    return {outcome.article_id: bytes(outcome.xml) for outcome in outcomes if isinstance(outcome, Article)}


def texts(xml: Sequence[bytes]) -> list[str]:
    """Return the texts of those articles that have one, by this project's extraction."""
    found = []
    for each in xml:
        try:
            found.append(jats.extract(each, ExtractSettings()).text)
        except jats.ArticleError:
            continue
    return found


def varied_texts(originals: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """Yield as many texts, each an original with every third word replaced by some word of the originals."""
    split = [re.findall(r"\S+\s*", text) for text in originals]
    pool = _pool(split)
    draw = random.Random(seed)
    for number in range(count):
        words = split[number % len(split)].copy()
        _replace(words, draw.randrange(EVERY), EVERY, pool, draw)
        yield "".join(words)


class Varied:
    """Articles without end: originals whose bodies have some words replaced, the markup left as it is."""

    def __init__(self, originals: Sequence[bytes]) -> None:
        """Find the words of every body."""
        split = [_head_and_parts(xml) for xml in originals]
        self._heads = [head for head, _ in split]
        self._parts = [parts for _, parts in split]
        self._pool = _pool([parts[1::2] for parts in self._parts])

    def article(self, number: int, copy: bool = False) -> bytes:
        """Return an article, the same for the same number; or a near-duplicate of it."""
        original = number % len(self._heads)
        parts = self._parts[original].copy()
        draw = random.Random(number)
        self._replace(parts, EVERY, draw)
        if copy:
            self._replace(parts, EVERY_OF_COPY, draw)
        return self._heads[original] + b"".join(parts)

    def _replace(self, parts: list[bytes], every: int, draw: random.Random) -> None:
        _replace(parts, 1 + 2 * draw.randrange(every), 2 * every, self._pool, draw)


def _head_and_parts(xml: bytes) -> tuple[bytes, list[bytes]]:
    """Return what stands before the body, and the rest: by turns what stays and a word that may be replaced."""
    body = _BODY.search(xml)
    start = end = body.start() if body else len(xml)
    parts = []
    for match in _MARKUP_OR_WORD.finditer(xml, start):
        if match[1]:
            parts += [xml[end : match.start()], match[1]]
            end = match.end()
    return xml[:start], [*parts, xml[end:]]


def write_files(xml: dict[str, bytes], folder: Path) -> list[Path]:
    """Write articles into files of a folder, for the tools that read files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, content in enumerate(xml.values()):
        paths.append(folder / f"{number:05d}.xml")
        paths[-1].write_bytes(content)
    return paths


def _pool(words: Sequence[list[_Word]]) -> list[_Word]:
    """Return words by frequency, so that the language stays the language; as many as the longest text has."""
    some = [word for each in words for word in each[:2000]]
    return random.Random(0).choices(some, k=max(100_000, *map(len, words)))


def _replace(words: list[_Word], first: int, every: int, pool: list[_Word], draw: random.Random) -> None:
    count = len(range(first, len(words), every))
    start = draw.randrange(len(pool) - count + 1)
    words[first::every] = pool[start : start + count]
