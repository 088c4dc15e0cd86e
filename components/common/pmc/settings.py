"""Settings of reading from PubMed Central's bucket; sections of a recipe."""

from pydantic import Field

from components.common.section import Section


class PmcSettings(Section):
    """Where PubMed Central's articles are read from: NLM's public bucket or a mirror of it."""

    bucket: str = Field(
        default="s3://pmc-oa-opendata", description="The bucket, or a mirror: an s3:// prefix or a folder"
    )
    inventory: str = Field(default="latest", description="latest, or the date of one, such as 2026-11-20T01-00Z")
    anonymous: bool = Field(default=True, description="Unsigned reads; false for a mirror that asks for credentials")


class TransportSettings(Section):
    """How hard a step pulls, and how long it waits."""

    concurrency: int = Field(default=64, gt=0, le=1024, description="Most requests of a step that are open at a time")
    attempts: int = Field(
        default=6, gt=0, le=20, description="Tries of one object before its article is recorded as failed"
    )
    connect_timeout_seconds: float = Field(default=10, gt=0, description="Longest wait for a connection")
    read_timeout_seconds: float = Field(default=30, gt=0, description="Longest silence while an object is read")
    longest_backoff_seconds: float = Field(default=20, gt=0, description="Longest wait before an object is tried again")
