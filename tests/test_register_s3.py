"""Evaluation and registration with everything in an S3 store."""

import random
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from components.common import storage
from components.common.manifest import Manifest
from components.common.settings import get_settings
from components.evaluate.evaluate import evaluate
from components.evaluate.settings import EvaluateSettings
from components.register.register import register
from components.register.registry.layout import missing_files
from components.register.settings import RegisterSettings
from tests.evaluate_helpers import questions, save_benchmarks, save_corpus, save_model


def moved(manifest: Manifest, folder: Path, store: str) -> Manifest:
    """Move what a manifest names from a local folder to the store."""
    storage.upload_folder(folder, store)
    here = f"file://{folder}"
    shards = [shard.model_copy(update={"uri": shard.uri.replace(here, store)}) for shard in manifest.shards]
    extra = {k: v.replace(here, store) if isinstance(v, str) else v for k, v in manifest.extra.items()}
    return manifest.model_copy(update={"shards": shards, "extra": extra})


def test_a_model_is_evaluated_registered_and_loaded_from_s3(s3_server, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PMC_STORE_URI", f"{s3_server}/store")
    get_settings.cache_clear()
    rng = random.Random(1)
    texts = {f"PMC{i}": [rng.randrange(320) for _ in range(40)] for i in range(8)}
    corpus = moved(save_corpus(tmp_path / "c", texts), tmp_path / "c", f"{s3_server}/corpus")
    files = {"medqa-test": questions("medqa", 10)}
    benchmarks = moved(save_benchmarks(tmp_path / "b", files), tmp_path / "b", f"{s3_server}/benchmarks")
    models = [
        moved(save_model(tmp_path, seed), tmp_path / f"model-{seed}", f"{s3_server}/train-{seed}") for seed in (0, 1)
    ]
    settings = EvaluateSettings(benchmarks=["medqa"], context_length=32)
    results = [evaluate(f"model {n}", model, benchmarks, corpus, settings, s3_server) for n, model in enumerate(models)]
    worse, better = sorted(zip(results, models, strict=True), key=lambda pair: -pair[0].totals["perplexity"])
    policy = RegisterSettings(model_name="tiny", benchmarks=["medqa"])
    outcome = register(better[1], corpus, worse[0], better[0], policy, {})
    assert {check.name: check.passed for check in outcome.verdict.checks}["perplexity against base"], outcome.verdict
    version = MlflowClient(uri).get_model_version_by_alias("tiny", "candidate")
    assert version.source == better[1].extra["model_uri"]
    assert version.source.startswith("s3://")
    assert storage.read(f"{version.source}/README.md").decode() == outcome.card
    assert missing_files(version.source) == []
    mlflow.set_tracking_uri(uri)
    try:
        served = mlflow.pyfunc.load_model("models:/tiny@candidate", dst_path=str(tmp_path))
    finally:
        mlflow.set_tracking_uri(None)
    assert served.predict("the heart", params={"max_new_tokens": 4})[0]
