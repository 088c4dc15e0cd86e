"""Compile a pipeline to the YAML that Kubeflow takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.common.errors import InputError
from pipelines.pmc_llama import build_pipeline
from pipelines.recipe import Recipe
from pipelines.retractions import build_retractions_pipeline

PIPELINES: dict[str, Callable[..., Any]] = {"pmc-llama": build_pipeline, "retractions": build_retractions_pipeline}


def compile_pipeline(recipe: Recipe, output: Path, name: str = "pmc-llama") -> Path:
    """Write a pipeline, with the recipe's values as the parameters' defaults.

    Args:
        recipe: Its sections become the defaults that the Kubeflow UI shows.
        output: The YAML file; its folder is made.
        name: One of :data:`PIPELINES`.

    Raises:
        InputError: There is no such pipeline.
    """
    from kfp import compiler

    if name not in PIPELINES:
        raise InputError(f"There is no pipeline {name!r}; there are {', '.join(PIPELINES)}.")
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(PIPELINES[name](recipe, on_cluster=True), str(output))
    return output
