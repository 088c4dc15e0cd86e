"""The recipe's ``download`` section."""

from typing import Literal

from pydantic import Field, model_validator

from components.common.section import Section


class DownloadSettings(Section):
    """Where articles, benchmarks and the base model come from, and how articles are packed."""

    source: Literal["sample", "files"] = Field("sample", description="sample (bundled, synthetic) or files (your own)")
    articles: str = Field(
        "", description="files: a folder, .tar.gz, .tgz, .tar, .zip or s3:// prefix of JATS .xml/.nxml"
    )
    benchmarks: str = Field("sample", description="sample, or a folder or s3:// prefix holding the official files")
    base_model: str = Field("sample", description="sample, a folder, an s3:// prefix, or a Hugging Face id")
    base_model_revision: str = Field("main", description="Revision of a Hugging Face id; pin a commit for a real run")
    base_model_seed: int = Field(0, ge=0, description="Seed of the random weights of the bundled model")
    articles_per_shard: int = Field(2000, gt=0, description="At most so many articles in one Parquet shard")
    min_shards: int = Field(1, gt=0, description="At least so many shards, so that few articles spread over pods too")
    max_articles: int | None = Field(None, gt=0, description="At most so many articles, chosen by a hash of their id")
    max_article_bytes: int = Field(64_000_000, gt=0, description="A larger file is rejected as too large")
    version: str = Field("", description="State of the sources; `run` fills it, so that a changed folder is not cached")

    @model_validator(mode="after")
    def _files_need_a_place(self) -> "DownloadSettings":
        if self.source == "sample" and self.articles:
            raise ValueError(f"articles={self.articles!r} is only read with source=files; set download.source=files")
        return self
