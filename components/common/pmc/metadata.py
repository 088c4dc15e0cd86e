"""What PubMed Central says of an article version: one JSON object each, under ``metadata/``."""

import calendar
import re
from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from components.common.pmc.bucket import Bucket
from components.common.transport import FetchError

# "J Cell Sci. 2025 Dec 1;28(12):114581." as NLM cites; month and day may be missing.
_CITED_DATE = re.compile(
    r"\b((?:1[6-9]|20)\d\d)(?: ([A-Z][a-z]{2})[a-z]*(?:-[A-Z][a-z]{2,})?(?: (\d{1,2})(?:-\d{1,2})?)?)?;"
)
_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_XML_URL = re.compile(r"s3://[^/]+/(?:.*/)?(PMC\d+\.\d+/PMC\d+\.\d+\.xml)\?(?:.*&)?md5=([0-9a-fA-F]{32})(?:&.*)?")
_WORDS = {"yes": True, "no": False}


def _flag(value: Any) -> Any:
    """Read a flag, which has been seen as a boolean and as yes or no."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise ValueError(f"{value!r} is neither true, false, yes nor no")


Flag = Annotated[bool, BeforeValidator(_flag)]


class Metadata(BaseModel):
    """An article version's metadata; fields that nothing here reads are ignored."""

    # A PubMed id is a number there, and text here.
    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    pmcid: str = Field(pattern=r"^PMC[1-9]\d*$")
    version: int = Field(ge=1)
    pmid: str | None = None
    doi: str | None = None
    title: str | None = None
    citation: str | None = None
    is_pmc_openaccess: Flag
    is_manuscript: Flag
    is_historical_ocr: Flag
    is_retracted: Flag
    license_code: str | None = None
    xml_url: str | None = None

    def xml_address(self) -> tuple[str, str]:
        """Return the key and the MD5 (hexadecimal digits) of the article's XML.

        The address is another's word: only the article's own XML will do.

        Raises:
            FetchError: It is no such address.
        """
        found = _XML_URL.fullmatch(self.xml_url or "")
        named = f"{self.pmcid}.{self.version}"
        if not found or found[1] != f"{named}/{named}.xml":
            raise FetchError(
                "malformed-metadata", f"{key_of(self.pmcid, self.version)}: xml_url is {self.xml_url!r:.200}"
            )
        return found[1], found[2].lower()

    def published(self) -> date | None:
        """Return the day of publication as the citation gives it (the first of the month, or of the year), or None."""
        found = list(_CITED_DATE.finditer(self.citation or ""))
        if not found:
            return None
        year, month, day = found[-1].groups()
        return _date(int(year), _MONTHS.get(month or "", 1), int(day or 1))


def key_of(pmcid: str, version: int) -> str:
    """Return the key of the metadata of an article version."""
    return f"metadata/{pmcid}.{version}.json"


def read_metadata(bucket: Bucket, pmcid: str, version: int) -> Metadata:
    """Read the metadata of an article version.

    Raises:
        FetchError: It cannot be read, or not understood however often it is read.
    """
    return bucket.read(key_of(pmcid, version), lambda data: parse_metadata(data, pmcid, version))


def parse_metadata(data: bytes | memoryview, pmcid: str, version: int) -> Metadata:
    """Understand the metadata of an article version.

    Raises:
        FetchError: It is malformed, a flag is no flag, or it speaks of another article.
    """
    try:
        metadata = Metadata.model_validate_json(bytes(data))
    except ValidationError as error:
        raise FetchError("malformed-metadata", f"{key_of(pmcid, version)}: {_problem(error)}", retry=True) from error
    named = f"{metadata.pmcid}.{metadata.version}"
    if named != f"{pmcid}.{version}":
        raise FetchError("malformed-metadata", f"{key_of(pmcid, version)} speaks of {named}")
    return metadata


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg'].removeprefix('Value error, ')}" if field else first["msg"]


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return date(year, month, 1)
