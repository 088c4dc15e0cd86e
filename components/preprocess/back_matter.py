"""Sections that say something about the paper rather than about its subject: funding, interests, supplements."""

import re
from functools import lru_cache

from components.preprocess.settings import ExtractSettings


def is_dropped(kind: str, title: str, settings: ExtractSettings) -> bool:
    """Return whether a section goes, with all it holds.

    Args:
        kind: Its `sec-type`.
        title: Its heading, as it stands. Only whole headings count: `Funding of trials by industry` is no `Funding`.
        settings: May keep data availability and name further titles.
    """
    plain = _plain(title)
    if not settings.data_availability and (kind == "data-availability" or _DATA_AVAILABILITY.fullmatch(plain)):
        return True
    return (
        kind.lower() in _DROPPED_KINDS
        or _BACK_MATTER.fullmatch(plain) is not None
        or plain in _plain_titles(settings.drop_sections)
    )


def _plain(title: str) -> str:
    """Return a heading in lower case without numbering and punctuation, to be compared."""
    words = _NUMBERING.sub("", " ".join(title.replace("’", "'").split()).lower())
    return words.strip(" .:*")


@lru_cache(maxsize=8)
def _plain_titles(titles: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_plain, titles))


_DROPPED_KINDS = {
    "ack",
    "abbreviations",
    "acknowledgement",
    "acknowledgment",
    "additional-information",
    "author-contrib",
    "author-contribution",
    "coi-statement",
    "con",
    "conflict",
    "datasets",
    "funding",
    "funding-information",
    "funding-statement",
    "ref-list",
    "supplementary",
    "supplementary-material",
}
_NUMBERING = re.compile(r"^(?:(?:\d+|[ivx]+)[.)]\s*|\d+(?:\.\d+)*\s+)+")
_DATA_AVAILABILITY = re.compile(
    r"(?:data|code|software|material)s?(?: and (?:data|code|software|material)s?)? "
    r"(?:availability|accessibility|deposition)(?: statement)?|"
    r"availability of .{0,40}(?:data|material)s?.{0,30}|accession (?:number|code)s?(?:\(s\))?|"
    r"(?:data )?(?:access|sharing)(?: statement)?|nucleotide sequence accession numbers?\.?"
)
_INTEREST = r"(?:conflicts?|conflicting|competing|financial|declarations?|disclosures?)"
_BACK_MATTER = re.compile(
    r"acknowledge?ments?(?: and .{0,40})?|agradecimentos?|agradecimientos?|remerciements|"
    r"(?:authors?'?s?'?|individual|authorship) "
    r"(?:contributions?|information|note|statements?|details|biograph(?:y|ies))"
    r"(?: statement)?|contributions? of authors|contributors?|contributorship statement|authorship|"
    r"about the authors?|"
    rf"(?:potential )?(?:statement of |declaration of |disclosure of |declarations of )?(?:potential )?{_INTEREST}"
    r"(?: of)?(?: conflicting| competing)?(?: financial)?(?: interests?)?(?: statement| and funding| of interests?)?|"
    r"disclosures? statement|author disclosure statement|compliance with ethical (?:standards?|guidelines)|"
    r"funding(?: (?:information|statement|sources?|and .{0,40}))?|sources? of (?:funding|support)|financial support"
    r"(?: and sponsorship)?|grant (?:support|information)|(?:role of (?:the )?)?(?:funding|funders?)(?: sources?)?|"
    r"financiamento|financiación|"
    r"conflitos? de interesses?|conflictos? de intere(?:ses|s)|"
    r"(?:list of )?abbreviations?(?: used)?|(?:electronic |online )?(?:supplement(?:ary|al)|supporting|additional)"
    r"(?: (?:online )?(?:materials?|information|data|files?|content|figures?|tables?))?(?: and .{0,40})?|supplements?|"
    r"multimedia appendix|consent for publication|publisher's note|provenance and peer review|peer review|"
    r"pre-?publication history|orcid(?: ids?)?|references|further reading|bibliography|endnotes|notes|footnotes"
)
