"""The pipeline: from articles to a registered model, on one page."""

from typing import Any

from kfp import dsl

from components.download.component import download_base_model, download_benchmarks, download_shard, plan_download
from components.evaluate.component import evaluate_model
from components.preflight.component import run_preflight
from components.preprocess.component import assemble_corpus, extract_shard, find_duplicates, tokenize_shard
from components.register.component import champion_model, register_answering_model, register_model
from components.summary.component import summarise_run
from components.train.component import finetune_model, train_model
from pipelines.placing import Placing
from pipelines.recipe import Recipe
from pipelines.step_settings import STEPS

PIPELINE_NAME = "pmc-llama"


def build_pipeline(defaults: Recipe, on_cluster: bool = False) -> Any:
    """Return the pipeline; the recipe's sections are its parameters and their defaults.

    1. Download: plan the shards, fetch them in parallel; benchmarks and base model beside them.
    2. Preprocess: extract text without test questions per shard, remove duplicates over all, tokenise per shard,
       assemble the corpus.
    3. Train the base model on the corpus.
    4. Evaluate base, candidate and the champion that is there, all alike.
    5. Fine-tune base and candidate under the same settings, as the paper does, and evaluate these too: each of the
       recipe's fine-tuning runs beside the others. A recipe without such runs has no such box, and a list that is empty
       when the run starts would leave KFP nothing to collect.
    6. Register the candidate; it becomes champion when it passes the gate.
    7. Let the candidate learn to follow instructions, evaluate it again and register what answers, under a name of its
       own. This box comes last: what answers may be no better than what it was taught from, whose verdict it needs.

    Before all, a look whether everything is there that the run needs. Whatever happens, the last step writes the run's
    summary and deletes what is left of it on the cluster.

    Args:
        defaults: The recipe.
        on_cluster: Whether the steps have pods, and a person may change the parameters after it is compiled.
    """
    values = {"finetune": None, "instruct": None, **defaults.arguments()}
    placed = Placing(
        defaults.steps,
        on_cluster,
        used=[step for step in STEPS if step != "retractions" and (step != "finetune" or defaults.finetune)],
        trains_here=_steps_that_train_here(defaults),
    )
    # Where nobody says which state the source is in, such as the newest inventory, the plan must look each time.
    must_look = not defaults.download.version and (on_cluster or defaults.download.source != "sample")

    @dsl.pipeline(name=PIPELINE_NAME, description="Continue a LLaMA on medical articles, evaluate it, register it.")
    @placed.parameters
    def pmc_llama(
        recipe: str = values["recipe"],
        download: dict = values["download"],
        preprocess: dict = values["preprocess"],
        train: dict = values["train"],
        evaluate: dict = values["evaluate"],
        register: dict = values["register"],
        finetune: list = values["finetune"],
        instruct: list = values["instruct"],
    ) -> None:
        summary = placed(summarise_run(recipe=recipe, train=train), "summary", "Summarise the run")

        with dsl.ExitHandler(summary, name="PMC-LLaMA"):
            preflight = placed(
                run_preflight(recipe=recipe, download=download, train=train), "preflight", "Look whether all is there"
            )

            plan = placed(plan_download(download=download), "plan", "Plan the download").after(preflight)
            if must_look:
                plan.set_caching_options(False)
            benchmarks = placed(download_benchmarks(download=download), "benchmarks", "Fetch the benchmarks")
            benchmarks.after(preflight)
            base_model = placed(download_base_model(download=download), "base_model", "Fetch the base model")
            base_model.after(preflight)

            with dsl.ParallelFor(plan.outputs["Output"], name="Articles to text") as shard:
                raw = placed(
                    download_shard(download=download, plan=plan.outputs["plan"], shard=shard),
                    "download",
                    "Fetch articles",
                )
                clean = placed(
                    extract_shard(
                        preprocess=preprocess,
                        raw=raw.outputs["raw"],
                        benchmarks=benchmarks.outputs["benchmarks"],
                        shard=shard,
                    ),
                    "extract",
                    "Extract text",
                )

            unique = placed(
                find_duplicates(preprocess=preprocess, clean=dsl.Collected(clean.outputs["clean"])),
                "duplicates",
                "Find duplicates",
            )

            with dsl.ParallelFor(unique.outputs["Output"], name="Text to tokens") as shard:
                tokens = placed(
                    tokenize_shard(
                        preprocess=preprocess,
                        deduplicated=unique.outputs["deduplicated"],
                        base_model=base_model.outputs["base_model"],
                        shard=shard,
                    ),
                    "tokenize",
                    "Tokenise",
                )

            corpus = placed(
                assemble_corpus(
                    preprocess=preprocess,
                    deduplicated=unique.outputs["deduplicated"],
                    tokens=dsl.Collected(tokens.outputs["tokens"]),
                    benchmarks=benchmarks.outputs["benchmarks"],
                ),
                "corpus",
                "Assemble the corpus",
            )

            candidate = placed(
                train_model(train=train, corpus=corpus.outputs["corpus"], base_model=base_model.outputs["base_model"]),
                "train",
                "Train the model",
            )

            champion = placed(
                champion_model(register=register, candidate=candidate.outputs["model"]), "register", "Find the champion"
            ).set_caching_options(False)

            def measured(role: str, model: Any, display_name: str, **fine_tuning: Any) -> Any:
                task = evaluate_model(
                    role=role,
                    evaluate=evaluate,
                    model=model,
                    benchmarks=benchmarks.outputs["benchmarks"],
                    corpus=corpus.outputs["corpus"],
                    **fine_tuning,
                )
                return placed(task, "evaluate", display_name).outputs["evaluation"]

            evaluations = {
                "base_evaluation": measured("base", base_model.outputs["base_model"], "Evaluate the base model"),
                "candidate_evaluation": measured("candidate", candidate.outputs["model"], "Evaluate the candidate"),
                "champion_evaluation": measured("champion", champion.outputs["model"], "Evaluate the champion"),
            }

            def finetuned(role: str, model: Any, run: Any, display_name: str) -> Any:
                task = finetune_model(
                    role=role, finetune=run, base_model=model, benchmarks=benchmarks.outputs["benchmarks"]
                )
                return placed(task, "finetune", display_name).outputs["model"]

            fine_tuned = {}
            if values["finetune"]:
                with dsl.ParallelFor(finetune, name="Fine-tune and compare") as run:
                    base_tuned = finetuned("base", base_model.outputs["base_model"], run, "Fine-tune the base model")
                    base_results = measured("base", base_tuned, "Evaluate the fine-tuned base model", finetune=run)
                    tuned = finetuned("candidate", candidate.outputs["model"], run, "Fine-tune the candidate")
                    results = measured("candidate", tuned, "Evaluate the fine-tuned candidate", finetune=run)
                fine_tuned = {
                    "fine_tuned_bases": dsl.Collected(base_tuned),
                    "fine_tuned_base_evaluations": dsl.Collected(base_results),
                    "fine_tuned_candidates": dsl.Collected(tuned),
                    "fine_tuned_candidate_evaluations": dsl.Collected(results),
                }

            registered = placed(
                register_model(
                    recipe=recipe,
                    register=register,
                    model=candidate.outputs["model"],
                    corpus=corpus.outputs["corpus"],
                    base_model=base_model.outputs["base_model"],
                    benchmarks=benchmarks.outputs["benchmarks"],
                    **evaluations,
                    **fine_tuned,
                ),
                "register",
                "Register the model",
            )

            if values["instruct"]:
                with dsl.ParallelFor(instruct, name="Follow instructions") as run:
                    tuned = finetuned("candidate", candidate.outputs["model"], run, "Teach the candidate to answer")
                    answers = measured("candidate", tuned, "Evaluate the candidate that answers", finetune=run)
                    placed(
                        register_answering_model(
                            recipe=recipe,
                            register=register,
                            finetune=run,
                            model=tuned,
                            evaluation=answers,
                            parent=candidate.outputs["model"],
                            parent_evaluation=evaluations["candidate_evaluation"],
                            parent_registration=registered.outputs["registration"],
                            corpus=corpus.outputs["corpus"],
                            benchmarks=benchmarks.outputs["benchmarks"],
                        ),
                        "register",
                        "Register the model that answers",
                    )

    return pmc_llama


def _steps_that_train_here(recipe: Recipe) -> list[str]:
    """The steps that need the trainer's image: the others launch a job that has it."""
    settings = [("train", recipe.train), *(("finetune", run) for run in recipe.finetune.values())]
    return [step for step, each in settings if each.launcher == "local"]
