"""No training job outlives its pipeline run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.summary.clean_up import CleanUp, clean_up
from pipelines.cli import app
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.helpers import running_cluster, wait_for

TRAIN = {"launcher": "pytorchjob", "epochs": 3, "cluster": {"namespace": "team-a"}}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    with running_cluster(tmp_path, monkeypatch) as running:
        yield running


def add_job(cluster: FakeCluster, plural: str, name: str, run: str) -> None:
    labels = {"app.kubernetes.io/managed-by": "pmc-llama-pipeline", "pmc-llama/run": run}
    kind = {"pytorchjobs": "PyTorchJob", "trainjobs": "TrainJob"}[plural]
    spec = {"runPolicy": {"suspend": True}} if plural == "pytorchjobs" else {"suspend": True}
    cluster.store.add(plural, {"kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec})


def test_the_jobs_of_the_run_are_deleted_and_no_others(cluster: FakeCluster) -> None:
    add_job(cluster, "pytorchjobs", "ours", "run-1")
    add_job(cluster, "trainjobs", "ours-too", "run-1")
    add_job(cluster, "pytorchjobs", "anothers", "run-2")
    assert sorted(clean_up("run-1", TRAIN).deleted) == ["ours", "ours-too"]
    wait_for(lambda: [job["metadata"]["name"] for job in cluster.jobs()] == ["anothers"])
    assert clean_up("run-1", TRAIN) == CleanUp()


def test_a_run_that_trains_in_its_own_step_asks_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert clean_up("run-1", {"launcher": "local"}) == CleanUp()
    assert clean_up("run-1", {"launcher": "pytorchjob", "cluster": {"nodes": -1}}) == CleanUp()


def test_a_clean_up_that_is_refused_says_what_to_delete_by_hand(cluster: FakeCluster) -> None:
    cluster.denied.add(("list", "pytorchjobs"))
    problem = clean_up("run-1", TRAIN).problem
    assert "The step may not list pytorchjobs.kubeflow.org in namespace team-a" in problem
    assert problem.endswith(
        "kubectl delete pytorchjobs,trainjobs -n team-a "
        "-l 'app.kubernetes.io/managed-by=pmc-llama-pipeline,pmc-llama/run=run-1'"
    )


def test_people_can_clean_up_after_a_run_that_never_reached_its_last_step(cluster: FakeCluster) -> None:
    add_job(cluster, "pytorchjobs", "ours", "run-1")
    result = CliRunner().invoke(app, ["clean-up", "run-1", "--namespace", "team-a"])
    assert result.output.endswith("1 jobs of run run-1 deleted.\n")
    wait_for(lambda: not cluster.jobs())
