"""Settings of the preprocess stage: what becomes text, and which texts stay."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.common.section import Section

SIGNATURE_PERMUTATIONS = 112


class ExtractSettings(Section):
    """What of a JATS article becomes text."""

    abstract: bool = Field(
        default=True, description="Keep the abstract and its variants (summaries, key points, digests)."
    )
    captions: bool = Field(default=True, description="Keep the captions of figures and tables, where they stand.")
    tables: bool = Field(default=False, description="Keep the cells of tables, one row a line.")
    formulas: Literal["text", "tex", "drop"] = Field(
        default="text", description="Formulas as readable text, as TeX where the article has it, or not at all."
    )
    sub_articles: bool = Field(
        default=False, description="Keep reviews, replies and translations that the article carries."
    )
    appendices: bool = Field(default=False, description="Keep appendices that stand behind the body.")
    data_availability: bool = Field(default=False, description="Keep the sections that say where the data is.")
    drop_sections: tuple[str, ...] = Field(
        default=(), description="Further section titles to drop with all they hold; case and numbering don't matter."
    )
    max_bytes: int = Field(
        default=32 * 1024 * 1024, ge=1024, le=1024**3, description="Reject an article whose XML is larger than this."
    )


class FilterSettings(Section):
    """Which extracted articles stay in the corpus."""

    languages: tuple[str, ...] = Field(
        default=("en",), description="ISO 639-1 codes to keep; empty keeps every language."
    )
    drop_article_types: tuple[str, ...] = Field(
        default=(
            "addendum",
            "announcement",
            "books-received",
            "calendar",
            "correction",
            "corrected-article",
            "corrigendum",
            "erratum",
            "expression-of-concern",
            "index",
            "obituary",
            "partial-retraction",
            "removal",
            "retracted-article",
            "retraction",
            "table-of-contents",
            "withdrawal",
        ),
        description="JATS article types to drop; a title such as 'Correction: ...' counts as its type.",
    )
    min_words: int = Field(default=100, ge=0, description="Drop an article with fewer words.")
    max_words: int = Field(default=0, ge=0, description="Drop an article with more words; 0 sets no limit.")
    min_alphabetic: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="Drop an article when a smaller share of its words holds a letter (Gopher: 0.8).",
    )
    max_repeated: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Drop an article when a larger share of its paragraphs' characters is repeated.",
    )


class DeduplicateSettings(Section):
    """Which articles count as copies of another."""

    jaccard: float = Field(
        default=0.8,
        ge=0.5,
        le=1,
        description="Remove an article whose word 5-grams overlap another's at least this much.",
    )
    bands: int = Field(
        default=14, ge=1, le=112, description="Bands of the signature; more find more pairs and cost more."
    )
    rows_per_band: int = Field(
        default=8, ge=1, le=112, description="Permutations per band; bands x rows must not exceed 112."
    )

    @model_validator(mode="after")
    def _fits_the_signature(self) -> Self:
        if self.bands * self.rows_per_band > SIGNATURE_PERMUTATIONS:
            raise ValueError(
                f"bands x rows_per_band is {self.bands * self.rows_per_band}, but a signature has only "
                f"{SIGNATURE_PERMUTATIONS} permutations; lower one of the two"
            )
        return self


class TokenizeSettings(Section):
    """How texts become token ids, and which are held out."""

    validation_fraction: float = Field(
        default=0.01,
        gt=0,
        le=0.5,
        description="Share of the articles held out, by a hash of their id; at least one article.",
    )
    add_eos: bool = Field(
        default=False, description="End every document with the end-of-sequence token (the paper: no)."
    )
    encoder: Literal["fastest", "reference"] = Field(
        default="fastest",
        description="'fastest' uses fastokens where its ids are proven equal, 'reference' only tokenizers.",
    )
    probe_documents: int = Field(
        default=16,
        ge=1,
        le=10_000,
        description="Documents of each shard on which the ids of the two encoders are compared.",
    )


class PreprocessSettings(Section):
    """The preprocess section of a recipe."""

    extract: ExtractSettings = Field(default_factory=ExtractSettings, description="Articles to text.")
    filters: FilterSettings = Field(default_factory=FilterSettings, description="Which texts stay.")
    deduplicate: DeduplicateSettings = Field(default_factory=DeduplicateSettings, description="Copies to remove.")
    tokenize: TokenizeSettings = Field(default_factory=TokenizeSettings, description="Texts to token shards.")
    max_rejected_fraction: float = Field(
        default=0.05, ge=0, le=1, description="Stop when a larger share of the listed articles cannot be read."
    )
