"""A record of S2ORC as a minimal JATS article, so that the preprocess stage reads every source in the same way.

S2ORC gives one long text, as read from the PDF, and annotations: lists of character spans by kind. Title, abstract,
section headings and paragraphs become JATS elements, references in the text become links, and what is no prose (the
authors, the bibliography, tables, figures with their captions, formulas, the publisher) is cut out. Each character goes
to one element at most: what a title has is not in a paragraph again.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from xml.sax.saxutils import escape

FORMAT_VERSION = 1
"""Changes with what :func:`to_jats` writes, so that shards of an older form are made anew."""

Span = tuple[int, int]

_LINKS = {"bibref": "bibr", "figureref": "fig", "tableref": "table"}
_CUT = {"publisher", "venue", "figure", "figurecaption", "table", "formula"}
_CUT_PREFIXES = ("author", "bib")  # authorfirstname, authoraffiliation, bibentry, bibtitle, ...
# A text may have lost its last line break after it was annotated; an end further off belongs to another text.
_SLACK = 2
_BLANK_LINE = re.compile(r"\n\s*\n")
_LETTER = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,5}")
_OPENERS, _CLOSERS, _BETWEEN = "([{", ")]}", " ,;.\n"
_CONTROLS = bytes(set(range(32)) - {9, 10, 13})
_NONCHARACTERS = ("\ufffe".encode(), "\uffff".encode())


class BadAnnotations(ValueError):
    """The annotations do not fit the text, so nobody can say what of it is prose."""


@dataclass(frozen=True, slots=True)
class Jats:
    """A converted record; ``xml`` is empty where no prose is left."""

    title: str
    xml: bytes


def to_jats(
    text: str, annotations: Mapping[str, object], pmcid: str = "", pmid: str = "", doi: str = "", licence: str = ""
) -> Jats:
    """Turn the text of a record into JATS.

    Args:
        text: The record's ``content.text``.
        annotations: Its ``content.annotations``: by kind a JSON string of ``[{"start": n, "end": n}, ...]``, in
            characters of the text, or null.
        pmcid: PubMed Central id, such as ``PMC123``.
        pmid: PubMed id.
        doi: DOI.
        licence: Licence code, such as ``CC BY-NC``.

    Returns:
        The title as plain text, and the XML in UTF-8.

    Raises:
        BadAnnotations: A span is no pair of numbers, is negative or reversed, or reaches beyond the text.
    """
    layout = _Layout.read(text, annotations)
    body = "".join(layout.body())
    title = layout.plain(layout.title)
    if not body:
        return Jats(title, b"")
    ids = (("pmc", pmcid), ("pmid", pmid), ("doi", doi))
    parts = [
        "<article><front><article-meta>",
        *(f'<article-id pub-id-type="{kind}">{escape(value)}</article-id>' for kind, value in ids if value),
        f"<title-group><article-title>{layout.inline(layout.title)}</article-title></title-group>",
        f"<permissions><license><license-p>{escape(licence)}</license-p></license></permissions>" if licence else "",
        *_wrapped("abstract", "".join(f"<p>{layout.inline(span)}</p>" for span in layout.abstract)),
        f"</article-meta></front><body>{body}</body>",
        # Their number alone: the extraction needs it to tell a typed citation "[3]" from other numbers in brackets.
        *_wrapped("back", "".join(_wrapped("ref-list", "<ref/>" * layout.references))),
        "</article>",
    ]
    return Jats(title, _encode("".join(parts)))


def without_illegal_characters(text: str) -> str:
    """Return the text without what neither XML nor UTF-8 can hold: control characters, lone surrogates, U+FFFE/F."""
    return _encode(text).decode()


@dataclass(frozen=True)
class _Heading:
    span: Span
    number: str  # such as 2.1; "" where the heading has none

    def is_within(self, other: "_Heading") -> bool:
        return bool(other.number) and self.number.startswith(f"{other.number}.")


@dataclass(frozen=True)
class _Layout:
    """Which stretch of the text is what; no two of them overlap but ``cut`` and ``links``, which lie within others."""

    text: str
    title: Span
    abstract: list[Span]
    headings: list[_Heading]
    paragraphs: list[Span]
    cut: list[Span]
    links: list[tuple[int, int, str]]
    references: int

    @classmethod
    def read(cls, text: str, annotations: Mapping[str, object]) -> "_Layout":
        def spans(kind: str) -> list[Span]:
            return [span for span, _ in _read(annotations, kind, len(text))]

        titles = spans("title")
        title = titles[0] if titles else (0, 0)
        # A second title is the first again, in a running head or a line that says how to cite.
        kinds = [kind for kind in annotations if _is_cut(kind)]
        cut = _merge([*_without(titles[1:], [title]), *(span for kind in kinds for span in spans(kind))])
        claimed = _merge(titles)
        abstract = list(_split(text, _without(_apart(spans("abstract")), claimed)))
        claimed = _merge([*claimed, *abstract])
        headings = list(_headings(_read(annotations, "sectionheader", len(text)), claimed))
        claimed = _merge([*claimed, *(heading.span for heading in headings)])
        paragraphs = spans("paragraph")
        free = _without(_apart(paragraphs), claimed) if paragraphs else _unannotated(text, claimed, cut)
        links = [(*span, name) for kind, name in _LINKS.items() for span in spans(kind)]
        return cls(
            text=text,
            title=title,
            abstract=abstract,
            headings=headings,
            paragraphs=list(free),
            cut=cut,
            links=_outermost(links),
            references=len(spans("bibentry")),
        )

    def body(self) -> Iterator[str]:
        """Yield headings and paragraphs in the text's order, sections nested by their numbers; nothing if no prose."""
        blocks: list[_Heading | Span] = [*self.headings, *self.paragraphs]
        opened: list[_Heading] = []
        written = 0  # how many of the opened sections are in the markup: one without a paragraph never gets there
        for block in sorted(blocks, key=lambda each: each.span if isinstance(each, _Heading) else each):
            if isinstance(block, _Heading):
                while opened and not block.is_within(opened[-1]):
                    opened.pop()
                    if written > len(opened):
                        written -= 1
                        yield "</sec>"
                opened.append(block)
            elif _LETTER.search(self.plain(block)):
                yield from (f"<sec><title>{self.inline(each.span)}</title>" for each in opened[written:])
                written = len(opened)
                yield f"<p>{self.inline(block)}</p>"
        yield "</sec>" * written

    def plain(self, span: Span) -> str:
        """Return what a span says in one line, without what is cut out of it."""
        pieces = (self.text[start:end] for start, end in _without([span], self.cut))
        return " ".join(without_illegal_characters(" ".join(pieces)).split())

    def inline(self, span: Span) -> str:
        """Return the markup of a span: escaped text and links, without what is cut out of it."""
        return " ".join("".join(self._linked(piece)) for piece in _without([span], self.cut))

    def _linked(self, span: Span) -> Iterator[str]:
        position, stop = span
        first = max(0, bisect_right(self.links, (position,)) - 1)
        for start, end, kind in self.links[first : bisect_left(self.links, (stop,))]:
            start, end = max(start, position), min(end, stop)
            if start < end:
                yield escape(self.text[position:start])
                yield _link(self.text[start:end], kind)
                position = end
        yield escape(self.text[position:stop])


