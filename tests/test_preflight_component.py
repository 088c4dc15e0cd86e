"""The pipeline's first step: its page, its metadata, and a failure that names everything."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.common.settings import get_settings
from components.preflight.component import run_preflight
from components.preflight.findings import failed, ok, unknown
from components.preflight.page import to_html
from components.preflight.preflight import examine


def run(tmp_path: Path, download: dict[str, Any], train: dict[str, Any]) -> Any:
    page = SimpleNamespace(path=str(tmp_path / "page.html"), metadata={})
    run_preflight.python_func(recipe="tiny", download=download, train=train, page=page)
    return page


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMC_STORE_URI", f"file://{tmp_path}/store")
    monkeypatch.setenv("PMC_RUN_ID", "run-1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    get_settings.cache_clear()


def test_a_step_with_nothing_to_mend_writes_its_page_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    page = run(tmp_path, {}, {"launcher": "local", "cluster": {"priority_class": "none"}})
    assert page.metadata == {"ok": 4, "warning": 0, "failed": 0, "unknown": 0}
    assert "file://" in (tmp_path / "page.html").read_text()
    record = json.loads((tmp_path / "store/runs/run-1/steps/look-whether-all-is-there.json").read_text())
    assert record["status"] == "SUCCEEDED" and record["numbers"]["failed"] == 0


def test_a_step_fails_with_everything_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the step's own frame must not wait for it
    with pytest.raises(SystemExit) as end:
        run(tmp_path, {"base_model": str(tmp_path / "none")}, {"launcher": "local"})
    assert end.value.code == 1
    error = json.loads((tmp_path / "store/runs/run-1/steps/look-whether-all-is-there.json").read_text())["error"]
    assert error.startswith("2 things stand in the way of this run. (1) MLflow: http://127.0.0.1:9 cannot be reached")
    assert f"(2) Base model: There is nothing at {tmp_path}/none. Correct download.base_model" in error
    assert (tmp_path / "page.html").read_text().count('class="failed"') == 2


def test_a_recipe_that_cannot_be_read_is_a_finding() -> None:
    (found,) = examine({}, {"launcher": "slurm"})
    assert found.state == "failed" and found.found.startswith("The recipe is not valid: launcher: Input should be")


def test_the_page_shows_the_worst_first_and_escapes_what_others_wrote() -> None:
    findings = [
        ok("a", "Fine."),
        unknown("b", "Dark.", "Light."),
        failed("c", "<script>alert(1)</script>", "Mend & go."),
    ]
    page = to_html("<tiny>", findings)
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;tiny&gt;" in page
    assert page.index(">c</td>") < page.index(">b</td>") < page.index(">a</td>")
    assert "1 failed, 0 to think of, 1 that cannot be seen from here, 1 as they should be." in page
