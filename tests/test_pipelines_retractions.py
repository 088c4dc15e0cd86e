"""The retraction watch as a user runs it: the command, its exit status and output, and the scheduled pipeline."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fault_server import FaultServer
from typer.testing import CliRunner

from components.common.errors import InputError
from components.common.settings import get_settings
from pipelines.cli import app
from pipelines.compile import compile_pipeline
from pipelines.recipe import load_recipe
from pipelines.watch import watch
from tests.retractions_helpers import MODEL, SECOND, bucket, client, migrated_database, train

__all__ = ["bucket", "client", "migrated_database"]

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server(bucket, monkeypatch) -> Iterator[FaultServer]:
    with FaultServer(bucket.folder) as running:
        monkeypatch.setenv("PMC_OA_ENDPOINT_URL", running.endpoint)
        get_settings.cache_clear()
        yield running


def recipe(*settings: str):
    return load_recipe("tiny", ["download.transport.attempts=2", "download.transport.concurrency=8", *settings])


def test_the_command_reports_in_a_table_a_file_and_its_exit_status(bucket, client, server, tmp_path, monkeypatch):
    # As after `run --home`: the store and MLflow's database lie in the home, and nothing else says where they are.
    train(bucket, client, tmp_path / "store")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("PMC_STORE_URI")
    bucket.update(101, retracted=True)
    bucket.withdraw(102)
    bucket.write_inventory(SECOND)
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "pipelines", "retractions", "--model", f"{MODEL}/1", "--home", str(tmp_path)]
    done = subprocess.run(
        [*command, "--json", str(out)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 3, done.stderr
    rows = [line for line in done.stdout.splitlines() if "PMC10" in line]
    assert [("PMC101" in rows[0], "retracted" in rows[0]), ("PMC102" in rows[1], "withdrawn" in rows[1])] == [
        (True, True),
        (True, True),
    ]
    assert f"learned from, 1 is retracted and 1 is withdrawn since (inventory {SECOND})." in done.stdout
    assert "In numbers: retracted 1, withdrawn 1, unchanged 10." in done.stdout
    report = json.loads(out.read_text())
    assert [each["id"] for each in report["articles"]] == ["PMC101", "PMC102"]
    assert client.get_model_version(MODEL, "1").tags["retracted_ids"] == "PMC101"
    assert "Traceback" not in done.stderr


def test_the_exit_status_tells_none_some_and_not_known_apart(bucket, client, server, tmp_path, capsys):
    train(bucket, client, tmp_path / "store")
    assert watch(MODEL, recipe(), None, 30) == 0
    assert "None of the 12 articles" in capsys.readouterr().out
    bucket.update(101, title="broken", metadata_missing=True)
    bucket.write_inventory(SECOND)
    assert watch(MODEL, recipe(), None, 30) == 4
    printed = capsys.readouterr().out
    assert "None of" not in printed
    assert "unknown (missing)" in printed
    bucket.update(102, retracted=True)
    bucket.write_inventory("2026-08-27T01-00Z")
    assert watch(MODEL, recipe(), None, 1) == 3
    printed = capsys.readouterr().out
    assert "PMC102" in printed
    assert "and 1 more" in printed
    assert "1 could not be checked (missing 1)" in printed


def test_a_file_that_cannot_be_written_is_refused_before_the_work(client, server, tmp_path):
    for file in (tmp_path / "absent" / "report.json", tmp_path):
        with pytest.raises(InputError, match="Cannot write"):
            watch(MODEL, recipe(), file, 30)
    assert server.keys() == []


def test_the_help_documents_every_exit_status():
    shown = CliRunner().invoke(app, ["retractions", "--help"], terminal_width=200).output
    assert "0 when none is retracted or withdrawn, 3 when some are, 4 when none is known to be" in " ".join(
        shown.split()
    )


def test_it_compiles_with_the_recipes_values_as_defaults_and_never_comes_from_a_cache(tmp_path):
    chosen = recipe("download.pmc.inventory=2026-08-25T01-00Z", "register.model_name=mine")
    path = compile_pipeline(chosen, tmp_path / "deep" / "retractions.yaml", "retractions")
    document = next(yaml.safe_load_all(path.read_text()))
    assert document["pipelineInfo"]["name"] == "pmc-llama-retractions"
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) >= {"model", "pmc", "transport"}
    assert parameters["model"]["defaultValue"] == "mine"
    assert parameters["pmc"]["defaultValue"]["inventory"] == "2026-08-25T01-00Z"
    assert parameters["transport"]["defaultValue"]["attempts"] == 2
    dags = [document["root"]["dag"], *(c["dag"] for c in document["components"].values() if "dag" in c)]
    tasks = {task["taskInfo"]["name"]: task for dag in dags for task in dag["tasks"].values()}
    assert set(tasks) == {"Look for retractions", "Summarise the run", "Retraction watch"}
    for name in ("Look for retractions", "Summarise the run"):
        assert not tasks[name].get("cachingOptions", {}).get("enableCache")
    assert "pip install" not in path.read_text()


def test_the_command_compiles_it_and_refuses_a_pipeline_that_does_not_exist(tmp_path):
    output = tmp_path / "watch.yaml"
    done = CliRunner().invoke(app, ["compile", "--pipeline", "retractions", "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert "pmc-llama-retractions" in output.read_text()
    refused = CliRunner().invoke(app, ["compile", "--pipeline", "retraction", "--output", str(output)])
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception) == "There is no pipeline 'retraction'; there are pmc-llama, retractions."


@pytest.mark.slow
def test_the_pipeline_reports_as_a_page_and_as_metrics_and_ends_its_mlflow_run(
    bucket, client, server, tmp_path, monkeypatch
):
    from kfp import local

    from pipelines.retractions import build_retractions_pipeline

    train(bucket, client, tmp_path / "store")
    bucket.update(101, retracted=True, title="<b>Bold</b>")
    bucket.write_inventory(SECOND)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PMC_RUN_ID", "watch-1")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"))
    build_retractions_pipeline(recipe())(model=MODEL)
    pages = [path.read_text() for path in (tmp_path / "kfp").rglob("report")]
    assert len(pages) == 1
    assert "&lt;b&gt;Bold&lt;/b&gt;" in pages[0]
    assert f"1 is retracted since (inventory {SECOND})" in pages[0]
    metrics = [json.loads(path.read_text()) for path in (tmp_path / "kfp").rglob("metrics")]
    assert [(each["retracted_articles"], each["trained_articles"]) for each in metrics] == [(1, 12)]
    assert client.get_model_version(MODEL, "1").tags["retracted_articles"] == "1"
    runs = client.search_runs([client.get_experiment_by_name("pmc-llama").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert any(run.data.metrics.get("retracted_articles") == 1 for run in runs)
