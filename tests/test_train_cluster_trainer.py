"""The stage, the launcher, torchrun and the real trainer together: on this machine, and over the API of a cluster."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from train_helpers import alone, documents, losses, make_job, tiny_settings, train_here, write_corpus, write_model

from components.common.errors import TrainingError
from components.common.manifest import Manifest
from components.train.launching.cluster.run import run_on_cluster
from components.train.train import train
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.helpers import running_cluster, small, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with running_cluster(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    texts = documents(45)
    return write_corpus(f"file://{tmp_path_factory.mktemp('corpus')}", [texts[:20], texts[20:]])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def model(corpus: Manifest, base: Manifest, root: Path) -> Manifest:
    """What two processes on this machine make."""
    return train(corpus, base, tiny_settings(processes_per_node=2, mask_padding=True), f"file://{root}")


def folder_of(model: Manifest, root: Path) -> Path:
    return root / "models" / "trained" / model.fingerprint


def test_the_stage_trains_once_and_two_processes_give_the_losses_of_one(
    tmp_path: Path, corpus: Manifest, base: Manifest, model: Manifest, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as nothing_may_start:
        nothing_may_start.setattr(subprocess, "Popen", None)
        settings = tiny_settings(log_every_steps=3, mask_padding=True)
        assert train(corpus, base, settings, f"file://{root}") == model

    assert (model.kind, model.inputs) == ("model", {"corpus": "c0", "base_model": "b0"})
    assert (model.totals["steps"], model.totals["processes"]) == (12, 2)
    assert model.extra["model_uri"] == f"file://{root}/models/trained/{model.fingerprint}/model"
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {shard.name for shard in model.shards}

    with alone() as layout:
        train_here(make_job(corpus, base, tiny_settings(mask_padding=True), tmp_path / "one"), layout)
    two_processes = losses(folder_of(model, root))
    for one, two in zip(losses(tmp_path / "one"), two_processes, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], abs=1e-3)
        assert (two["tokens"], two["padding"]) == (one["tokens"], one["padding"])
    assert model.totals["final_loss"] == two_processes[-1]["loss"]


def test_a_model_trained_on_a_cluster_is_the_one_trained_here(
    tmp_path: Path,
    cluster: FakeCluster,
    corpus: Manifest,
    base: Manifest,
    model: Manifest,
    root: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    job = make_job(corpus, base, tiny_settings(mask_padding=True), tmp_path / "store" / "out")
    run_on_cluster(job, small(tmp_path, nodes=2, memory="16Gi"), "pytorchjob")
    assert any(message.startswith("master-0 | Training from step 0") for message in caplog.messages)
    assert (tmp_path / "store" / "out" / "model" / "model.safetensors").exists()
    assert losses(tmp_path / "store" / "out") == losses(folder_of(model, root))


def test_the_cause_of_a_failure_comes_from_the_worker_to_the_step(
    tmp_path: Path, cluster: FakeCluster, corpus: Manifest, base: Manifest
) -> None:
    bad = corpus.model_copy(update={"shards": [corpus.shards[0].model_copy(update={"sha256": "0" * 64})]})
    # torchrun and one worker; test_train_launcher.py has two of them fail.
    job = make_job(bad, base, tiny_settings(), tmp_path / "store" / "out")
    with pytest.raises(TrainingError, match=r"^Token shard train-00000 is corrupt"):
        run_on_cluster(job, small(tmp_path, memory="16Gi"), "trainjob")
    wait_for(lambda: not cluster.jobs())  # the worker said that trying again is of no use
