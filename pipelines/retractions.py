r"""The watch pipeline: has anything that a registered model learned from been retracted since?

Compile it and let Kubeflow repeat it; a watch takes a minute or two while nothing has changed::

    python -m pipelines compile --pipeline retractions --output build/retractions.yaml
    kfp recurring-run create --pipeline-package-path build/retractions.yaml --experiment-name retractions \
        --job-name retractions-daily --cron-expression "0 0 6 * * *" --no-catchup model=pmc-llama
"""

from typing import Any

from kfp import dsl

from components.retractions.component import watch_retractions
from components.summary.component import summarise_run
from pipelines.pmc_llama import named
from pipelines.recipe import Recipe

PIPELINE_NAME = "pmc-llama-retractions"


def build_retractions_pipeline(defaults: Recipe) -> Any:
    """Return the pipeline; the model's name and two sections of the recipe are its parameters and their defaults.

    Its one step always runs: what it depends on lies outside, in PubMed Central's bucket. Whatever happens, the last
    step writes the run's summary.
    """
    values = defaults.arguments()

    @dsl.pipeline(name=PIPELINE_NAME, description="Report which of a model's training articles were retracted since.")
    def pmc_llama_retractions(
        model: str = values["register"]["model_name"],
        pmc: dict = values["download"]["pmc"],
        transport: dict = values["download"]["transport"],
    ) -> None:
        summary = named(summarise_run(recipe="retractions"), "Summarise the run").set_caching_options(False)

        with dsl.ExitHandler(summary, name="Retraction watch"):
            watch = watch_retractions(model=model, pmc=pmc, transport=transport)
            named(watch, "Look for retractions").set_caching_options(False)

    return pmc_llama_retractions
