"""Settings of the gate and the registry: that section of the recipe."""

from typing import Literal

from pydantic import Field, field_validator

from components.common.section import Section
from components.register.card.card_settings import CardSettings


class RegisterSettings(Section):
    """The policy by which a model may become champion, and under which name it is registered.

    Shares are shares of questions: a margin of 0.02 is two points.
    """

    model_name: str = Field(
        default="pmc-llama",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Name in MLflow's model registry; every run of a recipe adds a version to it.",
    )
    benchmarks: list[str] = Field(
        default=["pubmedqa", "medmcqa", "medqa"],
        min_length=1,
        description="Benchmarks that decide: each must be there; others that were evaluated are only reported.",
    )
    judged_on: Literal["as_is", "fine_tuned"] = Field(
        default="as_is",
        description="Compare the models as they are, or each after the same fine-tuning, as the paper does.",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1.0, description="Level of the intervals; 1 minus it is the level of the tests."
    )
    significant_gain: Literal["benchmark", "perplexity"] = Field(
        default="benchmark",
        description="What must have improved beyond chance: at least one benchmark (McNemar's test, Holm's correction "
        "over the benchmarks), or the held-out perplexity (its interval over articles).",
    )
    min_gain: float = Field(
        default=0.01, ge=0, lt=1, description="The least improvement of a benchmark that counts, however significant."
    )
    margin: float = Field(default=0.02, ge=0, lt=1, description="How much a benchmark may lose.")
    margins: dict[str, float] = Field(default_factory=dict, description="Other margins for some of the benchmarks.")
    refuse_loss: Literal["possible", "estimated", "proven"] = Field(
        default="estimated",
        description="A benchmark is lost when its change is below the margin: when any of its interval is (possible), "
        "the change itself (estimated), or only when the whole interval is (proven).",
    )
    require_above_majority: bool = Field(
        default=True, description="Every benchmark must be answered better than by always giving its commonest answer."
    )
    min_perplexity_gain: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="How much lower than the base's the held-out perplexity must be, as a share (0.01 is 1%); 0 means: "
        "at all.",
    )
    champion_perplexity_margin: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="How much higher than the champion's the perplexity may be, as a share; where perplexity is the "
        "significant gain, it must be lower.",
    )
    compare_with_champion: bool = Field(
        default=True, description="Compare with the champion of that name too, where there is one."
    )
    against_champion: Literal["better", "no_worse"] = Field(
        default="better", description="The champion must be beaten as the base is, or only not be fallen behind."
    )
    champion_on_other_articles: Literal["refuse", "benchmarks_only"] = Field(
        default="refuse",
        description="What to do when the champion's perplexity was measured on other held-out articles.",
    )
    max_unreadable: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Of a model that follows instructions: how many of its written answers to a benchmark may name no "
        "option, as a share.",
    )
    licences: Literal["any", "all-open", "commercial"] = Field(
        default="any",
        description="What every article learned from must allow; an article of unknown licence allows nothing.",
    )

    card: CardSettings = Field(
        default_factory=CardSettings, description="What the model card says beyond what is measured."
    )

    @field_validator("margins")
    @classmethod
    def _margins_are_shares(cls, margins: dict[str, float]) -> dict[str, float]:
        for name, margin in margins.items():
            if not 0 <= margin < 1:
                raise ValueError(f"the margin of {name} must be from 0 to below 1, not {margin}")
        return margins

    @field_validator("benchmarks")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError(f"each benchmark may be named once, not {', '.join(names)}")
        return names

    def margin_of(self, benchmark: str) -> float:
        """Return how much a benchmark may lose, as a share of its questions."""
        return self.margins.get(benchmark, self.margin)
