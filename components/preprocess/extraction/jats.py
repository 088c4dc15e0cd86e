"""JATS articles as clean text, in one pass over the lxml tree: what comes first and what comes after."""

import re
from dataclasses import dataclass

from lxml import etree

from components.preprocess.extraction.back_matter import walk_back
from components.preprocess.extraction.jats_metadata import Metadata, read_metadata
from components.preprocess.extraction.safe_xml import ArticleError, local_name, parse
from components.preprocess.extraction.text import tidy
from components.preprocess.extraction.unread import Trimmed, trim
from components.preprocess.extraction.walker import Walker
from components.preprocess.settings import ExtractSettings

__all__ = ["Article", "ArticleError", "extract"]

_ESCAPED_HTML = re.compile(r"</(?:p|td|tr|font|div|small|li|strong)>", re.IGNORECASE)
_MAX_ESCAPED_TAGS = 20


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
    trimmed, root, repairs = _parsed(xml, settings)
    article = _find_article(root)
    parts = {local_name(child): child for child in reversed(article)}
    if "body" not in parts:
        raise ArticleError("no-body", f"it has {', '.join(local_name(child) for child in article)}"[:200])
    metadata = read_metadata(article)
    walker = Walker(settings, article, trimmed)
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


def _parsed(xml: bytes, settings: ExtractSettings) -> tuple[Trimmed, etree._Element, tuple[str, ...]]:
    """Parse an article without what nobody reads, or whole if that fails: the fault is to be told of the whole file."""
    trimmed = trim(xml, settings)
    if len(trimmed.xml) < len(xml) <= settings.max_bytes:
        try:
            return trimmed, *parse(trimmed.xml, settings.max_bytes)
        except ArticleError as error:
            if error.reason == "entity-declarations":
                raise
    return Trimmed(xml), *parse(xml, settings.max_bytes)


def _find_article(root: etree._Element) -> etree._Element:
    """Return the article: the root, or the one article in an OAI or search answer around it."""
    if local_name(root) == "article":
        return root
    articles = root.findall(".//{*}article")
    if len(articles) != 1:
        raise ArticleError("not-jats", f"the root is <{local_name(root)[:60]}> and holds {len(articles)} articles")
    return articles[0]


def _text(walker: Walker, title: str, metadata: Metadata, parts: dict[str, etree._Element]) -> str:
    if walker.settings.abstract:
        for abstract in metadata.abstracts:
            walker.abstract(abstract)
    before_body = len(walker.blocks)
    walker.walk(parts["body"])
    walker.settle()
    if len(walker.blocks) == before_body:
        raise ArticleError("no-body", "the body holds no text")
    if sum([len(_ESCAPED_HTML.findall(block)) for block in walker.blocks if "<" in block]) > _MAX_ESCAPED_TAGS:
        raise ArticleError("escaped-html", "the body is a web page in a text node")
    if "floats-group" in parts:
        walker.walk(parts["floats-group"])
    walk_back(walker, walker.article, parts.get("back"))
    if walker.settings.sub_articles:
        _add_sub_articles(walker, walker.article)
    walker.settle()
    return "\n\n".join([title, *walker.blocks] if title else walker.blocks)


def _add_sub_articles(walker: Walker, article: etree._Element) -> None:
    """Add the reviews, replies and translations that an article carries, and what they carry in turn."""
    for child in article:
        if local_name(child) in ("sub-article", "response"):
            metadata = read_metadata(child)
            with walker.under(walker.title(metadata)):
                _add_parts(walker, child, metadata)
            _add_sub_articles(walker, child)


def _add_parts(walker: Walker, article: etree._Element, metadata: Metadata) -> None:
    if walker.settings.abstract:
        for abstract in metadata.abstracts:
            walker.abstract(abstract)
    for child in article:
        if local_name(child) in ("body", "floats-group"):
            walker.walk(child)
    walk_back(walker, article, article.find("{*}back"))
