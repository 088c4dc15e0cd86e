"""Settings of the evaluation: that section of the recipe."""

from typing import Literal

from pydantic import Field, field_validator

from components.common.section import Section

BenchmarkName = Literal["pubmedqa", "medmcqa", "medqa"]


class EvaluateSettings(Section):
    """What is measured on every model, and how."""

    benchmarks: list[BenchmarkName] = Field(
        default=["pubmedqa", "medmcqa", "medqa"],
        min_length=1,
        description="Benchmarks to answer, each with the task of lm-evaluation-harness that the field quotes.",
    )
    num_fewshot: int = Field(
        default=0, ge=0, le=32, description="Solved training questions shown before each question; 0 is zero-shot."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Answer only the first questions of each benchmark; none answers all."
    )
    batch_size: int = Field(default=8, ge=1, le=1024, description="Sequences that go through the model at once.")
    perplexity_articles: int | None = Field(
        default=2000, ge=2, description="Held-out articles for the perplexity; none takes the whole validation split."
    )
    context_length: int = Field(
        default=512, ge=2, le=131072, description="Tokens of a perplexity window: the context length of training."
    )
    seed: int = Field(default=0, ge=0, description="Draws the few-shot examples.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where the model runs; auto takes a GPU if any.",
    )

    @field_validator("benchmarks")
    @classmethod
    def _each_once(cls, names: list[BenchmarkName]) -> list[BenchmarkName]:
        if len(set(names)) != len(names):
            raise ValueError(f"each benchmark may be named once, not {', '.join(names)}")
        return names
