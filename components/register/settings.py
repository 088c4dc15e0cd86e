"""Settings of the gate and the registry: that section of the recipe."""

from typing import Literal

from pydantic import Field

from components.common.section import Section


class RegisterSettings(Section):
    """When a model may become champion, and under which name it is registered."""

    model_name: str = Field(
        default="pmc-llama",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Name in MLflow's model registry; every run of a recipe adds a version to it.",
    )
    min_perplexity_gain: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="How much lower the held-out perplexity must be, as a share (0.01 is 1%); 0 means: at all.",
    )
    confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1.0,
        description="A benchmark is lost when the whole interval of the paired difference, at this level, is below 0.",
    )
    require_above_majority: bool = Field(
        default=False,
        description="Refuse a model that answers a benchmark no better than its most frequent answer would.",
    )
    compare_with_champion: bool = Field(
        default=True, description="The candidate must also beat the champion of that name, where there is one."
    )
    champion_on_other_articles: Literal["refuse", "benchmarks_only"] = Field(
        default="refuse",
        description="What to do when the champion's perplexity was measured on other held-out articles.",
    )
