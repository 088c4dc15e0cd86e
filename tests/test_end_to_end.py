"""The whole pipeline, as a user runs it: to a registered model, again from the cache, after a kill."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline_helpers import QUICK, TASKS, Finished, kill_when, losses, manifests, run, start

from components.common import storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run with a space") / "home"


@pytest.fixture(scope="module")
def first(home: Path) -> Finished:
    finished = run(home, *QUICK)
    assert finished.code == 0, finished.output
    return finished


def test_a_run_ends_with_a_registered_model_and_a_true_table(first: Finished, home: Path) -> None:
    from mlflow import MlflowClient

    (corpus,) = manifests(home / "store", "corpus")
    left_out = sum(corpus.dropped.values()) + len(corpus.rejected)
    assert corpus.totals["listed"] == corpus.totals["documents"] + left_out
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    (version,) = client.search_model_versions("name='pmc-llama-tiny'")
    (model,) = [m for m in manifests(home / "store", "model") if "losses_uri" in m.extra]
    assert version.tags["train_fingerprint"] == model.fingerprint
    assert version.tags["corpus_fingerprint"] == corpus.fingerprint
    assert client.get_model_version_by_alias("pmc-llama-tiny", "candidate").version == version.version
    assert f"pmc-llama-tiny version {version.version}" in first.output
    assert f"listed {corpus.totals['listed']}" in first.output
    assert "Traceback" not in first.output


def test_mlflow_shows_one_parent_with_nested_steps_and_metrics_over_steps(first: Finished, home: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("pmc-llama")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    steps = {r.info.run_name: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id}
    assert {"Plan the download", "Find duplicates", "Train the model", "Register the model"} <= set(steps)
    assert {r.info.status for r in steps.values()} == {"FINISHED"}
    train = steps["Train the model"]
    loss = client.get_metric_history(train.info.run_id, "loss")
    assert len({point.step for point in loss}) == len(loss) > 10
    assert loss[-1].value < loss[0].value
    assert {"learning_rate", "gradient_norm", "tokens_per_second", "mfu"} <= set(train.data.metrics)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(train.data.metrics)
    assert train.data.params["train.epochs"] == "4"
    assert train.inputs.dataset_inputs[0].dataset.name.startswith("corpus-")


def test_the_registered_model_loads_in_a_fresh_process_and_generates(first: Finished, home: Path) -> None:
    code = """
import mlflow
pipe = mlflow.transformers.load_model("models:/pmc-llama-tiny@candidate")
text = pipe("The patients were", max_new_tokens=5, return_full_text=False)[0]["generated_text"]
print("GENERATED", len(text) > 0)
"""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "GENERATED True" in done.stdout, done.stderr


def test_the_same_run_again_takes_every_step_from_the_cache(first: Finished, home: Path) -> None:
    again = run(home, *QUICK)
    assert again.code == 0, again.output
    total, cached = _counts(again)
    assert (total, cached) == (TASKS, TASKS), again.output


def test_a_changed_training_setting_reruns_training_and_what_depends_on_it(first: Finished, home: Path) -> None:
    changed = run(home, *QUICK, "train.learning_rate=1e-3")
    assert changed.code == 0, changed.output
    rows = {line.split("│")[1].strip(): line for line in changed.output.splitlines() if line.count("│") >= 4}
    ran = {name for name, line in rows.items() if " ran " in line}
    assert ran == {"Train the model", "Evaluate the candidate", "Register the model"}


def test_another_place_gives_the_same_tokens_and_losses_even_after_kills(
    first: Finished, home: Path, tmp_path: Path
) -> None:
    for line, after in (("Fetch articles (shard-00001): started", 0.0), ("Extract text (shard-00000): started", 0.3)):
        assert kill_when(start(tmp_path, *QUICK), line, after)
    assert kill_when(start(tmp_path, *QUICK), "Step 12/")
    resumed = run(tmp_path, *QUICK)
    assert resumed.code == 0, resumed.output
    for kind in ("corpus", "deduplicated"):
        assert {m.fingerprint for m in manifests(home / "store", kind)} == {
            m.fingerprint for m in manifests(tmp_path / "store", kind)
        }
    hashes = [
        [(s.name, s.sha256) for m in manifests(place / "store", "corpus") for s in m.shards]
        for place in (home, tmp_path)
    ]
    assert hashes[0] == hashes[1]
    (interrupted,) = [m for m in manifests(tmp_path / "store", "model") if "losses_uri" in m.extra]
    whole = next(m for m in manifests(home / "store", "model") if m.fingerprint == interrupted.fingerprint)
    assert losses(interrupted) == losses(whole)
    assert interrupted.totals["final_loss"] == whole.totals["final_loss"]


def test_a_killed_run_leaves_no_process_behind(tmp_path: Path) -> None:
    process = start(tmp_path, *QUICK)
    assert kill_when(process, "Fetch articles (shard-00000): started")
    deadline = time.monotonic() + 10
    while _steps_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _steps_below(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["download.source=files", "download.articles={tmp}/cut.tar.gz"], "cut.tar.gz is truncated or damaged"),
        (["download.source=files", "download.articles={tmp}/bad"], "3 of 4 articles could not be read"),
    ],
)
def test_bad_input_ends_the_run_with_one_sentence(settings: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "bad").mkdir()
    for index, xml in enumerate(
        ["no xml", "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "<a", _ARTICLE]
    ):
        (tmp_path / "bad" / f"a{index}.xml").write_text(xml)
    finished = run(tmp_path / "home", *(setting.format(tmp=tmp_path) for setting in settings))
    assert finished.code == 1
    assert message in finished.output
    assert "Traceback" not in finished.output


_ARTICLE = (
    f"<article><front/><body><p>{'The patients were treated and followed for a year. ' * 40}</p></body></article>"
)


def _counts(finished: Finished) -> tuple[int, int]:
    line = next(line for line in finished.output.splitlines() if " tasks, " in line)
    return int(line.split()[0]), int(line.split()[2])


def _steps_below(home: Path) -> list[str]:
    """Command lines of processes that still work for this run."""
    import psutil

    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        environment = process.info["environ"] or {}
        if environment.get("PMC_STORE_URI", "").startswith(storage.to_uri(home)) and process.pid != os.getpid():
            found.append(json.dumps(process.info["cmdline"]))
    return found
