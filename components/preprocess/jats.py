"""JATS articles as clean text, in one pass over the lxml tree.

Element names are read without their namespace, so JATS, NLM 2.3 and NLM 3.0 go the same way. What an element means
stands in one table, `_HANDLERS`: a function for what needs care, nothing for inline markup, which passes its text on.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from lxml import etree

from components.preprocess import formula
from components.preprocess.back_matter import is_dropped
from components.preprocess.jats_metadata import Metadata, read_metadata
from components.preprocess.safe_xml import ArticleError, all_text, parse
from components.preprocess.settings import ExtractSettings
from components.preprocess.text import NUMBER, cite, has_citation, has_plain_citation, tidy, without_plain_citations

__all__ = ["Article", "ArticleError", "extract"]


@dataclass(frozen=True)
class Article:
    """One article as text, with what is known of it; "" and 0 stand for unknown."""

    title: str
    text: str  # title, abstract, body: blocks separated by blank lines
    language: str  # as declared, two letters, lower case
    article_type: str
    journal: str
    year: int
    licence: str
    doi: str
    pmid: str
    pmcid: str
    sections: int  # titled sections kept
    repairs: tuple[str, ...] = ()  # what was mended in the XML


def extract(xml: bytes, settings: ExtractSettings) -> Article:
    """Turn the XML of one article into clean text.

    Args:
        xml: The bytes of a JATS or NLM article; nothing in them is trusted.
        settings: What becomes text.

    Returns:
        The article.

    Raises:
        ArticleError: Its `reason` is one of not-xml, malformed-xml, truncated-xml, entity-declarations,
            unknown-entity, unknown-encoding, too-large, too-deep, not-jats, no-body,
            escaped-html.
    """
    root, repairs = parse(xml, settings.max_bytes)
    article = _find_article(root)
    parts = {_name(child): child for child in reversed(article) if isinstance(child.tag, str)}
    body = parts.get("body")
    if body is None:
        raise ArticleError("no-body", f"it has {', '.join(_name(child) for child in article)}"[:200])
    metadata = read_metadata(article)
    walker = _Walker(settings, article)
    try:
        title = walker.title(metadata)
        text = _text(walker, title, metadata, parts)
    except RecursionError as error:
        raise ArticleError("too-deep", "elements are nested too deeply") from error
    return Article(
        title=title,
        text=text,
        language=metadata.language,
        article_type=metadata.article_type,
        journal=tidy(metadata.journal),
        year=metadata.year,
        licence=metadata.licence,
        doi=metadata.doi,
        pmid=metadata.pmid,
        pmcid=metadata.pmcid,
        sections=walker.sections,
        repairs=repairs,
    )


def _find_article(root: etree._Element) -> etree._Element:
    """Return the article: the root, or the one article in an OAI or search answer around it."""
    if _name(root) == "article":
        return root
    articles = root.findall(".//{*}article")
    if len(articles) != 1:
        raise ArticleError("not-jats", f"the root is <{_name(root)[:60]}> and holds {len(articles)} articles")
    return articles[0]


def _text(walker: "_Walker", title: str, metadata: Metadata, parts: dict[str, etree._Element]) -> str:
    if walker.settings.abstract:
        for abstract in metadata.abstracts:
            walker.abstract(abstract)
    before_body = len(walker.blocks)
    walker.walk(parts["body"])
    if len(walker.blocks) == before_body:
        raise ArticleError("no-body", "the body holds no text")
    if sum(len(_ESCAPED_HTML.findall(block)) for block in walker.blocks if "</" in block) > _MAX_ESCAPED_TAGS:
        raise ArticleError("escaped-html", "the body is a web page in a text node")
    if "floats-group" in parts:
        walker.walk(parts["floats-group"])
    if walker.settings.appendices and "back" in parts:
        for appendix in parts["back"].iterfind(".//{*}app"):
            walker.walk(appendix)
    if walker.settings.sub_articles:
        walker.sub_articles()
    return "\n\n".join([title, *walker.blocks] if title else walker.blocks)


class _Walker:
    """Collects the blocks (titles, paragraphs, captions, lists) of an article."""

    def __init__(self, settings: ExtractSettings, article: etree._Element) -> None:
        self.settings = settings
        self.article = article
        self.blocks: list[str] = []
        self.sections = 0
        self._reference_ids: frozenset[str] | None = None
        self._references: int | None = None
        self.linked_citations = False

    def title(self, metadata: Metadata) -> str:
        """Return the article's title with its subtitle."""
        titles = [self.line(element) for element in metadata.titles]
        main, *rest = [title for title in titles if title] or [""]
        return ": ".join([main.rstrip(":"), *rest]) if rest else main

    def abstract(self, element: etree._Element) -> None:
        """Add an abstract under its own heading, or under `Abstract` when the main one has none."""
        before = len(self.blocks)
        headed = any(_name(child) == "title" and all_text(child).strip() for child in element)
        self.walk(element)
        if len(self.blocks) > before and not headed and not element.get("abstract-type"):
            self.blocks.insert(before, "Abstract")

    def sub_articles(self) -> None:
        """Add the reviews, replies and translations of the article."""
        for child in self.article:
            if _name(child) in ("sub-article", "response"):
                title = child.find(".//{*}article-title")
                body = child.find("{*}body")
                if title is not None and body is not None:
                    self.add(self.line(title))
                if body is not None:
                    self.walk(body)

    def walk(self, parent: etree._Element) -> None:
        """Add the blocks of an element that holds blocks; loose text and inline markup become paragraphs."""
        out: list[str] = []
        text = parent.text
        if text and not text.isspace():
            out.append(text)
        for child in parent:
            handler = _HANDLERS[child.tag]
            if handler is _paragraph:
                self.flush(out)
                self.inline(child, out)
                self.flush(out)
            elif handler is not None:
                handler(self, child, out)
            elif _is_container(child):
                self.flush(out)
                self.walk(child)
            else:
                self.inline(child, out)
            tail = child.tail
            if tail and not tail.isspace():
                out.append(tail)
        self.flush(out)

    def inline(self, element: etree._Element, out: list[str]) -> None:
        """Append the text of an element to a line; blocks inside it end the line and stand on their own."""
        text = element.text
        if text:
            out.append(text)
        for child in element:
            handler = _HANDLERS[child.tag]
            if handler is not None:
                handler(self, child, out)
            else:
                self.inline(child, out)
            tail = child.tail
            if tail:
                out.append(tail)

    def flush(self, out: list[str]) -> None:
        """End the line: make it a block if it says anything."""
        if out:
            text = "".join(out)
            out.clear()
            self.add(self.clean(text))

    def add(self, block: str) -> None:
        """Add a block unless it holds no letter or digit, or is an identifier, as eLife has under each figure."""
        if block.startswith(("DOI", "doi", "http")) and _IDENTIFIER.fullmatch(block):
            return
        if block and (block[0].isalnum() or any(map(str.isalnum, block))):
            self.blocks.append(block)

    def clean(self, text: str) -> str:
        """Tidy a line; typed citations go too where the article does not link its citations."""
        if not self.linked_citations and has_plain_citation(text):
            text = without_plain_citations(text, self.references)
        return tidy(text)

    def line(self, element: etree._Element) -> str:
        """Return all text of an element as one clean line, blocks within it joined."""
        return " ".join(self.apart(element))

    def apart(self, element: etree._Element) -> list[str]:
        """Return the blocks of an element instead of adding them."""
        outer, self.blocks = self.blocks, []
        try:
            self.walk(element)
            return self.blocks
        finally:
            self.blocks = outer

    @property
    def reference_ids(self) -> frozenset[str]:
        """The ids of the entries of the reference list."""
        if self._reference_ids is None:
            self._reference_ids = frozenset(ref.get("id", "") for ref in self.article.iter("{*}ref")) - {""}
        return self._reference_ids

    @property
    def references(self) -> int:
        """How many entries the article's reference lists hold."""
        if self._references is None:
            lists = self.article.iterfind("{*}back/{*}ref-list")
            self._references = sum(_name(entry) == "ref" for reference_list in lists for entry in reference_list)
        return self._references


