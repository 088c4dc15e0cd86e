"""What an article says about the paper rather than about its subject: funding, interests, thanks, supplements.

It stands anywhere: in sections of the body, behind the body, in footnotes behind it or to the authors' names, in the
front matter. Two functions say what goes; `walk_back` fetches what the settings want of it, each text once.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from lxml import etree

from components.preprocess.extraction.safe_xml import all_text, child_named, local_name
from components.preprocess.settings import ExtractSettings

if TYPE_CHECKING:
    from components.preprocess.extraction.walker import Walker

Subject = Literal["", "thanks", "data", "appendix", "other"]
"""What a section is about: "" the article's own subject, "thanks" acknowledgements, funding and conflicts, ..."""


def is_dropped(section: etree._Element, title: str, settings: ExtractSettings) -> bool:
    """Return whether a section of the body goes, with all it holds.

    Args:
        section: A section; its name and its `sec-type` count where its title says nothing.
        title: Its heading, as it stands. Only whole headings count: `Funding of trials by industry` is no `Funding`.
        settings: May keep some kinds and name further titles.
    """
    if settings.drop_sections and _plain(title) in _plain_titles(settings.drop_sections):
        return True
    subject = subject_of(_kind(section), title)
    return subject in ("thanks", "data", "other") and not _is_wanted(subject, settings)


def walk_wanted(walker: "Walker", section: etree._Element) -> None:
    """Add the sections within a dropped one that the settings want all the same."""
    if not (walker.settings.acknowledgements or walker.settings.data_availability):
        return
    for child in section:
        if local_name(child) in _SECTIONS:
            subject = subject_of(_kind(child), _title(child))
            if _is_wanted(subject, walker.settings):
                walker.write(child)
            else:
                walk_wanted(walker, child)


def walk_back(walker: "Walker", article: etree._Element, back: etree._Element | None) -> None:
    """Add what the settings want of what stands behind the body, and of the notes to the authors' names."""
    settings = walker.settings
    for child in back if back is not None else ():
        name = local_name(child)
        if name in _SECTIONS:
            subject = subject_of(_kind(child), _title(child))
            if _is_wanted(subject, settings):
                heading = "" if name != "ack" or _title(child).strip() else "Acknowledgements"
                _add_once(walker, child, heading)
            else:
                walk_wanted(walker, child)
        elif name in ("app-group", "app") and settings.appendices:
            walker.write(child)
        elif name == "fn-group" and settings.acknowledgements:
            _walk_notes(walker, child)
    if settings.acknowledgements:
        for notes in article.iterfind("{*}front/{*}article-meta/{*}author-notes"):
            _walk_notes(walker, notes)
        for statement in article.iterfind("{*}front/{*}article-meta/{*}funding-group/{*}funding-statement"):
            _add_once(walker, statement)


@lru_cache(maxsize=4096)  # articles share most of their headings
def subject_of(kind: str, title: str) -> Subject:
    """Return what a section is about, by its title, or by its kind where the title says nothing."""
    plain = _plain(title)
    if _DATA_AVAILABILITY.fullmatch(plain):
        return "data"
    if _THANKS.fullmatch(plain):
        return "thanks"
    if _OTHER.fullmatch(plain):
        return "other"
    return _KINDS.get(kind.lower(), "")


def _walk_notes(walker: "Walker", notes: etree._Element) -> None:
    """Add the notes of a group that tell of funding and conflicts."""
    of_group = subject_of("", _title(notes)) == "thanks"
    wanted = [note for note in notes if local_name(note) == "fn" and (of_group or _is_statement(note))]
    with walker.under(_title(notes).strip() if of_group else ""):
        for note in wanted:
            _add_once(walker, note)


def _is_statement(note: etree._Element) -> bool:
    kind = (note.get("fn-type") or "").lower()
    leading = re.split("[:.]", all_text(note).strip()[:80], maxsplit=1)[0]
    return _KINDS.get(kind) == "thanks" or _THANKS.fullmatch(_plain(leading)) is not None


def _add_once(walker: "Walker", element: etree._Element, heading: str = "") -> None:
    """Add an element's blocks, but no text that stands there already: publishers say some things twice."""
    blocks = walker.apart(element)
    known = walker.known()
    new = [block for block in blocks if block not in known]
    title = " ".join(_title(element).split())
    if not new or (title and new == [title]):
        return
    if title:
        walker.sections += 1
    walker.blocks += [heading, *new] if heading else new