def _link(text: str, kind: str) -> str:
    """Return the markup of a link; brackets around a citation stay outside, where the extraction looks for them."""
    start, stop = 0, len(text)
    if kind == "bibr":
        while start < stop and text[start] in _OPENERS + _BETWEEN:
            start += 1
        while start < stop and _is_loose(text[start:stop]):
            stop -= 1
    if start == stop:
        return escape(text)
    return f'{escape(text[:start])}<xref ref-type="{kind}">{escape(text[start:stop])}</xref>{escape(text[stop:])}'


def _is_loose(text: str) -> bool:
    """Return whether the last character is punctuation, a blank or a bracket that was not opened in the text."""
    last = text[-1]
    return last in _BETWEEN or (last in _CLOSERS and text.count(last) > text.count(_OPENERS[_CLOSERS.index(last)]))


def _wrapped(name: str, inner: str) -> Iterator[str]:
    if inner:
        yield f"<{name}>{inner}</{name}>"


def _encode(text: str) -> bytes:
    data = text.encode("utf-8", "ignore").translate(None, _CONTROLS)
    for each in _NONCHARACTERS:
        data = data.replace(each, b"")
    return data


# ---- annotations ----------------------------------------------------------------------------------------------------


def _is_cut(kind: str) -> bool:
    return kind in _CUT or (kind.startswith(_CUT_PREFIXES) and kind not in _LINKS)


