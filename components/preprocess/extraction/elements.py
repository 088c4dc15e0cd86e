"""What each element of JATS means, in one table by name.

Names are read without their namespace, so JATS, NLM 2.3 and NLM 3.0 go the same way. A name that is not in the table is
inline markup, or stands around blocks; its text is passed on.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lxml import etree

from components.preprocess.extraction import blocks, inline
from components.preprocess.extraction.safe_xml import ByName

if TYPE_CHECKING:
    from components.preprocess.extraction.walker import Walker

Handler = Callable[["Walker", etree._Element, list[str]], None]
"""Writes an element: inline text to the list, blocks to the walker."""


def is_container(element: etree._Element) -> bool:
    """Return whether an element of unknown meaning holds blocks."""
    return any(HANDLERS[child.tag] in _BLOCKS for child in element)


def _skip(_walker: "Walker", _element: etree._Element, _out: list[str]) -> None:
    """Drop the element with all it holds."""


def _float(walker: "Walker", element: etree._Element, _out: list[str]) -> None:
    """Put off what stands on its own until the line ends."""
    walker.floats.append(element)


paragraph = blocks.paragraph

_NAMES: dict[Handler, str] = {
    blocks.paragraph: "p title subtitle attrib",
    blocks.block: "disp-quote list-item def question answer explanation question-wrap answer-set "
    "disp-formula-group array caption body app-group floats-group sec-group textual-form",
    blocks.section: "sec treatment-sec notes ack",
    blocks.labelled: "boxed-text app",
    blocks.listing: "list",
    blocks.definitions: "def-list",
    blocks.figure: "fig table-wrap chem-struct-wrap media",
    blocks.figure_group: "fig-group table-wrap-group",
    blocks.speech: "speech",
    blocks.statement: "statement",
    blocks.verse: "verse-group",
    blocks.preformatted: "preformat code",
    inline.link: "xref",
    inline.superscript: "sup",
    inline.subscript: "sub",
    inline.named_part: "named-content taxon-name-part",
    inline.publication_id: "pub-id",
    inline.line_break: "break hr hsp",
    inline.formula: "inline-formula disp-formula math tex-math",
    _skip: "ref-list ref fn fn-group table-wrap-foot table-wrap-head permissions label object-id alt-text long-desc "
    "graphic inline-graphic supplementary-material sec-meta related-article related-object glossary author-notes aff "
    "contrib-group contrib index-term index-term-range-end private-char glyph-data glyph-ref kwd-group table "
    "processing-meta license copyright-statement address bio date pub-date history article-id counts custom-meta-group "
    "nomenclature-citation citation element-citation nlm-citation annotation speaker sub-article "
    "response front front-stub back fpage lpage strike trans-abstract funding-group award-group conference "
    "milestone-start milestone-end self-uri sig-block",
}
HANDLERS: ByName[Handler | None] = ByName(
    {name: handler for handler, names in _NAMES.items() for name in names.split()}, default=None, otherwise=_skip
)
_FLOATS: dict[Handler, Handler] = dict.fromkeys((blocks.figure, blocks.figure_group, blocks.labelled), _float)
LINE_HANDLERS: ByName[Handler | None] = ByName(
    {name: _FLOATS.get(handler, handler) for handler, names in _NAMES.items() for name in names.split()},
    default=None,
    otherwise=_skip,
)
"""The same within a line: what stands on its own does not end the sentence there."""
_BLOCKS = {handler for handler in _NAMES if handler.__module__ == blocks.__name__}
