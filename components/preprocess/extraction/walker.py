"""One pass over the tree of an article: its blocks (titles, paragraphs, captions, lists), clean and in order.

What an element means is not decided here but in `elements`, by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from lxml import etree

from components.preprocess.extraction.blocks import Lines
from components.preprocess.extraction.citations import has_plain_citation, without_plain_citations
from components.preprocess.extraction.elements import HANDLERS, LINE_HANDLERS, is_container, paragraph
from components.preprocess.extraction.jats_metadata import Metadata
from components.preprocess.extraction.safe_xml import ArticleError, all_text, local_name
from components.preprocess.extraction.text import all_polished, polished, says_something, uncited
from components.preprocess.extraction.unread import Trimmed
from components.preprocess.settings import ExtractSettings

_DEEPEST = 32


class Walker:
    """Collects the blocks of an article.

    Attributes:
        settings: What becomes text.
        article: The article's element.
        blocks: What was collected so far; what stands on its own is not polished before `settle`.
        sections: Titled sections kept so far.
        floats: Figures and boxes within a paragraph: they are written behind it.
        linked_citations: Whether a linked citation was seen; typed ones are then left alone.
    """

    def __init__(self, settings: ExtractSettings, article: etree._Element, trimmed: Trimmed) -> None:
        """Begin with no blocks."""
        self.settings = settings
        self.article = article
        self._trimmed = trimmed
        self.blocks: list[str] = []
        self.sections = 0
        self.linked_citations = False
        self.floats: list[etree._Element] = []
        self._depth = 0
        self._known: set[str] = set()
        self._known_blocks = 0
        self._settled = 0
        self._reference_ids: frozenset[str] | None = None
        self._references: int | None = None

    def title(self, metadata: Metadata) -> str:
        """Return the article's title with its subtitle."""
        titles = [self.line(element) for element in metadata.titles]
        main, *rest = [title for title in titles if title] or [""]
        return ": ".join([main.rstrip(":"), *rest]) if rest else main

    def abstract(self, element: etree._Element) -> None:
        """Add an abstract under its own heading, or under `Abstract` when the main one has none."""
        headed = any(local_name(child) == "title" and all_text(child).strip() for child in element)
        with self.under("" if headed or element.get("abstract-type") else "Abstract"):
            self.walk(element)

    @contextmanager
    def under(self, heading: str) -> Iterator[None]:
        """Put a heading before what is added in the meantime, if anything is."""
        before = len(self.blocks)
        yield
        if heading and len(self.blocks) > before:
            self.blocks.insert(before, heading)

    def walk(self, parent: etree._Element) -> None:
        """Add the blocks of an element that holds blocks; loose text and inline markup become paragraphs."""
        out: list[str] = []
        text = parent.text
        if text and not text.isspace():
            out.append(text)
        for child in parent:
            handler = HANDLERS[child.tag]
            if handler is paragraph:
                if out or self.floats:
                    self.flush(out)
                self.inline(child, out)
                self.flush(out)
            elif handler is not None:
                handler(self, child, out)
            elif is_container(child):
                self.flush(out)
                self.walk(child)
            else:
                self.inline(child, out)
            tail = child.tail
            if tail and not tail.isspace():
                out.append(tail)
        self.flush(out)

    def write(self, element: etree._Element) -> None:
        """Add one element with what it means itself, not only what it holds."""
        handler = HANDLERS[element.tag]
        if handler is None:
            self.walk(element)
        else:
            handler(self, element, [])

    def inline(self, element: etree._Element, out: list[str]) -> None:
        """Append the text of an element to a line; blocks inside it end the line, figures wait for its end."""
        text = element.text
        if text:
            out.append(text)
        for child in element:
            handler = LINE_HANDLERS[child.tag]
            if handler is not None:
                handler(self, child, out)
            elif len(child):
                self.inline(child, out)
            elif child.text:
                out.append(child.text)
            tail = child.tail
            if tail:
                out.append(tail)

    def flush(self, out: list[str]) -> None:
        """End the line: make it a block if it says anything; then come the figures that stood in it."""
        if out:
            text = "".join(out)
            out.clear()
            if not self.linked_citations and has_plain_citation(text):
                text = without_plain_citations(text, self.references)
            text = uncited(text)
            self.add(polished(text) if self._depth else text)
        if self.floats:
            floats, self.floats = self.floats, []
            for element in floats:
                self.write(element)

    def add(self, block: str) -> None:
        """Add a block if it says something."""
        if says_something(block):
            self.blocks.append(block)

    def settle(self) -> None:
        """Polish the blocks added since the last time: all at once, for what has a fault is found so much faster."""
        new = self.blocks[self._settled :]
        if not new:
            return
        lines = ["-" if isinstance(block, Lines) else block for block in new]  # theirs are polished one by one
        polished_lines = all_polished(lines)
        if polished_lines != lines:
            self.blocks[self._settled :] = [
                block if line == before else line
                for block, before, line in zip(new, lines, polished_lines, strict=True)
                if line == before or says_something(line)
            ]
        self._settled = len(self.blocks)

    def line(self, element: etree._Element) -> str:
        """Return all text of an element as one clean line, blocks within it joined."""
        return " ".join(self.apart(element))

    def apart(self, element: etree._Element) -> list[str]:
        """Return the blocks of an element instead of adding them."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ArticleError("too-deep", f"lists, boxes or tables within one another are more than {_DEEPEST} deep")
        outer, self.blocks = self.blocks, []
        waiting, self.floats = self.floats, []
        self.walk(element)
        found, self.blocks, self.floats = self.blocks, outer, waiting
        self._depth -= 1
        return found

    def known(self) -> set[str]:
        """Return the texts of the blocks so far."""
        self.settle()
        self._known.update(self.blocks[self._known_blocks :])
        self._known_blocks = len(self.blocks)
        return self._known

    @property
    def reference_ids(self) -> frozenset[str]:
        """The ids of the entries of the reference list."""
        if self._reference_ids is None:
            left = frozenset(ref.get("id", "") for ref in self.article.iter("{*}ref")) - {""}
            self._reference_ids = left | self._trimmed.reference_ids
        return self._reference_ids

    @property
    def references(self) -> int:
        """How many entries the article's reference lists hold."""
        if self._references is None:
            self._references = sum(1 for _ in self.article.iter("{*}ref")) + self._trimmed.reference_count
        return self._references
