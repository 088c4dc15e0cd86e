"""How KServe is told of an S3 server: by annotations of what holds the credentials."""

from urllib.parse import urlsplit

_PREFIX = "serving.kserve.io/s3-"


def s3_annotations(endpoint: str, region: str) -> dict[str, str]:
    """The annotations of a secret or service account; KServe knows Amazon's own servers without.

    Args:
        endpoint: Address of another S3 server, or empty.
        region: Of S3, or empty.
    """
    made = {f"{_PREFIX}region": region} if region else {}
    if endpoint:
        parts = urlsplit(endpoint)
        made |= {f"{_PREFIX}endpoint": parts.netloc, f"{_PREFIX}usehttps": "1" if parts.scheme == "https" else "0"}
    return made