# ---- what the elements mean -----------------------------------------------------------------------------------------


def _skip(_walker: _Walker, _element: etree._Element, _out: list[str]) -> None:
    """Drop the element with all it holds."""


def _break(_walker: _Walker, _element: etree._Element, out: list[str]) -> None:
    out.append(" ")


def _paragraph(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    walker.flush(out)
    walker.inline(element, out)
    walker.flush(out)


def _block(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    walker.flush(out)
    walker.walk(element)


def _section(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    walker.flush(out)
    title = next((child for child in element if _name(child) == "title"), None)
    heading = "" if title is None else all_text(title)
    if is_dropped(element.get("sec-type", ""), heading, walker.settings):
        return
    before = len(walker.blocks)
    walker.walk(element)
    if title is None or not heading.strip() or len(walker.blocks) == before:
        return
    if len(walker.blocks) == before + 1 and walker.blocks[-1] == walker.line(title):
        walker.blocks.pop()  # all under the heading was dropped
    else:
        walker.sections += 1


def _link(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    kind = element.get("ref-type")
    if not kind or kind == "other":
        kind = "bibr" if (element.get("rid") or "").partition(" ")[0] in walker.reference_ids else "other"
    if kind in _CITATIONS:
        walker.linked_citations = True
        inner: list[str] = []
        walker.inline(element, inner)
        out.append(cite("".join(inner)))
    elif kind not in _NOTE_LINKS:
        walker.inline(element, out)


def _superscript(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    inner: list[str] = []
    walker.inline(element, inner)
    text = "".join(inner)
    before = out[-1][-40:] if out else ""
    if has_citation(text):
        out.append(text if any(map(str.isalpha, text)) else NUMBER)
    elif _NUMBERS.fullmatch(text) and _CITABLE.search(before):
        out.append(NUMBER)
    elif (before[-1:].isdigit() and _EXPONENT.fullmatch(text.strip())) or (before[-1:] in ")]" and text in ("2", "3")):
        out.append("^" + text.strip().replace("−", "-").replace("–", "-"))
    else:
        out.append(text)


def _list(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    walker.flush(out)
    ordered = element.get("list-type") in ("order", "number", "arabic")
    lines: list[str] = []
    number = 0
    for child in element:
        name = _name(child)
        if name == "list-item":
            number += 1
            label = next((_bare(item) for item in child if _name(item) == "label"), "")
            bullet = label if re.search(r"\w", label) else f"{number}." if ordered else "-"
            lines += _item(bullet, walker.apart(child))
        elif name == "title":
            walker.add(walker.line(child))
    if lines:
        walker.blocks.append("\n".join(lines))


def _item(bullet: str, blocks: list[str]) -> list[str]:
    """Return the lines of a list item: its paragraphs on one line, lists within it indented below."""
    lines = [bullet + " " + " ".join(block for block in blocks if not _IS_LIST.match(block))]
    nested = [block for block in blocks if _IS_LIST.match(block)]
    lines += ["  " + line for block in nested for line in block.split("\n")]
    return [line for line in lines if line.strip() != bullet]


def _definitions(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    walker.flush(out)
    lines = []
    for child in element:
        if _name(child) == "def-item":
            parts = [walker.line(part) for part in child if _name(part) in ("term", "def")]
            term, *rest = [part for part in parts if part] or [""]
            lines.append(": ".join([term.rstrip(":"), " ".join(rest)]) if rest else term)
        elif _name(child) in ("title", "def-list"):
            walker.add(walker.line(child))
    if any(lines):
        walker.blocks.append("\n".join(filter(None, lines)))


def _figure(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    """Write `Figure 1. Title. Caption`, and a table's rows if tables are wanted."""
    walker.flush(out)
    is_table = _name(element).startswith("table")
    if walker.settings.captions:
        label, captions = "", []
        for child in element:
            name = _name(child)
            if name == "label":
                label = tidy(_bare(child)).rstrip(" .:-–—")
            elif name == "caption":
                captions += walker.apart(child)
        caption = _sentences(captions)
        if caption:
            walker.add(f"{label}. {caption}" if label else caption)
    for child in element if is_table and walker.settings.tables else ():
        for table in [child] if _name(child) == "table" else child.iterfind("{*}table"):
            _table(walker, table)


def _table(walker: _Walker, table: etree._Element) -> None:
    rows = []
    for row in table.iter("{*}tr"):
        cells = [walker.line(cell) for cell in row]
        if any(cells):
            rows.append(" | ".join(cells))
    if rows:
        walker.blocks.append("\n".join(rows))


def _figure_group(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    _figure(walker, element, out)
    for child in element:
        if _name(child) in ("fig", "table-wrap"):
            _figure(walker, child, out)


def _formula(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    text = _formula_text(walker, element)
    if not text:
        return
    inline = _name(element) == "inline-formula" or (_name(element) == "math" and element.get("display") != "block")
    out.append(text if inline else f" {text} ")


def _formula_text(walker: _Walker, element: etree._Element) -> str:
    wanted = walker.settings.formulas
    if wanted == "drop":
        return ""
    math = next(element.iter("{*}math"), None)
    tex = next(element.iter("{*}tex-math"), None)
    if tex is not None and (math is None or wanted == "tex"):
        body = formula.tex_body(all_text(tex))
        plain = formula.plain_tex(body)
        return plain if wanted == "text" and "\\" not in plain else body  # half of each would be neither
    if math is not None:
        return formula.mathml_text(math)
    inner: list[str] = []
    walker.inline(element, inner)
    return "".join(inner).strip()


def _speech(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    walker.flush(out)
    speaker = next((walker.line(child) for child in element if _name(child) == "speaker"), "")
    said = " ".join(walker.line(child) for child in element if _name(child) == "p")
    walker.add(f"{speaker.rstrip(':')}: {said}" if speaker else said)


def _statement(walker: _Walker, element: etree._Element, out: list[str]) -> None:
    """A theorem or the like: its label is its name."""
    walker.flush(out)
    walker.add(" ".join(tidy(_bare(child)) for child in element if _name(child) == "label"))
    walker.walk(element)


# ---- names ----------------------------------------------------------------------------------------------------------


def _name(element: etree._Element) -> str:
    """Return the element's name without namespace."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _bare(element: etree._Element) -> str:
    return all_text(element).strip()


def _is_container(element: etree._Element) -> bool:
    """Return whether an element of unknown meaning holds blocks."""
    return any(_HANDLERS[child.tag] in _BLOCKS for child in element)


def _sentences(blocks: list[str]) -> str:
    """Join blocks into one line, ending each with a full stop."""
    return " ".join(block if block[-1] in ".!?:;)" else block + "." for block in blocks if block)


_Handler = Callable[[_Walker, etree._Element, list[str]], None] | None


class _Handlers(dict[object, _Handler]):
    """Finds the handler of a tag, with or without namespace."""

    def __missing__(self, tag: object) -> _Handler:
        handler = self.get(tag.rpartition("}")[2]) if isinstance(tag, str) else _skip
        if len(self) < 5000:  # strange tags must not fill the memory of a long run
            self[tag] = handler
        return handler


_NAMES = {
    _paragraph: "p title subtitle attrib verse-line",
    _block: "disp-quote boxed-text list-item def verse-group question answer explanation question-wrap answer-set "
    "disp-formula-group array caption body app app-group floats-group sec-group preformat code textual-form",
    _section: "sec treatment-sec notes ack",
    _link: "xref",
    _superscript: "sup",
    _break: "break hr",
    _list: "list",
    _definitions: "def-list",
    _figure: "fig table-wrap chem-struct-wrap media",
    _figure_group: "fig-group table-wrap-group",
    _formula: "inline-formula disp-formula math tex-math",
    _speech: "speech",
    _statement: "statement",
    _skip: "ref-list ref fn fn-group table-wrap-foot table-wrap-head permissions label object-id alt-text long- "
    "desc graphic inline-graphic supplementary-material sec-meta related-article related-object glossary "
    "author-notes aff contrib-group contrib index-term index-term-range-end private-char glyph-data "
    "glyph-ref kwd-group table processing-meta license copyright-statement address bio date pub-date "
    "history article-id counts custom-meta-group nomenclature-citation citation element-citation mixed- "
    "citation nlm-citation annotation speaker sub-article response front front-stub back fpage lpage "
    "strike trans-abstract funding-group award-group conference milestone-start milestone-end self-uri",
}
_HANDLERS = _Handlers({name: handler for handler, names in _NAMES.items() for name in names.split()})
_BLOCKS = {_paragraph, _block, _section, _list, _definitions, _figure, _figure_group, _speech, _statement}

_CITATIONS = {"bibr", "ref", "bib", "bibref", "citation"}
_NOTE_LINKS = {"fn", "table-fn", "author-notes", "aff", "corresp", "contrib"}
_NUMBERS = re.compile(r"\s*\[?\(?[1-9]\d{0,2}(?:\s*[,;–—−‐-]\s*[1-9]\d{0,2})*\)?\]?\s*")
_CITABLE = re.compile(r"(?:[a-z]{5,}|[.,;])$")
_EXPONENT = re.compile(r"[-−–+]?\d*(?:\.\d+)?[+−-]?")
_IDENTIFIER = re.compile(r"(?:doi:? *)?(?:https?://(?:dx\.)?doi\.org/)?10\.\d{4,9}/\S+", re.IGNORECASE)
_ESCAPED_HTML = re.compile(r"</(?:p|td|tr|font|div|small|li|strong)>", re.IGNORECASE)
_MAX_ESCAPED_TAGS = 20
_IS_LIST = re.compile(r"\S+ .*\n|- ", re.DOTALL)