def _is_wanted(subject: Subject, settings: ExtractSettings) -> bool:
    return (
        (subject == "thanks" and settings.acknowledgements)
        or (subject == "data" and settings.data_availability)
        or (subject == "appendix" and settings.appendices)
    )


def _kind(section: etree._Element) -> str:
    return section.get("sec-type") or section.get("notes-type") or ("ack" if local_name(section) == "ack" else "")


def _title(element: etree._Element) -> str:
    title = child_named(element, "title")
    return "" if title is None else all_text(title)


def _plain(title: str) -> str:
    """Return a heading in lower case without numbering and punctuation, to be compared."""
    words = _NUMBERING.sub("", " ".join(title.replace("’", "'").split()).lower())
    return words.strip(" .:*")


@lru_cache(maxsize=8)
def _plain_titles(titles: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_plain, titles))


_SECTIONS = {"sec", "ack", "notes"}
_KINDS: dict[str, Subject] = {
    "ack": "thanks",
    "acknowledgement": "thanks",
    "acknowledgment": "thanks",
    "acknowledgements": "thanks",
    "acknowledgments": "thanks",
    "coi-statement": "thanks",
    "conflict": "thanks",
    "financial-disclosure": "thanks",
    "funding": "thanks",
    "funding-information": "thanks",
    "funding-statement": "thanks",
    "supported-by": "thanks",
    "data-availability": "data",
    "appendix": "appendix",
    "abbreviations": "other",
    "additional-information": "other",
    "author-contrib": "other",
    "author-contribution": "other",
    "con": "other",
    "datasets": "other",
    "ref-list": "other",
    "supplementary": "other",
    "supplementary-material": "other",
}
_NUMBERING = re.compile(r"^(?:(?:\d+|[ivx]+)[.)]\s*|\d+(?:\.\d+)*\s+)+")
_DATA_AVAILABILITY = re.compile(
    r"(?:data|code|software|material)s?(?: and (?:data|code|software|material)s?)? "
    r"(?:availability|accessibility|deposition)(?: statement)?|"
    r"availability of .{0,40}(?:data|material)s?.{0,30}|accession (?:number|code)s?(?:\(s\))?|"
    r"(?:data )?(?:access|sharing)(?: statement)?|nucleotide sequence accession numbers?\.?"
)
_INTEREST = r"(?:conflicts?|conflicting|competing|financial|declarations?|disclosures?)"
_THANKS = re.compile(
    r"acknowledge?ments?(?: and .{0,40})?|agradecimentos?|agradecimientos?|remerciements|"
    rf"(?:potential )?(?:statement of |declaration of |disclosure of |declarations of )?(?:potential )?{_INTEREST}"
    r"(?: of)?(?: conflicting| competing)?(?: financial)?(?: interests?)?(?: statement| and funding| of interests?)?|"
    r"disclosures? statement|author disclosure statement|compliance with ethic(?:al|s) (?:standards?|guidelines)|"
    r"funding(?: (?:information|statement|sources?|and .{0,40}))?|sources? of (?:funding|support)|"
    r"financial support(?: and sponsorship)?|grant (?:support|information)|"
    r"(?:role of (?:the )?)?(?:funding|funders?)(?: sources?)?|"
    r"financiamento|financiación|conflitos? de interesses?|conflictos? de intere(?:ses|s)"
)
_OTHER = re.compile(
    r"(?:authors?'?s?'?|individual|authorship) "
    r"(?:contributions?|information|note|statements?|details|biograph(?:y|ies))"
    r"(?: statement)?|contributions? (?:of|by|to) (?:the )?author(?:s|ship)|contributors?|contributorship statement|"
    r"authorship|about the authors?|"
    r"(?:list of )?abbreviations?(?: used)?|(?:electronic |online )?(?:supplement(?:ary|al)|supporting|additional)"
    r"(?: (?:online )?(?:materials?|information|data|files?|content|figures?|tables?))?(?: and .{0,40})?|supplements?|"
    r"multimedia appendix|consent for publication|publisher's note|provenance and peer review|peer review|"
    r"pre-?publication history|orcid(?: ids?)?|references|further reading|bibliography|endnotes|notes|footnotes"
)
