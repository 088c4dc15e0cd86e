"""The launcher, torchrun and the real trainer together, over the API of a cluster."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from train_helpers import documents, losses, make_job, tiny_settings, write_corpus, write_model

from components.common.errors import TrainingError
from components.common.manifest import Manifest
from components.train.launching.cluster.run import run_on_cluster
from components.train.launching.launcher import run_local
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.helpers import running_cluster, small, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with running_cluster(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def base(tmp_path: Path) -> Manifest:
    return write_model(tmp_path / "base")


@pytest.fixture
def corpus(tmp_path: Path) -> Manifest:
    return write_corpus(f"file://{tmp_path}/corpus", [documents(20)])


def test_a_model_trained_on_a_cluster_is_the_one_trained_here(
    tmp_path: Path,
    cluster: FakeCluster,
    corpus: Manifest,
    base: Manifest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    job = make_job(corpus, base, tiny_settings(), tmp_path / "store" / "out")
    run_on_cluster(job, small(tmp_path, nodes=2, memory="16Gi"), "pytorchjob")
    assert any(message.startswith("master-0 | Training from step 0") for message in caplog.messages)
    assert (tmp_path / "store" / "out" / "model" / "model.safetensors").exists()

    here = make_job(corpus, base, tiny_settings(processes_per_node=2), tmp_path / "here")
    run_local(here)
    assert losses(tmp_path / "store" / "out") == losses(tmp_path / "here")


def test_the_cause_of_a_failure_comes_from_the_worker_to_the_step(
    tmp_path: Path, cluster: FakeCluster, corpus: Manifest, base: Manifest
) -> None:
    bad = corpus.model_copy(update={"shards": [corpus.shards[0].model_copy(update={"sha256": "0" * 64})]})
    job = make_job(bad, base, tiny_settings(processes_per_node=2), tmp_path / "store" / "out")
    with pytest.raises(TrainingError, match=r"^Token shard train-00000 is corrupt"):
        run_on_cluster(job, small(tmp_path, memory="16Gi"), "trainjob")
    wait_for(lambda: not cluster.jobs())  # the worker said that trying again is of no use
