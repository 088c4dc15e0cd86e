"""What became of one article since the training: its metadata now against its metadata then."""

from pydantic import ValidationError

from components.common.pmc.bucket import Bucket
from components.common.pmc.licences import OPEN
from components.common.pmc.metadata import Metadata, read_metadata
from components.common.transport import FetchError
from components.retractions.articles import Look
from components.retractions.findings import (
    KNOWN,
    RELICENSED,
    RETRACTED,
    UNCHANGED,
    UNKNOWN,
    UPDATED,
    WITHDRAWN,
    Finding,
)

NOT_LISTED = "not-listed"
OLDER_VERSION = "older-version"


def examine(look: Look, bucket: Bucket) -> Finding:
    """Find out what became of an article; reads its metadata where the inventory does not tell.

    Args:
        look: The article and what is known of it.
        bucket: Where its metadata is read.
    """
    then = _parsed(look.known)
    if not look.listed:
        return _not_listed(look, then)
    if not look.needs_metadata:
        return _finding(look, KNOWN if look.retracted else UNCHANGED, then, then)
    try:
        now = read_metadata(bucket, f"PMC{look.number}", look.listed)
    except FetchError as error:
        return _finding(look, UNKNOWN, then, reason=error.reason, detail=error.detail)
    return _compared(look, then, now)


def _compared(look: Look, then: Metadata | None, now: Metadata) -> Finding:
    if now.is_retracted:
        return _finding(look, KNOWN if look.retracted else RETRACTED, then, now)
    if look.listed < look.trained:
        detail = f"version {look.trained} was used, but the newest that the inventory lists is {look.listed}"
        return _finding(look, UNKNOWN, then, now, OLDER_VERSION, detail)
    if _licence(now) != _licence(then) if then else _licence(now) not in OPEN:
        return _finding(look, RELICENSED, then, now)
    return _finding(look, UNCHANGED if now == then else UPDATED, then, now)


def _not_listed(look: Look, then: Metadata | None) -> Finding:
    """Tell an article that is gone from one that PubMed Central may never have listed."""
    if look.trained:
        return _finding(look, WITHDRAWN, then)
    return _finding(look, UNKNOWN, then, reason=NOT_LISTED, detail="the inventory lists no such article")


def _finding(
    look: Look, kind: str, then: Metadata | None, now: Metadata | None = None, reason: str = "", detail: str = ""
) -> Finding:
    said = now or then
    return Finding(
        id=f"PMC{look.number}",
        kind=kind,
        title=(said.title or "") if said else "",
        doi=(said.doi or "") if said else "",
        old_version=look.trained,
        new_version=look.listed,
        old_licence=_licence(then) if then else "",
        new_licence=_licence(now) if now else "",
        reason=reason,
        detail=detail,
    )


def _licence(metadata: Metadata) -> str:
    """Name the licence for a reader; open access is a part of it."""
    code = metadata.license_code or "none"
    return code if metadata.is_pmc_openaccess else f"{code}, not open access"


def _parsed(known: str) -> Metadata | None:
    """Read what the index recorded; a record of an older form says as much as none."""
    try:
        return Metadata.model_validate_json(known) if known else None
    except ValidationError:
        return None
