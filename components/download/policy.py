"""Which articles may be used: the recipe's policy against what PubMed Central says of an article."""

import re
from datetime import date

from components.common.pmc.metadata import Metadata
from components.download.settings import PolicySettings

RETRACTED = "retracted"
NOT_OPEN_ACCESS = "not-open-access"
LICENCE = "licence"
MANUSCRIPT = "manuscript"
HISTORICAL_OCR = "historical-ocr"
PUBLISHED = "publication-date"
UNDATED = "undated"
NO_XML = "no-xml"

_FRONT_BYTES = 200_000
_PUB_DATE = re.compile(rb"<pub-date\b[^>]*>(.*?)</pub-date>", re.DOTALL)
_PART = rb"<%s>\s*(\d{1,4})\s*</%s>"


def why_left_out(metadata: Metadata, policy: PolicySettings) -> str:
    """Return why an article may not be used, as one word to count by; empty when it may, as far as metadata tells.

    An article that is left out for several reasons is counted for the first of them. A licence that is missing is not
    an open one, and being in the bucket does not make an article open access.
    """
    if metadata.is_retracted and not policy.retracted:
        return RETRACTED
    if not metadata.is_pmc_openaccess:
        return NOT_OPEN_ACCESS
    if metadata.license_code not in policy.allowed_licences:
        return LICENCE
    if metadata.is_manuscript and not policy.manuscripts:
        return MANUSCRIPT
    if metadata.is_historical_ocr and not policy.historical_ocr:
        return HISTORICAL_OCR
    if not metadata.xml_url:
        return NO_XML
    if not (policy.published_from or policy.published_to):
        return ""
    day = metadata.published()
    return "" if day is None or published_within(day, policy) else PUBLISHED


def why_left_out_by_xml(metadata: Metadata, xml: bytes | memoryview, policy: PolicySettings) -> str:
    """Decide by the article itself what its metadata leaves open: the day of publication, where the recipe asks."""
    if not (policy.published_from or policy.published_to) or metadata.published():
        return ""
    day = published_in(xml)
    if day is None:
        return UNDATED
    return "" if published_within(day, policy) else PUBLISHED


def published_within(day: date, policy: PolicySettings) -> bool:
    """Tell whether a day lies in the recipe's range, both ends included."""
    return (policy.published_from or date.min) <= day <= (policy.published_to or date.max)


def published_in(xml: bytes | memoryview) -> date | None:
    """Return the earliest date in the article's front matter (JATS ``pub-date``); a missing month or day counts as 1.

    Only these elements are looked at, by pattern: the XML of strangers is parsed in one place, the preprocess stage.
    """
    return min(filter(None, map(_day, _PUB_DATE.findall(xml[:_FRONT_BYTES]))), default=None)


def _day(element: bytes) -> date | None:
    year, month, day = (re.search(_PART % (name, name), element) for name in (b"year", b"month", b"day"))
    try:
        return date(int(year[1]), int(month[1]) if month else 1, int(day[1]) if day else 1) if year else None
    except ValueError:
        return None
