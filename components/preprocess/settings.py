"""Settings of the preprocess stage: what becomes text, and which texts stay."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.common.section import Section

SIGNATURE_PERMUTATIONS = 112

Words = Annotated[int, Field(ge=1, le=50)]
Share = Annotated[float, Field(ge=0, le=1)]


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
        default=False,
        description="Keep reviews, replies, responses and translations that the article carries, each once.",
    )
    appendices: bool = Field(default=False, description="Keep appendices that stand behind the body.")
    data_availability: bool = Field(default=False, description="Keep the sections that say where the data is.")
    acknowledgements: bool = Field(
        default=False, description="Keep acknowledgements, funding and conflicts of interest, wherever they stand."
    )
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
    min_mean_word_length: float = Field(
        default=3, ge=0, description="Drop an article whose words are shorter in the mean (Gopher: 3)."
    )
    max_mean_word_length: float = Field(
        default=10,
        ge=0,
        description="Drop an article whose words are longer in the mean (Gopher: 10); raise it for languages that do "
        "not put spaces between words.",
    )
    min_alphabetic: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="Drop an article when a smaller share of its words holds a letter (Gopher: 0.8).",
    )
    max_digits: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Drop an article when digits are a larger share of its characters (NeMo Curator: 0.15).",
    )
    max_upper_case: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Drop an article when a larger share of its letters is upper case, as in sequences and listings.",
    )
    max_markup: float = Field(
        default=0.2,
        ge=0,
        description="Drop an article with more ellipses, hashes, backslashes, braces, carets, underscores and back "
        "quotes per word (Gopher: 0.1 of the first two).",
    )
    min_stop_words: float = Field(
        default=0.03,
        ge=0,
        le=1,
        description="Drop an English article when a smaller share of its words is one of the, be, to, of, and, that, "
        "have, with (Gopher: two of them).",
    )
    max_duplicate_lines: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Drop an article when a larger share of its lines is repeated (Gopher: 0.3).",
    )
    max_duplicate_line_characters: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Drop an article when a larger share of its characters is in repeated lines (Gopher: 0.2).",
    )
    max_top_ngram: dict[Words, Share] = Field(
        default={2: 0.2, 3: 0.18, 4: 0.16},
        description="Words in a row to the share of the characters that the most frequent such run may take up "
        "(Gopher's).",
    )
    max_duplicate_ngrams: dict[Words, Share] = Field(
        default={5: 0.5, 6: 0.48, 7: 0.46, 8: 0.44, 9: 0.42, 10: 0.4},
        description="Words in a row to the share of the characters that may stand in repeated such runs (Gopher: 0.15 "
        "for 5 to 0.1 for 10, which would drop a sixth of all papers).",
    )


class WorkerSettings(Section):
    """The processes that extract a shard; not part of any fingerprint, for they don't change what a shard holds.

    The exception are articles that are too much for a worker: these are rejected (out-of-memory, too-slow,
    worker-killed), and delete the clean shard to have them tried again with more.
    """

    processes: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="How many; 0 is one per CPU of the pod, as far as its memory is enough for all of them.",
    )
    memory_mb: int = Field(
        default=900,
        ge=300,
        description="Megabytes each may take; an article that needs more is rejected as out-of-memory.",
    )
    article_seconds: float = Field(
        default=60,
        ge=1,
        description="Seconds of CPU time for one article; one that takes longer is rejected as too-slow.",
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
        default=16, ge=1, le=112, description="Bands of the signature; more find more pairs and cost more."
    )
    rows_per_band: int = Field(
        default=7, ge=1, le=112, description="Permutations per band; bands x rows must not exceed 112."
    )

    @model_validator(mode="after")
    def _fits_the_signature(self) -> Self:
        if self.bands * self.rows_per_band > SIGNATURE_PERMUTATIONS:
            raise ValueError(
                f"bands x rows_per_band is {self.bands * self.rows_per_band}, but a signature has only "
                f"{SIGNATURE_PERMUTATIONS} permutations; lower one of the two"
            )
        return self


class DecontaminateSettings(Section):
    """What happens to articles that hold the benchmarks' test questions."""

    action: Literal["drop", "cut", "report"] = Field(
        default="drop",
        description="Drop an article that holds a test question, cut the paragraphs that hold it, or only report it.",
    )
    ngram: int = Field(default=13, ge=8, le=50, description="Words in a row that make an overlap worth reporting.")
    coverage: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="An article holds a question when such runs cover at least this share of the question's words.",
    )
    short_question_words: int = Field(
        default=8,
        ge=4,
        description="A question shorter than ngram is looked for whole, from this many words on.",
    )
    test_articles: bool = Field(
        default=False, description="Keep the very articles that PubMedQA's test questions were made from."
    )


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
    workers: WorkerSettings = Field(default_factory=WorkerSettings, description="The processes of each extraction.")
    decontaminate: DecontaminateSettings = Field(
        default_factory=DecontaminateSettings, description="Test questions to keep out."
    )
    deduplicate: DeduplicateSettings = Field(default_factory=DeduplicateSettings, description="Copies to remove.")
    tokenize: TokenizeSettings = Field(default_factory=TokenizeSettings, description="Texts to token shards.")
    max_rejected_fraction: float = Field(
        default=0.05, ge=0, le=1, description="Stop when a larger share of the listed articles cannot be read."
    )
