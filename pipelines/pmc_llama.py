"""The pipeline: from articles to a registered model, on one page."""

from typing import Any

from kfp import dsl

from components.download.component import download_base_model, download_benchmarks, download_shard, plan_download
from components.evaluate.component import evaluate_model
from components.preprocess.component import assemble_corpus, extract_shard, find_duplicates, tokenize_shard
from components.register.component import register_model
from components.summary.component import summarise_run
from components.train.component import train_model
from pipelines.recipe import Recipe

PIPELINE_NAME = "pmc-llama"


def build_pipeline(defaults: Recipe) -> Any:
    """Return the pipeline; the recipe's sections are its parameters and their defaults.

    1. Download: plan the shards, fetch them in parallel; benchmarks and base model beside them.
    2. Preprocess: extract text without test questions per shard, remove duplicates over all, tokenise per shard,
       assemble the corpus.
    3. Train the base model on the corpus.
    4. Evaluate base and candidate alike.
    5. Register the candidate; it becomes champion when it passes the gate.

    Whatever happens, the last step writes the run's summary.
    """
    values = defaults.arguments()
    # Where nobody says which state the source is in, such as the newest inventory, the plan must look each time.
    must_look = defaults.download.source != "sample" and not defaults.download.version

    @dsl.pipeline(name=PIPELINE_NAME, description="Continue a LLaMA on medical articles, evaluate it, register it.")
    def pmc_llama(
        recipe: str = values["recipe"],
        download: dict = values["download"],
        preprocess: dict = values["preprocess"],
        train: dict = values["train"],
        evaluate: dict = values["evaluate"],
        register: dict = values["register"],
    ) -> None:
        summary = named(summarise_run(recipe=recipe), "Summarise the run").set_caching_options(False)

        with dsl.ExitHandler(summary, name="PMC-LLaMA"):
            plan = named(plan_download(download=download), "Plan the download")
            if must_look:
                plan.set_caching_options(False)
            benchmarks = named(download_benchmarks(download=download), "Fetch the benchmarks")
            base_model = named(download_base_model(download=download), "Fetch the base model")

            with dsl.ParallelFor(plan.outputs["Output"], name="Articles to text") as shard:
                raw = named(download_shard(download=download, plan=plan.outputs["plan"], shard=shard), "Fetch articles")
                clean = named(
                    extract_shard(
                        preprocess=preprocess,
                        raw=raw.outputs["raw"],
                        benchmarks=benchmarks.outputs["benchmarks"],
                        shard=shard,
                    ),
                    "Extract text",
                )

            unique = named(
                find_duplicates(preprocess=preprocess, clean=dsl.Collected(clean.outputs["clean"])), "Find duplicates"
            )

            with dsl.ParallelFor(unique.outputs["Output"], name="Text to tokens") as shard:
                tokens = named(
                    tokenize_shard(
                        preprocess=preprocess,
                        deduplicated=unique.outputs["deduplicated"],
                        base_model=base_model.outputs["base_model"],
                        shard=shard,
                    ),
                    "Tokenise",
                )

            corpus = named(
                assemble_corpus(
                    preprocess=preprocess,
                    deduplicated=unique.outputs["deduplicated"],
                    tokens=dsl.Collected(tokens.outputs["tokens"]),
                    benchmarks=benchmarks.outputs["benchmarks"],
                ),
                "Assemble the corpus",
            )

            candidate = named(
                train_model(train=train, corpus=corpus.outputs["corpus"], base_model=base_model.outputs["base_model"]),
                "Train the model",
            )

            base_evaluation = named(
                evaluate_model(
                    role="base",
                    evaluate=evaluate,
                    model=base_model.outputs["base_model"],
                    benchmarks=benchmarks.outputs["benchmarks"],
                    corpus=corpus.outputs["corpus"],
                ),
                "Evaluate the base model",
            )
            candidate_evaluation = named(
                evaluate_model(
                    role="candidate",
                    evaluate=evaluate,
                    model=candidate.outputs["model"],
                    benchmarks=benchmarks.outputs["benchmarks"],
                    corpus=corpus.outputs["corpus"],
                ),
                "Evaluate the candidate",
            )

            named(
                register_model(
                    recipe=recipe,
                    register=register,
                    model=candidate.outputs["model"],
                    corpus=corpus.outputs["corpus"],
                    base_evaluation=base_evaluation.outputs["evaluation"],
                    candidate_evaluation=candidate_evaluation.outputs["evaluation"],
                ),
                "Register the model",
            )

    return pmc_llama


def named(task: dsl.PipelineTask, display_name: str) -> dsl.PipelineTask:
    """Give a task the name that the Kubeflow UI and the run's summary show."""
    return task.set_display_name(display_name)
