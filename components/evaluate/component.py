"""KFP interface of the evaluate stage."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def evaluate_model(
    role: str,
    evaluate: dict,
    model: dsl.Input[dsl.Model],
    benchmarks: dsl.Input[dsl.Dataset],
    corpus: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    finetune: dict = {},  # noqa: B006 - KFP reads it
):
    """Measure held-out perplexity and the benchmarks, and keep every answer; `finetune`: the run that made it."""
    import json
    from pathlib import Path

    from components.common import storage
    from components.common.absent import absent, is_absent
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.evaluate.settings import EvaluateSettings

    name = f"{role} fine-tuned {finetune['name']}" if finetune else role
    with step(f"Evaluate the {name}") as current:
        held_out, questions = Manifest.load(corpus.path), Manifest.load(benchmarks.path)
        settings = EvaluateSettings(**evaluate)
        current.run.log_params({"evaluate": settings.model_dump(mode="json"), "role": name})
        current.run.log_dataset(held_out, "evaluation")
        current.run.log_dataset(questions, "evaluation")
        root = storage.to_uri(get_settings().store_uri)
        measured = Manifest.load(model.path)
        if is_absent(measured):  # such as a champion where there is none: no need to wait for torch and lm-eval to load
            manifest = absent("evaluation", measured.extra["obstacle"])
        else:
            from components.evaluate.evaluate import evaluate as logic

            manifest = logic(name, measured, questions, held_out, settings, root)
        manifest.save(evaluation.path)
        evaluation.metadata.update(manifest.metadata())
        # A metrics artifact without a file counts as missing, and its step would never come from the cache.
        Path(metrics.path).write_text(json.dumps(manifest.totals), encoding="utf-8")
        for key, value in manifest.totals.items():
            metrics.log_metric(key, value)
        current.report(manifest.totals)
