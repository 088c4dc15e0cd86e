"""What of an article becomes no text is set apart before it is parsed: most of a file is references, tables, authors.

This only saves work: where the markup is not as plain as it must be for this, the file is left whole.
"""

import re
from functools import cached_property

from components.preprocess.settings import ExtractSettings

Span = tuple[int, int]
"""Where something begins and ends."""

_LONGEST = 4_000_000  # a longer file is looked at as a whole, by the parser and its checks
_LAST_TAGS = 200  # bytes that the tags at the end of a file take
_AFTER_NAME = b" >\t\r\n"
_ROOT = b"<article"
_REFERENCE = re.compile(rb"<ref[\s/>]")
_REFERENCE_ID = re.compile(rb"""<ref\s[^<>]*?\bid\s*=\s*["']([^"'<>]*)["']""")


class Trimmed:
    """An article's bytes without what nobody reads, and the references that were in it."""

    def __init__(self, xml: bytes, unread: list[Span] | None = None) -> None:
        """Cut some spans, one behind the other, out of an article."""
        self._whole = xml
        self._unread = unread or []
        self.xml = _without(xml, self._unread)

    @cached_property
    def reference_count(self) -> int:
        """How many references were cut out."""
        return sum(len(_REFERENCE.findall(self._whole, *span)) for span in self._unread)

    @cached_property
    def reference_ids(self) -> frozenset[str]:
        """The ids of these references."""
        names = (name for span in self._unread for name in _REFERENCE_ID.findall(self._whole, *span))
        return frozenset(name.decode(errors="replace") for name in names)


def trim(xml: bytes, settings: ExtractSettings) -> Trimmed:
    """Set apart authors, tables, references and what else stands behind the body, but for what is wanted.

    Args:
        xml: The bytes of an article; nothing in them is trusted, well-formed or not.
        settings: Say what is wanted.
    """
    comments = _comments(xml) if len(xml) <= _LONGEST else None
    if comments is None:
        return Trimmed(xml)
    xml = _without(xml, comments)
    body = xml.find(b"<body")
    others = _others_behind(xml)
    back = xml.find(b"</body>", body) if others else xml.rfind(b"</body>")  # from the end it is nearer
    if not 0 < body < back:
        return Trimmed(xml)
    reviews = _elements(xml, others, back, len(xml)) if others else []
    end = reviews[0][0] if reviews else len(xml)
    unread = _elements(xml, b"contrib-group", 0, body)
    if settings.acknowledgements or settings.data_availability or settings.appendices:
        behind = _elements(xml, b"ref-list", back, end)
    else:
        behind = _back_matter(xml, back, end)
    unread += behind
    if not settings.tables:
        unread += _elements(xml, b"table", body, back)
        unread += _elements(xml, b"table", behind[-1][1] if behind else back, end)
    if not settings.sub_articles:
        unread += reviews
    return Trimmed(xml, sorted(unread))


def _others_behind(xml: bytes) -> bytes:
    """Return the name of the reviews or replies that end an article, with bodies and references of their own."""
    last_tags = xml[-_LAST_TAGS:]
    return next((name for name in (b"sub-article", b"response") if b"</" + name in last_tags), b"")


def _back_matter(xml: bytes, start: int, end: int) -> list[Span]:
    """Return where the back matter stands; `_elements` would find the same, more slowly."""
    first = xml.find(b"<back>", start, end)
    last = xml.find(b"</back>", first, end)
    return [(first, last + len(b"</back>"))] if 0 <= first < last else []


def _comments(xml: bytes) -> list[Span] | None:
    """Return where comments stand behind the prolog; None where only a parser can tell what is markup."""
    found: list[Span] = []
    place = xml.find(b"!", max(xml.find(_ROOT), 0))  # one character is found much faster than two
    while place >= 0:
        end = place + 1
        if xml[place - 1] in b"<":
            end = xml.find(b"--", place + 3) + 3
            if xml[place : place + 3] != b"!--" or xml[end - 1 : end] != b">":
                return None
            found.append((place - 1, end))
        place = xml.find(b"!", end)
    return found


def _without(xml: bytes, spans: list[Span]) -> bytes:
    """Cut spans in their order out of a file; one within another goes with it."""
    kept, end = [], 0
    for start, behind in spans:
        if start >= end:
            kept.append(xml[end:start])
            end = behind
    return b"".join([*kept, xml[end:]]) if kept else xml


def _elements(xml: bytes, name: bytes, start: int, end: int) -> list[Span]:
    """Find the elements of a name in a part of a file, those within others of the name with these.

    What is not balanced is no matter here: without it the file is not well-formed, and is parsed whole.
    """
    opening, closing = b"<" + name, b"</" + name + b">"
    found: list[Span] = []
    place = xml.find(closing, start, end)
    while place >= 0:
        behind = place + len(closing)
        first = _find_last(xml, opening, found[-1][1] if found else start, place)
        while first < 0 and found:  # what was found last is within this one
            inner, _ = found.pop()
            first = _find_last(xml, opening, found[-1][1] if found else start, inner)
        if first < 0:
            break
        found.append((first, behind))
        place = xml.find(closing, behind, end)
    return found


def _find_last(xml: bytes, opening: bytes, start: int, end: int) -> int:
    """Find the last opening tag whose name ends there: `<table`, not `<table-wrap`."""
    place = xml.rfind(opening, start, end)
    while place >= 0 and xml[place + len(opening)] not in _AFTER_NAME:
        place = xml.rfind(opening, start, place)
    return place