def _read(annotations: Mapping[str, object], kind: str, length: int) -> list[tuple[Span, object]]:
    """Return the spans of a kind in the text's order, with their attributes; empty ones are left out."""
    found = annotations.get(kind)
    try:
        entries = json.loads(found) if isinstance(found, str) and found else found
    except (ValueError, RecursionError) as error:
        raise BadAnnotations(f"{kind} is no JSON: {str(found)[:60]!a}") from error
    if not entries:
        return []
    if not isinstance(entries, list):
        raise BadAnnotations(f"{kind} is no list: {str(found)[:60]!a}")
    spans = [(_span(entry, kind, length), entry.get("attributes")) for entry in entries]
    return sorted(((span, more) for span, more in spans if span[0] < span[1]), key=itemgetter(0))


def _span(entry: object, kind: str, length: int) -> Span:
    if isinstance(entry, dict):
        start, end = entry.get("start"), entry.get("end")
        if type(start) is int and type(end) is int and 0 <= start <= end <= length:
            return start, end
        start, end = _whole(start), _whole(end)
        if start is not None and end is not None and 0 <= start <= end <= length + _SLACK:
            return min(start, length), min(end, length)
    raise BadAnnotations(f"{kind} has {str(entry)[:60]!a} in a text of {length} characters")


def _whole(value: object) -> int | None:
    """Return the number; some releases write it as a string."""
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _headings(found: list[tuple[Span, object]], claimed: list[Span]) -> Iterator[_Heading]:
    covered = 0
    for (start, end), attributes in found:
        for piece in _without([(max(start, covered), end)], claimed):
            yield _Heading(piece, _section_number(attributes))
        covered = max(covered, end)


def _section_number(attributes: object) -> str:
    number = attributes.get("n") if isinstance(attributes, dict) else None
    found = _NUMBER.fullmatch(number.strip().rstrip(".")) if isinstance(number, str) else None
    return found[0] if found else ""


# ---- spans ----------------------------------------------------------------------------------------------------------


def _merge(spans: Iterable[Span]) -> list[Span]:
    """Return spans that cover the same and neither overlap nor touch, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _apart(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield sorted spans, each without what one before it has."""
    covered = 0
    for start, end in spans:
        if end > covered:
            yield max(start, covered), end
            covered = end


def _without(spans: Iterable[Span], taken: list[Span]) -> Iterator[Span]:
    """Yield what is left of the spans outside ``taken``, which is merged."""
    for start, end in spans:
        for cut_start, cut_end in taken[max(0, bisect_right(taken, (start,)) - 1) : bisect_left(taken, (end,))]:
            if cut_start > start:
                yield start, cut_start
            start = max(start, cut_end)
        if start < end:
            yield start, end


def _outermost(links: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Return the links that do not begin within another one."""
    kept: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(links, key=lambda link: (link[0], -link[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, kind))
    return kept


def _split(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the paragraphs of spans, which blank lines divide."""
    for start, end in spans:
        for gap in _BLANK_LINE.finditer(text, start, end):
            if start < gap.start():
                yield start, gap.start()
            start = gap.end()
        if start < end:
            yield start, end


def _unannotated(text: str, claimed: list[Span], cut: list[Span]) -> Iterator[Span]:
    """Yield paragraphs of a text without paragraph annotations: what no annotation claims, divided by blank lines."""
    yield from _split(text, _without([(0, len(text))], _merge([*claimed, *cut])))
