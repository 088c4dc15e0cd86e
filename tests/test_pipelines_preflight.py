"""python -m pipelines preflight: a table, and an exit status that a script can use."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.preflight.findings import failed, ok
from pipelines.cli import app
from pipelines.preflight import preflight, show_preflight
from pipelines.recipe import load_recipe
from tests.fake_cluster.helpers import running_cluster


def test_a_laptop_with_everything_exits_with_nothing_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["preflight", "--home", str(tmp_path / "home")])
    assert done.exit_code == 0, done.output
    assert "4 ok." in done.output


def test_a_failed_finding_is_the_exit_status(tmp_path: Path) -> None:
    missing = f"download.base_model={tmp_path}/none"
    done = CliRunner().invoke(app, ["preflight", "--home", str(tmp_path / "home"), "--set", missing])
    assert done.exit_code == 1
    assert "Base model" in done.output and "4 ok, 1 failed." in done.output


def test_a_submission_is_looked_at_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMC_STORE_URI", "s3://bucket/prefix")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://pmc-llama-s3:8333")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://pmc-llama-mlflow:5000")
    monkeypatch.setenv("PMC_IMAGE", "127.0.0.1:9/pipeline:1")
    monkeypatch.setenv("PMC_TRAINER_IMAGE", "127.0.0.1:9/trainer:1")
    recipe = load_recipe(
        "tiny", ["train.launcher=pytorchjob", "train.cluster.queue=gpus", "steps.service_account=steps"]
    )
    with running_cluster(tmp_path, monkeypatch) as cluster:
        cluster.local_queues["gpus"] = ""
        cluster.accounts.add("steps")
        cluster.secrets |= {name: dict.fromkeys(keys, "x") for name, keys in recipe.steps.secrets.items()}
        cluster.configmaps |= {name: dict.fromkeys(keys, "x") for name, keys in recipe.steps.config_maps.items()}
        cluster.denied.add(("create", "pytorchjobs"))
        states = {each.subject: each.state for each in preflight(recipe, submitting=True)}
        assert "failed" not in states.values()
        assert states["Store"] == states["MLflow"] == states["Rights on pytorchjobs.kubeflow.org"] == "unknown"
        assert states["LocalQueue gpus"] == states["Rights on pods"] == "ok"
        assert states["ServiceAccount steps"] == "ok"
        del cluster.served["kubeflow.org"]
        after = {each.subject: each.state for each in preflight(recipe, submitting=True)}
        assert states.keys() == after.keys()
        assert after["PyTorchJob (kubeflow.org)"] == "failed"


def test_the_table_says_whether_a_run_may_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_preflight([ok("Store", "Fine.")])
    assert not show_preflight([ok("Store", "Fine."), failed("MLflow", "[red]gone[/red] at http://u:p@h.", "Start it.")])
    shown = capsys.readouterr().out
    assert "[red]gone[/red]" in shown and "u:p@" not in shown
