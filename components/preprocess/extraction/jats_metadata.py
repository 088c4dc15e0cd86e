"""What a JATS article says about itself: identifiers, journal, year, licence, title and abstracts."""

import re
from dataclasses import dataclass, field

from lxml import etree

from components.preprocess.extraction.safe_xml import all_text, child_named, local_name

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_HREF = "{http://www.w3.org/1999/xlink}href"
_LICENCE_URL = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/(\d\.\d))?", re.IGNORECASE)
_CC_TEXT = re.compile(r"creative\s+commons(.{0,80}?)licen[cs]e", re.IGNORECASE | re.DOTALL)
_CC_SHORT = re.compile(r"\bCC[ -](BY(?:-NC)?(?:-(?:ND|SA))?)\b(?:[ -](\d\.\d))?")
# Teasers repeat a sentence of the article; graphical abstracts are pictures.
_DROPPED_ABSTRACTS = {"graphical", "toc", "teaser", "precis", "short", "web-summary", "ascii", "video", "object-slides"}


@dataclass
class Metadata:
    """What the front matter says; "" and 0 stand for unknown."""

    article_type: str = ""
    language: str = ""
    journal: str = ""
    year: int = 0
    licence: str = ""
    doi: str = ""
    pmid: str = ""
    pmcid: str = ""
    titles: list[etree._Element] = field(default_factory=list)
    abstracts: list[etree._Element] = field(default_factory=list)


def read_metadata(article: etree._Element) -> Metadata:
    """Read the front matter of an article or sub-article (JATS, NLM 2.3 or 3.0)."""
    metadata = Metadata(
        article_type=(article.get("article-type") or "").strip().lower(),
        language=re.split("[-_]", (article.get(_XML_LANG) or "").strip().lower())[0],
    )
    front = child_named(article, "front")
    if front is None:
        stub = child_named(article, "front-stub")  # of a review or a reply
        if stub is not None:
            _read_article_meta(stub, metadata)
        return metadata
    journal = child_named(front, "journal-meta")
    if journal is not None:
        metadata.journal = _text(next(journal.iter("{*}journal-title"), None))
    meta = child_named(front, "article-meta")
    if meta is not None:
        _read_article_meta(meta, metadata)
    return metadata


def _read_article_meta(meta: etree._Element, metadata: Metadata) -> None:
    years: dict[bool, list[int]] = {True: [], False: []}
    for child in meta:
        name = local_name(child)
        if name == "article-id":
            _read_id(child, metadata)
        elif name == "title-group":
            metadata.titles = [*child.iterfind("{*}article-title"), *child.iterfind("{*}subtitle")]
        elif name == "abstract":
            if (child.get("abstract-type") or "").lower() not in _DROPPED_ABSTRACTS:
                metadata.abstracts.append(child)
        elif name == "pub-date":
            year = _text(child_named(child, "year"))
            if re.fullmatch(r"(?:1[6-9]|20)\d\d", year):
                kind = (child.get("pub-type") or child.get("date-type") or "").lower()
                years[not kind.startswith(("pmc", "nihms"))].append(int(year))
        elif name in ("permissions", "copyright-statement", "license"):
            metadata.licence = metadata.licence or _licence(child)
    # The date of deposit in an archive says little about the article; the first printing or posting does.
    metadata.year = min(years[True] or years[False] or [0])


def _read_id(element: etree._Element, metadata: Metadata) -> None:
    value = _text(element)
    kind = element.get("pub-id-type")
    if kind == "doi":
        metadata.doi = value
    elif kind == "pmid":
        metadata.pmid = value
    elif kind in ("pmc", "pmcid") and value:
        metadata.pmcid = value.upper() if value.upper().startswith("PMC") else f"PMC{value}"


def _licence(permissions: etree._Element) -> str:
    """Return the licence in short (`CC BY 4.0`, `CC0 1.0`); "" when it is not a Creative Commons one."""
    links = filter(None, (element.get(_HREF) for element in permissions.iter()))
    text = all_text(permissions)
    for candidate in (*links, text):
        found = _LICENCE_URL.search(candidate)
        if found:
            code = found[2].lower()
            short = "CC0" if code == "zero" else f"CC {code.upper()}" if found[1] == "licenses" else "Public domain"
            return f"{short} {found[3]}" if found[3] else short
    short_name = _CC_SHORT.search(text)
    if short_name:
        return " ".join(filter(None, ("CC", short_name[1], short_name[2])))
    return _licence_in_words(text)


def _licence_in_words(text: str) -> str:
    named = _CC_TEXT.search(text)
    if not named:
        return "CC0" if re.search(r"\bCC0\b|Creative Commons (?:CC0 )?public domain", text, re.IGNORECASE) else ""
    words = named[1].lower()
    if "public domain" in words or "zero" in words or "cc0" in words:
        return "CC0"
    parts = ["BY"]
    for pattern, part in (("non-?\\s?commercial", "NC"), ("no-?\\s?deriv", "ND"), ("share-?\\s?alike", "SA")):
        if re.search(pattern, words):
            parts.append(part)
    return "CC " + "-".join(parts)


def _text(element: etree._Element | None) -> str:
    return "" if element is None else " ".join(all_text(element).split())
