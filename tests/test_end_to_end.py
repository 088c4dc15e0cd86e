"""The whole pipeline, as a user runs it: to a registered model, again from the cache, after a kill."""

import json
import os
import time
from pathlib import Path

import pytest
from pipeline_helpers import ANSWERING, QUICK, TASKS, Finished, kill_when, losses, manifests, run, start

from components.common import storage
from components.common.manifest import Manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Another training, which goes on for seconds after its twelfth step, where it is killed; the comparison after
# fine-tuning is left out, which leaves what is before it in the cache.
CHANGE = ("train.learning_rate=1e-3", "train.epochs=8", "finetune={}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run with a space") / "home"


@pytest.fixture(scope="module")
def first(home: Path) -> Finished:
    finished = run(home, *ANSWERING)
    assert finished.code == 0, finished.output
    return finished


def test_a_run_ends_with_a_registered_model_and_a_true_table(first: Finished, home: Path) -> None:
    from mlflow import MlflowClient

    (corpus,) = manifests(home / "store", "corpus")
    left_out = sum(corpus.dropped.values()) + len(corpus.rejected)
    assert corpus.totals["listed"] == corpus.totals["documents"] + left_out
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    (version,) = client.search_model_versions("name='pmc-llama-tiny'")
    (model,) = trained(home)
    assert version.tags["train_fingerprint"] == model.fingerprint
    assert version.tags["corpus_fingerprint"] == corpus.fingerprint
    assert client.get_model_version_by_alias("pmc-llama-tiny", "candidate").version == version.version
    assert f"pmc-llama-tiny version {version.version}" in first.output
    (report,) = [line for line in first.output.splitlines() if line.startswith("Report:")]
    assert b"<title>" in storage.read(report.removeprefix("Report:").strip())
    assert f"listed {corpus.totals['listed']}" in first.output
    assert "Traceback" not in first.output


def test_base_and_candidate_are_compared_after_the_same_fine_tuning_too(first: Finished, home: Path) -> None:
    compared = storage.list_files(storage.to_uri(home / "store" / "comparisons" / "pmc-llama-tiny"))
    (uri,) = [entry.uri for entry in compared if entry.uri.endswith("/comparison.json")]
    comparison = json.loads(storage.read(uri))
    rows = {(row["model"], row["setting"]): row["cells"] for row in comparison["table"]["rows"]}
    assert rows["PMC-LLaMA-7B", "full fine-tuning"]["usmle_in"]["value"] == 0.4061
    for role in ("base", "candidate"):
        assert rows[role, "as is"]["pubmedqa"]["questions"] == 6
        assert rows[role, "full fine-tuning"]["usmle_in"]["questions"] == 6
        assert rows[role, "full fine-tuning"]["usmle_out"] is None  # it learned its training questions
    settings = [pair["setting"] for pair in comparison["pairs"] if not pair["obstacles"]]
    assert settings == ["as is", "fine-tuned on medmcqa and medqa (full)"]


