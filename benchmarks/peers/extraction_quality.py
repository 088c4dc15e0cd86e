"""What of an article reaches a tool's text, judged by windows of words from known places of the XML."""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from lxml import etree

WORDS = 8
PER_ARTICLE = 5
KINDS = ("abstract", "section titles", "paragraphs", "captions", "table cells", "references", "affiliations")
"""The first four are wanted; table cells only by setting; references and affiliations are not."""
DEBRIS = ("[1, 2]", "LaTeX preambles", "words that touch")
"""Citations in brackets, preambles of formulas that were meant for LaTeX, words or sentences that stand too close."""

# Sections that are wanted by some and dropped by others, so that nobody is asked for them.
_DECLARATION = re.compile(
    r"acknowledg|funding|financ|conflict|competing|disclosure|contribution|availab|accession|support(?:ing)? info|"
    r"supplement|electronic|abbreviation|ethic|consent|pre-?publication|specifications",
    re.IGNORECASE,
)
_PLACES = {
    "abstract": "./front/article-meta/abstract//p",
    "section titles": "./body//sec[not(ancestor::declaration)]/title",
    "paragraphs": "./body//p[not(ancestor::fig or ancestor::table-wrap or ancestor::supplementary-material "
    "or ancestor::boxed-text or ancestor::fn or ancestor::disp-quote or ancestor::declaration)]",
    "captions": "./body//fig/caption//p | ./body//table-wrap/caption//p",
    "table cells": "./body//table-wrap//td",
    "references": "./back//ref//article-title",
    "affiliations": ".//article-meta//aff",
}
# Markup that does not interrupt the words; all other elements do, and windows never cross them.
_PLAIN = frozenset({"italic", "bold", "sc", "underline", "styled-content", "named-content", "roman", "monospace"})
_WORD = re.compile(r"[^\W_]+")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,80}>")
_CITATION = re.compile(r"(?<![\w.])\[\d{1,3}(?:\s?[,;–-]\s?\d{1,3})*\]")
_PREAMBLE = re.compile(r"\\(?:documentclass|usepackage)")
_GLUED = re.compile(r"[a-z]{3}[.;:]?[A-Z][a-z]{3}|[a-z]{3}\.[A-Z]")


class Judge:
    """Windows taken from articles, to be looked for in the texts that tools made of these."""

    def __init__(self, xml: Sequence[bytes]) -> None:
        """Take up to five windows of each kind from each article."""
        self._wanted = [self._take(number, each) for number, each in enumerate(xml)]
        self.windows = sum(len(windows) for kinds in self._wanted for windows in kinds.values())

    def judge(self, texts: Sequence[str]) -> list[str]:
        """Return the share of windows found of each of `KINDS`, then how often a text holds each of `DEBRIS`."""
        asked: dict[str, int] = defaultdict(int)
        found: dict[str, int] = defaultdict(int)
        for kinds, text in zip(self._wanted, texts, strict=True):
            haystack = _normalised(text)
            for kind, windows in kinds.items():
                asked[kind] += len(windows)
                found[kind] += sum(window in haystack for window in windows)
        shares = [f"{100 * found[kind] / asked[kind]:.0f}" if asked[kind] else "-" for kind in KINDS]
        given = [text for text in texts if text]
        citations, preambles, glued = (
            sum(len(pattern.findall(text)) for text in given) / max(len(given), 1)
            for pattern in (_CITATION, _PREAMBLE, _GLUED)
        )
        return [*shares, f"{citations:.1f}", f"{preambles:.1f}", f"{glued:.1f}"]

    def _take(self, number: int, xml: bytes) -> dict[str, list[str]]:
        parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, remove_comments=True)
        root = etree.fromstring(xml, parser)
        if root is None:
            return {}
        for element in root.iter(etree.Element):
            element.tag = etree.QName(element).localname
        if root.find("body") is None:
            return {}  # an abstract alone, which is no text for everyone
        sections: Any = root.xpath("./body//sec[title]")
        for section in sections:
            if _DECLARATION.search("".join(section.find("title").itertext())):
                section.tag = "declaration"
        draw = random.Random(number)
        taken = {}
        for kind in KINDS:
            places: Any = root.xpath(_PLACES[kind])
            windows = [window for element in places for window in _windows(element, kind, draw)]
            taken[kind] = draw.sample(windows, min(PER_ARTICLE, len(windows)))
        return taken


def _windows(element: etree._Element, kind: str, draw: random.Random) -> Iterator[str]:
    """Yield one window from each stretch of words, or the whole of a title or cell that is shorter."""
    whole = kind in ("section titles", "table cells")
    stretches = list(_stretches(element))
    for stretch in stretches:
        # The words at the edges may be parts of longer ones.
        inner = stretch if whole and len(stretches) == 1 else stretch[1:-1]
        if len(inner) >= WORDS:
            first = draw.randrange(len(inner) - WORDS + 1)
            yield f" {' '.join(inner[first : first + WORDS])} "
        elif whole and len(stretches) == 1 and len("".join(inner)) >= 5:
            yield f" {' '.join(inner)} "


def _stretches(element: etree._Element) -> Iterator[list[str]]:
    run: list[str] = []
    for piece in _pieces(element):
        if piece is None:
            yield _WORD.findall("".join(run).lower())
            run = []
        else:
            run.append(piece)
    yield _WORD.findall("".join(run).lower())


def _pieces(element: etree._Element) -> Iterator[str | None]:
    """Yield the text, with None where something stands between."""
    yield element.text or ""
    for child in element:
        if child.tag in _PLAIN:
            yield from _pieces(child)
        else:
            yield None
        yield child.tail or ""


def _normalised(text: str) -> str:
    return f" {' '.join(_WORD.findall(_TAG.sub('', text).lower()))} "
