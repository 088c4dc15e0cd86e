"""The recipe's ``download`` section."""

from datetime import date
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator, model_validator

from components.common.errors import InputError
from components.common.pmc.licences import COMMERCIAL, NONCOMMERCIAL
from components.common.pmc.settings import PmcSettings, TransportSettings
from components.common.section import Section

LICENCE_GROUPS = {"commercial": COMMERCIAL, "noncommercial": NONCOMMERCIAL, "all-open": NONCOMMERCIAL}


class PolicySettings(Section):
    """Which articles may be used; what PubMed Central's metadata says of each decides."""

    licences: str | list[str] = Field(
        default="commercial",
        description="commercial (CC0, CC BY, -SA, -ND), noncommercial (adds the NC kinds), all-open, or a list",
    )
    retracted: bool = Field(default=False, description="Use retracted articles too")
    manuscripts: bool = Field(default=True, description="Use author manuscripts (those with an open licence)")
    historical_ocr: bool = Field(default=False, description="Use text that was read from scanned pages")
    published_from: date | None = Field(default=None, description="Earliest day of publication, such as 2010-01-01")
    published_to: date | None = Field(default=None, description="Latest day of publication")

    @field_validator("licences")
    @classmethod
    def _known_licences(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, str) and value not in LICENCE_GROUPS:
            raise ValueError(f"must be one of {', '.join(LICENCE_GROUPS)} or a list such as [CC0, CC BY]")
        unknown = [] if isinstance(value, str) else [each for each in value if each not in NONCOMMERCIAL]
        if unknown or not value:
            raise ValueError(f"the licences must be among {', '.join(NONCOMMERCIAL)}")
        return value

    @model_validator(mode="after")
    def _dates_in_order(self) -> "PolicySettings":
        if self.published_from and self.published_to and self.published_from > self.published_to:
            raise ValueError(f"published_from={self.published_from} lies after published_to={self.published_to}")
        return self

    @cached_property
    def allowed_licences(self) -> frozenset[str]:
        """Return the licence codes that may be used."""
        codes = LICENCE_GROUPS[self.licences] if isinstance(self.licences, str) else self.licences
        return frozenset(codes)


class S2orcSettings(Section):
    """Semantic Scholar's bulk files; the key comes from the environment (S2_API_KEY)."""

    release: str = Field(default="latest", description="latest, or the date of a release, such as 2026-11-10")


class HubSettings(Section):
    """The benchmarks on the Hugging Face hub: data set and commit."""

    pubmedqa: str = Field(
        default="qiaojin/PubMedQA@9001f2853fb87cab8d220904e0de81ac6973b318",
        description="PubMedQA, as owner/name@commit",
    )
    medmcqa: str = Field(
        default="openlifescienceai/medmcqa@91c6572c454088bf71b679ad90aa8dffcd0d5868",
        description="MedMCQA, as owner/name@commit",
    )
    medqa: str = Field(
        default="GBaker/MedQA-USMLE-4-options-hf@17af9355ef89fba60de966eabaeba797c695f86e",
        description="MedQA-USMLE with 4 options, as owner/name@commit",
    )


class DownloadSettings(Section):
    """Where articles, benchmarks and the base model come from, and how articles are packed."""

    source: Literal["sample", "files", "pmc", "s2orc"] = Field(
        default="sample", description="sample (bundled, synthetic), files (your own), pmc (PubMed Central) or s2orc"
    )
    articles: str = Field(
        default="", description="files: a folder, .tar.gz, .tgz, .tar, .zip or s3:// prefix of JATS .xml/.nxml"
    )
    pmc: PmcSettings = Field(default_factory=PmcSettings)
    s2orc: S2orcSettings = Field(default_factory=S2orcSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    transport: TransportSettings = Field(default_factory=TransportSettings)
    benchmarks: str = Field(
        default="sample", description="sample, hub, or a folder or s3:// prefix with the official files"
    )
    more_benchmarks: list[str] = Field(
        default=[],
        description="Benchmarks and suites to fetch beside these three, such as mmlu_medical; of a folder, those that "
        "are in it are taken in any case",
    )
    hub: HubSettings = Field(default_factory=HubSettings)
    instructions: str = Field(
        default="",
        description="Instructions that a model learns to answer from (finetune objective instruct): nothing, sample, "
        "owner/name@commit on the hub, or a file, folder or s3:// prefix of JSON lines, JSON or Parquet",
    )
    base_model: str = Field(default="sample", description="sample, a folder, an s3:// prefix, or a Hugging Face id")
    base_model_revision: str = Field(
        default="main", description="Revision of a Hugging Face id; pin a commit for a real run"
    )
    base_model_seed: int = Field(default=0, ge=0, description="Seed of the random weights of the bundled model")
    articles_per_shard: int = Field(default=2000, gt=0, description="At most so many articles in one Parquet shard")
    min_shards: int = Field(
        default=1, gt=0, description="At least so many shards, so that few articles spread over pods too"
    )
    max_articles: int | None = Field(
        default=None, gt=0, description="At most so many articles, chosen by a hash of their id"
    )
    sample_fraction: float = Field(
        default=1.0, gt=0, le=1, description="This share of the articles, by a hash of their id"
    )
    max_article_bytes: int = Field(default=64_000_000, gt=0, description="A larger file is rejected as too large")
    max_failed_fraction: float = Field(
        default=0.02, ge=0, le=1, description="Largest share of a shard's articles that may fail to be fetched"
    )
    version: str = Field(
        default="", description="State of the sources; `run` fills it, so that a changed folder is not cached"
    )

    @property
    def fetched_benchmarks(self) -> list[str]:
        """Names of the benchmarks that are fetched in any case, and of those that are asked for."""
        return [*HubSettings.model_fields, *self.more_benchmarks]

    @field_validator("more_benchmarks")
    @classmethod
    def _known_benchmarks(cls, names: list[str]) -> list[str]:
        # The table reads Parquet too: a command that names no benchmark need not wait for that to load.
        from components.download.benchmark_table import named

        try:
            return list(named(names))
        except InputError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _files_need_a_place(self) -> "DownloadSettings":
        if self.source != "files" and self.articles:
            raise ValueError(f"articles={self.articles!r} is only read with source=files; set download.source=files")
        return self
