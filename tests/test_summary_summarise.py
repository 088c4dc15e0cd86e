"""The summary that every run ends with."""

import json
from pathlib import Path

import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.settings import get_settings
from components.common.step import step
from components.summary.clean_up import CleanUp
from components.summary.summarise import summarise, to_html


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PMC_STORE_URI", storage.to_uri(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("PMC_RUN_ID", "run-7")
    get_settings.cache_clear()
    return storage.to_uri(tmp_path / "store")


def test_a_failed_run_says_which_step_failed_and_why(store: str) -> None:
    with step("Plan the download"):
        pass
    with pytest.raises(SystemExit), step("Train the model"):
        raise InputError("The shard <train-00000> is corrupt.")
    summary = summarise("tiny", "FAILED", "", CleanUp())
    assert summary["cause"] == "Train the model: The shard <train-00000> is corrupt."
    assert summary["steps_executed"] == 2
    page = to_html(summary)
    assert "&lt;train-00000&gt; is corrupt" in page
    assert "<train-00000>" not in page
    assert json.loads(storage.read(storage.join(store, "runs/run-7/summary.json")))["state"] == "FAILED"


def test_a_run_ends_in_mlflow_with_its_outcome_and_its_steps_numbers(store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with step("Train the model") as current:
        current.report({"final_loss": 2.5})
    with step("Fetch articles (shard-00000)") as current:
        current.report({"articles": 3})
    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(
        summarise("tiny", "SUCCEEDED", "", CleanUp())["mlflow_run"]
    )
    assert run.info.status == "FINISHED"
    assert run.data.metrics["Train the model/final_loss"] == 2.5
    assert not any(key.startswith("Fetch articles") for key in run.data.metrics)
    assert run.data.tags["pipeline.recipe"] == "tiny"


def test_a_run_that_was_all_cached_says_so(store: str) -> None:
    summary = summarise("tiny", "SUCCEEDED", "", CleanUp())
    assert summary["steps_executed"] == 0
    assert "0 steps ran" in to_html(summary)


def test_the_page_names_the_jobs_that_were_deleted_and_what_could_not_be(store: str) -> None:
    page = to_html(summarise("tiny", "FAILED", "", CleanUp(deleted=("pmc-pretrain-1",))))
    assert "deleted: pmc-pretrain-1." in page
    page = to_html(summarise("tiny", "FAILED", "", CleanUp(problem="The step may not list <pytorchjobs>.")))
    assert "may not list &lt;pytorchjobs&gt;" in page
