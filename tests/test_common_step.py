"""The frame around a step: outcome, record, exit status, and its end when the runner is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.common import storage, tracking
from components.common.errors import InputError, PipelineError
from components.common.settings import get_settings
from components.common.step import records_of_run, step


@pytest.fixture
def run_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMC_STORE_URI", storage.to_uri(tmp_path / "store"))
    monkeypatch.setenv("PMC_RUN_ID", "run-1")
    get_settings.cache_clear()
    return tmp_path


def test_a_step_that_succeeds_leaves_its_numbers(run_place: Path) -> None:
    with step("Fetch articles (shard-00000)") as current:
        current.report({"articles": 3})
    (record,) = records_of_run()
    assert (record["step"], record["status"]) == ("Fetch articles (shard-00000)", "SUCCEEDED")
    assert record["numbers"] == {"articles": 3}


def test_a_step_that_fails_ends_with_one_sentence_and_status_1(
    run_place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, step("Plan the download"):
        raise InputError("The archive x.tar.gz is truncated; fetch it again.")
    assert end.value.code == 1
    shown = capsys.readouterr().err
    assert "Plan the download failed: The archive x.tar.gz is truncated" in shown
    assert "Traceback" not in shown
    assert records_of_run()[0]["error"] == "The archive x.tar.gz is truncated; fetch it again."


def test_a_fault_of_ours_keeps_its_traceback(run_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), step("Plan the download"):
        raise ZeroDivisionError("oops")
    assert "Traceback" in capsys.readouterr().err
    assert records_of_run()[0]["error"] == "ZeroDivisionError: oops"


def test_a_killed_step_is_on_record_as_running(run_place: Path) -> None:
    code = "import os\nfrom components.common.step import step\nwith step('Train'): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert [(r["step"], r["status"]) for r in records_of_run()] == [("Train", "RUNNING")]


def test_a_step_ends_when_its_runner_is_killed(run_place: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    body = "print('up', flush=True); time.sleep(60)"
    code = f"import time\nfrom components.common.step import step\nwith step('Train'): {body}"
    environment = {**os.environ, "PMC_RUNNER_PID": str(runner.pid)}
    # As under KFP, the runner is not the step's parent: a shell stands between them.
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    runner.kill()
    runner.wait()
    assert child.wait(timeout=40) == -signal.SIGKILL


def test_steps_of_a_run_are_nested_in_one_parent_and_a_retry_goes_on_in_its_run(
    run_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{run_place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    get_settings.cache_clear()
    with pytest.raises(SystemExit), step("Train"):
        raise InputError("no")
    with step("Train") as current:
        current.run.log_params({"train": {"epochs": 2, "mixture": {"file:///other": 0.5}, "labels": {}}})
        current.report({"loss": 1.5, "name": "x"})
    with step("Evaluate"):
        pass
    tracking.finish_pipeline_run(failed=False, tags={"pipeline.recipe": "tiny"}, metrics={})
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("pmc-llama").experiment_id])
    parent = next(run for run in runs if run.data.tags["pipeline.step"] == "")
    children = {run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert len(runs) == 3
    assert set(children) == {"Train", "Evaluate"}
    assert (children["Train"].info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert children["Train"].data.metrics == {"loss": 1.5}
    assert children["Train"].data.params == {
        "train.epochs": "2",
        "train.mixture": "{'file:///other': 0.5}",
        "train.labels": "{}",
    }


def test_an_injected_run_is_used_and_no_other_is_made(run_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{run_place}/mlflow.db"
    client = MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    get_settings.cache_clear()
    with step("Train") as current:
        current.report({"loss": 2.0})
    assert [run.info.run_id for run in client.search_runs(["0"])] == [run_id]
    assert client.get_experiment_by_name("pmc-llama") is None
    assert client.get_run(run_id).data.metrics == {"loss": 2.0}


def test_a_database_that_cannot_be_is_refused_at_once(run_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////no/such/folder/mlflow.db")
    get_settings.cache_clear()
    started = time.monotonic()
    with pytest.raises(SystemExit), step("Train"):
        pass
    assert time.monotonic() - started < 30
    assert "/no/such/folder" in json.dumps(records_of_run())


def test_a_worker_logs_into_its_steps_run_with_metrics_of_the_machine(
    run_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{run_place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    get_settings.cache_clear()
    with step("Train") as current, tracking.worker_run() as worker:
        worker.log_metric_points([(1, {"loss": 2.0}), (2, {"loss": 1.0})])
        time.sleep(0.5)
    client = MlflowClient(uri)
    assert [p.value for p in client.get_metric_history(current.run.run_id, "loss")] == [2.0, 1.0]
    assert "system/cpu_utilization_percentage" in client.get_run(current.run.run_id).data.metrics


def test_a_tracking_server_that_is_not_there_is_named_soon_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:sentinel@127.0.0.1:9")
    get_settings.cache_clear()
    started = time.monotonic()
    with pytest.raises(PipelineError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer") as refused:
        tracking.initialise()
    assert time.monotonic() - started < 30
    assert "sentinel" not in str(refused.value)
