"""What of an article becomes no text is set apart before it is parsed: half of a file is references and tables.

This only saves work: where the markup is not as plain as it must be for this, the file is left whole.
"""

import re
from dataclasses import dataclass
from functools import cached_property

_LONGEST = 4_000_000  # a longer file is looked at as a whole, by the parser and its checks
_LITERAL = (b"<!", b"-->", b"]]>")
_AFTER_NAME = b" >\t\r\n"
_ROOT, _REFERENCE_LIST, _TABLE = b"<article", b"ref-list", b"table"
_REFERENCE = re.compile(rb"<ref[\s/>]")
_REFERENCE_ID = re.compile(rb"""<ref\s[^<>]*?\bid\s*=\s*["']([^"'<>]*)["']""")


@dataclass(frozen=True)
class Trimmed:
    """An article's bytes without what nobody reads, and the reference lists that were in it."""

    xml: bytes
    references: bytes = b""

    @cached_property
    def reference_count(self) -> int:
        """How many entries the reference lists hold."""
        return len(_REFERENCE.findall(self.references))

    @cached_property
    def reference_ids(self) -> frozenset[str]:
        """The ids of these entries."""
        return frozenset(name.decode(errors="replace") for name in _REFERENCE_ID.findall(self.references))


def trim(xml: bytes, tables: bool) -> Trimmed:
    """Set apart the reference lists of an article and, unless they are wanted, its tables.

    Args:
        xml: The bytes of an article; nothing in them is trusted, well-formed or not.
        tables: Keep the tables.
    """
    if len(xml) > _LONGEST:
        return Trimmed(xml)
    root = max(xml.find(_ROOT), 0)
    literal = xml.find(b"!", root) >= 0 and xml.find(b"<!", root) >= 0  # one character is found much faster
    kept, references = _without(xml, _REFERENCE_LIST, literal)
    return Trimmed(kept if tables else _without(kept, _TABLE, literal)[0], references)


def _without(xml: bytes, name: bytes, literal: bool) -> tuple[bytes, bytes]:
    """Return a file without the elements of a name, and these; the file as it is if that is not safe to do.

    Args:
        xml: The file.
        name: Of the elements.
        literal: There are comments or literal sections; where one begins and ends only a parser can tell.
    """
    opening, closing = b"<" + name, b"</" + name + b">"
    kept: list[bytes] = []
    taken: list[bytes] = []
    end = 0
    start = _find(xml, opening, 0, len(xml))
    while start >= 0:
        kept.append(xml[end:start])
        end = _end(xml, opening, closing, start)
        element = xml[start:end]
        if not end or _is_empty(element) or (literal and any(mark in element for mark in _LITERAL)):
            return xml, b""
        taken.append(element)
        start = _find(xml, opening, end, len(xml))
    return (b"".join([*kept, xml[end:]]), b"".join(taken)) if taken else (xml, b"")


def _is_empty(element: bytes) -> bool:
    """Tell whether the first tag may be an empty element: then what follows is not in it."""
    return element[element.find(b">") - 1] in b"/"


def _end(xml: bytes, opening: bytes, closing: bytes, start: int) -> int:
    """Return the place behind the element that begins at `start`, with those of its name in it; 0 if it has no end."""
    end = xml.find(closing, start)
    inner = _find(xml, opening, start + 1, end)
    while end >= 0 and inner >= 0:
        end = xml.find(closing, end + 1)
        inner = _find(xml, opening, inner + 1, end)
    return end + len(closing) if end >= 0 else 0


def _find(xml: bytes, opening: bytes, start: int, end: int) -> int:
    """Find an opening tag whose name ends there: `<table`, not `<table-wrap`."""
    place = xml.find(opening, start, end)
    while place >= 0 and xml[place + len(opening)] not in _AFTER_NAME:
        place = xml.find(opening, place + 1, end)
    return place