def test_the_model_that_answers_is_registered_beside_the_one_that_it_was_taught_from(
    first: Finished, home: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    (version,) = client.search_model_versions("name='pmc-llama-tiny-instruct'")
    (parent,) = client.search_model_versions("name='pmc-llama-tiny'")
    assert version.tags["taught_from"] == "pmc-llama-tiny/1"
    assert version.tags["base_fingerprint"] == parent.tags["model_fingerprint"]
    assert version.tags["corpus_fingerprint"] == parent.tags["corpus_fingerprint"]
    assert version.tags["verdict_reason"].startswith(("Promoted: ", "Not promoted: "))
    assert "candidate" in client.get_registered_model("pmc-llama-tiny-instruct").aliases
    assert "# pmc-llama-tiny-instruct" in storage.read(version.tags["card_uri"]).decode()


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
    assert {f"Fine-tune the {role} (questions)" for role in ("base", "candidate")} <= set(steps)
    kept = {file.path for file in client.list_artifacts(steps["Register the model"].info.run_id)}
    assert {"comparison.json", "report.html", "model_card.md"} <= kept
    assert {r.info.status for r in steps.values()} == {"FINISHED"}
    train = steps["Train the model"]
    loss = client.get_metric_history(train.info.run_id, "loss")
    assert len({point.step for point in loss}) == len(loss) > 10
    assert loss[-1].value < loss[0].value
    assert {"learning_rate", "gradient_norm", "tokens_per_second", "mfu"} <= set(train.data.metrics)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(train.data.metrics)
    assert train.data.params["train.epochs"] == "2"
    assert train.inputs.dataset_inputs[0].dataset.name.startswith("corpus-")


def test_the_registered_model_loads_and_generates(first: Finished, home: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    try:
        pipe = mlflow.transformers.load_model("models:/pmc-llama-tiny@candidate")
    finally:
        mlflow.set_tracking_uri(None)
    assert pipe("The patients were", max_new_tokens=5, return_full_text=False)[0]["generated_text"]


def test_the_same_run_again_takes_every_step_from_the_cache(first: Finished, home: Path) -> None:
    again = run(home, *ANSWERING)
    assert again.code == 0, again.output
    total, cached = _counts(again)
    assert (total, cached) == (TASKS, TASKS), again.output


@pytest.fixture(scope="module")
def changed(first: Finished, home: Path) -> Finished:
    """A run with another training setting, killed while it trained, and run again to its end."""
    assert kill_when(start(home, *QUICK, *CHANGE), "Step 12/")
    return run(home, *QUICK, *CHANGE)


def test_a_changed_training_setting_reruns_training_and_what_depends_on_it(changed: Finished) -> None:
    assert changed.code == 0, changed.output
    rows = {line.split("│")[1].strip(): line for line in changed.output.splitlines() if line.count("│") >= 4}
    ran = {name for name, line in rows.items() if " ran " in line}
    assert ran == {
        "Train the model",
        "Evaluate the candidate",
        "Evaluate the champion",  # the first run's model
        "Register the model",
    }


def test_mlflow_shows_a_killed_run_as_killed(changed: Finished, home: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("pmc-llama").experiment_id], max_results=1000)
    killed = [r for r in runs if r.info.status == "KILLED"]
    assert {r.info.run_name for r in killed if "mlflow.parentRunId" in r.data.tags} == {"Train the model"}
    assert len(killed) == 2
    assert {r.info.status for r in runs} == {"FINISHED", "KILLED"}


def test_another_place_gives_the_same_tokens_and_losses_whatever_was_killed(
    changed: Finished, home: Path, tmp_path: Path
) -> None:
    settings = (*QUICK, *CHANGE)
    assert kill_when(start(tmp_path, *settings), "Fetch articles (shard-00001): started")
    deadline = time.monotonic() + 60
    while _steps_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _steps_below(tmp_path) == []
    assert kill_when(start(tmp_path, *settings), "Extract text (shard-00000): started", after=0.3)
    # With the model it has all that is compared.
    assert kill_when(start(tmp_path, *settings), "Train the model: done")

    for kind in ("corpus", "deduplicated"):
        assert {m.fingerprint for m in manifests(home / "store", kind)} == {
            m.fingerprint for m in manifests(tmp_path / "store", kind)
        }
    hashes = [
        [(s.name, s.sha256) for m in manifests(place / "store", "corpus") for s in m.shards]
        for place in (home, tmp_path)
    ]
    assert hashes[0] == hashes[1]
    (whole,) = trained(tmp_path)
    interrupted = next(m for m in trained(home) if m.fingerprint == whole.fingerprint)
    assert losses(interrupted) == losses(whole)
    assert interrupted.totals["final_loss"] == whole.totals["final_loss"]


def test_bad_input_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08\x00")
    finished = run(tmp_path / "home", "download.source=files", f"download.articles={tmp_path}/cut.tar.gz")
    assert finished.code == 1
    assert "cut.tar.gz is truncated or damaged" in finished.output
    assert "Traceback" not in finished.output


def trained(home: Path) -> list[Manifest]:
    """The models that a run's corpus was learned by; others are fine-tuned, or the base."""
    return [each for each in manifests(home / "store", "model") if "corpus_fingerprint" in each.extra]


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
