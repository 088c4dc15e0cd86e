"""Compile the pipeline to the YAML that Kubeflow takes."""

from pathlib import Path

from pipelines.pmc_llama import build_pipeline
from pipelines.recipe import Recipe


def compile_pipeline(recipe: Recipe, output: Path) -> Path:
    """Write the pipeline, with the recipe's values as the parameters' defaults.

    Args:
        recipe: Its sections become the defaults that the Kubeflow UI shows.
        output: The YAML file; its folder is made.
    """
    from kfp import compiler

    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build_pipeline(recipe), str(output))
    return output
