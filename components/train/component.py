"""KFP interface of the train stage."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def train_model(
    train: dict,
    corpus: dsl.Input[dsl.Dataset],
    base_model: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Continue the base model's pre-training on the corpus; goes on from the newest checkpoint if there is one."""
    import json
    from pathlib import Path

    from components.common import storage
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.train.settings import TrainSettings
    from components.train.train import train as logic

    with step("Train the model") as current:
        corpus_manifest = Manifest.load(corpus.path)
        settings = TrainSettings(**train)
        current.run.log_params({"train": settings.model_dump(mode="json")})
        current.run.log_dataset(corpus_manifest, "training")
        root = storage.to_uri(get_settings().store_uri)
        manifest = logic(corpus_manifest, Manifest.load(base_model.path), settings, root)
        manifest.save(model.path)
        model.metadata.update(manifest.metadata())
        # A metrics artifact without a file counts as missing, and its step would never come from the cache.
        Path(metrics.path).write_text(json.dumps(manifest.totals), encoding="utf-8")
        for key, value in manifest.totals.items():
            metrics.log_metric(key, value)
        current.report(manifest.totals)


@kfp_step
def finetune_model(
    role: str,
    finetune: dict,
    base_model: dsl.Input[dsl.Model],
    benchmarks: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Fine-tune the base or the candidate (`role`) on training questions; each of the recipe's runs has its name."""
    import json
    from pathlib import Path

    from components.common import storage
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.train.finetune import finetune as logic
    from components.train.settings import FinetuneSettings

    name = finetune.pop("name")
    with step(f"Fine-tune the {role} ({name})") as current:
        settings = FinetuneSettings(**finetune)
        current.run.log_params({"finetune": settings.model_dump(mode="json")})
        benchmarks_manifest = Manifest.load(benchmarks.path)
        current.run.log_dataset(benchmarks_manifest, "fine-tuning")
        root = storage.to_uri(get_settings().store_uri)
        manifest = logic(Manifest.load(base_model.path), benchmarks_manifest, settings, root)
        manifest.save(model.path)
        model.metadata.update(manifest.metadata())
        # A metrics artifact without a file counts as missing, and its step would never come from the cache.
        Path(metrics.path).write_text(json.dumps(manifest.totals), encoding="utf-8")
        for key, value in manifest.totals.items():
            metrics.log_metric(key, value)
        current.report(manifest.totals)
