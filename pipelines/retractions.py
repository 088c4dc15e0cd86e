"""The watch pipeline: has anything that a registered model learned from been retracted since?

Let Kubeflow repeat it; a watch takes a minute or two while nothing has changed::

    python -m pipelines schedule --pipeline retractions --recipe paper --cron "0 0 6 * * *"
"""

from typing import Any

from kfp import dsl

from components.retractions.component import watch_retractions
from components.summary.component import summarise_run
from pipelines.placing import Placing
from pipelines.recipe import Recipe

PIPELINE_NAME = "pmc-llama-retractions"


def build_retractions_pipeline(defaults: Recipe, on_cluster: bool = False) -> Any:
    """Return the pipeline; the model's name and two sections of the recipe are its parameters and their defaults.

    Its one step always runs: what it depends on lies outside, in PubMed Central's bucket. Whatever happens, the last
    step writes the run's summary.
    """
    values = defaults.arguments()
    placed = Placing(defaults.steps, on_cluster, used=["retractions", "summary"])

    @dsl.pipeline(name=PIPELINE_NAME, description="Report which of a model's training articles were retracted since.")
    @placed.parameters
    def pmc_llama_retractions(
        model: str = values["register"]["model_name"],
        pmc: dict = values["download"]["pmc"],
        transport: dict = values["download"]["transport"],
    ) -> None:
        summary = placed(summarise_run(recipe="retractions"), "summary", "Summarise the run")

        with dsl.ExitHandler(summary, name="Retraction watch"):
            watch = watch_retractions(model=model, pmc=pmc, transport=transport)
            placed(watch, "retractions", "Look for retractions")

    return pmc_llama_retractions
