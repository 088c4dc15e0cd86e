"""Registered versions load from their weights in the store; reruns, failures and champions are told apart."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.common.errors import InputError, PipelineError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest
from components.common.settings import get_settings
from components.common.shards import write_shard
from components.register.register import register
from components.register.settings import RegisterSettings
from tests.evaluate_helpers import save_model

ROOT = Path(__file__).parents[1]
SETTINGS = RegisterSettings(model_name="pmc-llama-test")
CORPUS = Manifest(
    kind="corpus",
    fingerprint="c0ffee",
    inputs={},
    settings={},
    shards=[],
    totals={},
    extra={"counts": {"licence": {"CC BY": 7, "CC0": 2}}},
)
LINEAGE = {"recipe": "tiny", "git_revision": "abc123", "image": "", "pipeline_run": "<script>alert(1)</script>"}


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory) -> bytes:
    """An empty MLflow database: made once, its migrations take seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path.read_bytes()


@pytest.fixture
def client(tmp_path, monkeypatch, migrated_database) -> MlflowClient:
    (tmp_path / "mlflow.db").write_bytes(migrated_database)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    get_settings.cache_clear()
    yield MlflowClient(uri)
    get_settings.cache_clear()


def evaluation(folder: Path, model: str, loss: float, correct: int, validation: str = "v") -> Manifest:
    """Write an evaluation as the evaluate step does: 100 questions, `correct` of them right."""
    own = fingerprint(model, loss, correct, validation)
    prefix = f"file://{folder}/evaluation-{own}"
    rows = [
        {"id": f"q{i}", "question_hash": f"h{i}", "prompt_hash": f"p{i}", "correct": i < correct, "prediction": "A"}
        for i in range(100)
    ]
    losses = [{"id": f"PMC{i}", "tokens": 50, "nll": 50 * (loss + i / 10)} for i in range(3)]
    lines = {"medqa": rows, "perplexity": losses}
    shards = [
        write_shard(prefix, name, {".jsonl": "".join(json.dumps(row) + "\n" for row in table).encode()}, len(table))
        for name, table in lines.items()
    ]
    manifest = Manifest(
        kind="evaluation",
        fingerprint=own,
        inputs={"model": model},
        settings={},
        shards=shards,
        totals={"medqa_majority": 0.31},
        extra={
            "name": model,
            "manifest_uri": f"{prefix}/manifest.json",
            "results": {"medqa": shards[0].uri},
            "validation_hash": validation,
        },
    )
    manifest.save_uri(manifest.extra["manifest_uri"])
    return manifest


def run(tmp_path: Path, model: Manifest, loss: float, correct: int, settings: RegisterSettings = SETTINGS, **lineage):
    return register(
        model,
        CORPUS,
        evaluation(tmp_path, "base", 3.0, 40),
        evaluation(tmp_path, model.fingerprint, loss, correct),
        settings,
        LINEAGE | lineage,
    )


def test_a_better_model_becomes_champion_by_reference_to_its_weights(client, tmp_path):
    model = save_model(tmp_path)
    result = run(tmp_path, model, 2.5, 60)
    assert (result.version, result.aliases, result.verdict.passed) == ("1", ["candidate", "champion"], True)
    version = client.get_model_version_by_alias(SETTINGS.model_name, "champion")
    assert version.source == model.extra["model_uri"]
    assert version.tags["model_fingerprint"] == model.fingerprint
    assert version.tags["corpus_fingerprint"] == "c0ffee"
    assert version.tags["base_fingerprint"] == "base"
    assert json.loads(version.tags["licences"]) == {"CC BY": 7, "CC0": 2}
    assert version.tags["recipe"] == "tiny"
    assert "image" not in version.tags
    assert version.tags["verdict"] == "passed"
    assert version.tags["verdict_reason"] == result.verdict.reason
    assert "| medqa | 40.0%" in version.description
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


LOAD = """
import os, socket, sys
def refuse(*a, **k): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
import mlflow, mlflow.pyfunc, mlflow.transformers
uri = "models:/pmc-llama-test@champion"
pipeline = mlflow.transformers.load_model(uri)
print(type(pipeline).__name__, type(pipeline.model).__name__, pipeline.model.dtype)
print(len(pipeline("the heart", max_new_tokens=8)[0]["generated_text"]))
served = mlflow.pyfunc.load_model(uri)
answers = served.predict(["the heart", "fever and"], params={"max_new_tokens": 4})
print(len(answers), all(isinstance(answer, str) and answer for answer in answers))
print(served.metadata.signature.inputs, served.input_example)
"""


def test_the_champion_loads_and_generates_in_a_fresh_process_without_a_network(client, tmp_path, monkeypatch):
    run(tmp_path, save_model(tmp_path), 2.5, 60)
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "TextGenerationPipeline LlamaForCausalLM torch.float32"
    assert int(lines[1]) > len("the heart")
    assert lines[2] == "2 True"
    assert lines[3].startswith("[string (required)]")


def test_a_model_that_fails_the_gate_is_candidate_only_and_says_why(client, tmp_path):
    result = run(tmp_path, save_model(tmp_path), 2.5, 20)
    assert result.aliases == ["candidate"]
    assert "medqa fell from 40.0% to 20.0% against the base" in result.verdict.reason
    assert list(client.get_registered_model(SETTINGS.model_name).aliases) == ["candidate"]
    assert client.get_model_version(SETTINGS.model_name, "1").tags["verdict"] == "failed"
    assert result.summary["passed"] is False
    assert result.summary["medqa_candidate"] == 0.2
    assert result.summary["perplexity_base"] == pytest.approx(math.exp(3.1))


def test_a_rerun_for_the_same_model_reuses_its_version(client, tmp_path):
    model = save_model(tmp_path)
    first = run(tmp_path, model, 2.5, 60)
    files = {path: path.read_bytes() for path in (tmp_path / "model-0").rglob("*") if path.is_file()}
    again = run(tmp_path, model, 2.5, 60, recipe="tiny-2")
    assert (again.version, again.aliases) == (first.version, first.aliases)
    assert len(client.search_model_versions(f"name = '{SETTINGS.model_name}'")) == 1
    assert client.get_model_version(SETTINGS.model_name, "1").tags["recipe"] == "tiny-2"
    changed = {path.name for path, data in files.items() if path.read_bytes() != data}
    assert changed <= {"MLmodel"}  # it has the time


def test_a_second_model_must_beat_the_champion(client, tmp_path):
    run(tmp_path, save_model(tmp_path, seed=0), 2.5, 60)
    worse = run(tmp_path, save_model(tmp_path, seed=1), 2.7, 58)
    assert (worse.version, worse.aliases) == ("2", ["candidate"])
    assert "perplexity rose from 13.46 to 16.44 against the champion" in worse.verdict.reason
    assert "Champion" in worse.html
    better = run(tmp_path, save_model(tmp_path, seed=2), 2.4, 62)
    assert (better.version, better.aliases) == ("3", ["candidate", "champion"])
    aliases = client.get_registered_model(SETTINGS.model_name).aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {"candidate": "3", "champion": "3"}


def test_a_champion_without_a_readable_evaluation_stops_the_promotion(client, tmp_path):
    run(tmp_path, save_model(tmp_path, seed=0), 2.5, 60)
    client.set_model_version_tag(SETTINGS.model_name, "1", "evaluation_uri", f"file://{tmp_path}/gone.json")
    second = save_model(tmp_path, seed=1)
    gone = run(tmp_path, second, 2.0, 90)
    assert gone.aliases == ["candidate"]
    assert "the evaluation of the champion, version 1, cannot be read" in gone.verdict.reason
    client.delete_model_version_tag(SETTINGS.model_name, "1", "evaluation_uri")
    missing = run(tmp_path, second, 2.0, 90)
    assert "the champion, version 1, has no evaluation to compare with" in missing.verdict.reason
    alone = RegisterSettings(model_name=SETTINGS.model_name, compare_with_champion=False)
    free = run(tmp_path, second, 2.0, 90, alone)
    assert free.aliases == ["candidate", "champion"]


def test_a_champion_that_fails_a_stricter_gate_loses_its_place(client, tmp_path):
    model = save_model(tmp_path)
    run(tmp_path, model, 2.5, 60)
    strict = RegisterSettings(model_name=SETTINGS.model_name, min_perplexity_gain=0.9)
    assert run(tmp_path, model, 2.5, 60, strict).aliases == ["candidate"]
    assert "champion" not in client.get_registered_model(SETTINGS.model_name).aliases


def test_the_report_is_self_contained_and_escapes_what_it_shows(client, tmp_path):
    html = run(tmp_path, save_model(tmp_path), 2.5, 60).html
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not re.search(r"https?://|src=|@import|<link|url\(", html)
    assert "prefers-color-scheme: dark" in html
    assert "40.0% (30.9% to 49.8%)" in html
    assert "60.0% (50.2% to 69.1%)" in html
    assert "31.0%" in html
    assert "20 gained, 0 lost" in html
    assert len(html) < 20_000


def test_an_evaluation_of_another_model_is_refused(client, tmp_path):
    base = evaluation(tmp_path, "base", 3.0, 40)
    with pytest.raises(InputError, match="evaluation is of model base, not of"):
        register(save_model(tmp_path), CORPUS, base, base, SETTINGS, LINEAGE)


def test_altered_results_are_refused(client, tmp_path):
    model = save_model(tmp_path)
    candidate = evaluation(tmp_path, model.fingerprint, 2.5, 20)
    path = Path(candidate.extra["results"]["medqa"].removeprefix("file://"))
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(InputError, match=r"medqa\.jsonl is not the file that its manifest names"):
        register(model, CORPUS, evaluation(tmp_path, "base", 3.0, 40), candidate, SETTINGS, LINEAGE)


@pytest.mark.parametrize(
    ("missing", "named"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")],
)
def test_a_folder_that_is_no_whole_model_is_not_registered(client, tmp_path, missing, named):
    model = save_model(tmp_path)
    (Path(model.extra["model_uri"].removeprefix("file://")) / missing).unlink()
    with pytest.raises(InputError, match=f"holds no .*{named}"):
        run(tmp_path, model, 2.5, 60)
    assert client.search_registered_models() == []


def test_without_a_tracking_address_nothing_is_registered(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    get_settings.cache_clear()
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        run(tmp_path, save_model(tmp_path), 2.5, 60)
    get_settings.cache_clear()


def test_a_registry_that_cannot_be_used_is_named_without_its_password(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://user:secret@mlflow")
    get_settings.cache_clear()
    with pytest.raises(PipelineError, match=r"^MLflow at mlflow cannot .*") as caught:
        run(tmp_path, save_model(tmp_path), 2.5, 60)
    assert "secret" not in str(caught.value)
    get_settings.cache_clear()


def test_registering_never_imports_torch_or_transformers(client, tmp_path):
    model = save_model(tmp_path)
    arguments = {
        "model": model,
        "corpus": CORPUS,
        "base_eval": evaluation(tmp_path, "base", 3.0, 40),
        "candidate_eval": evaluation(tmp_path, model.fingerprint, 2.5, 60),
    }
    for name, manifest in arguments.items():
        manifest.save(tmp_path / f"{name}.json")
    script = f"""
import sys
from components.common.manifest import Manifest
from components.register.register import register
from components.register.settings import RegisterSettings
manifests = {{name: Manifest.load(f"{tmp_path}/{{name}}.json") for name in {list(arguments)}}}
result = register(**manifests, settings=RegisterSettings(model_name="pmc-llama-test"), lineage={{}})
assert result.aliases == ["candidate", "champion"], result.verdict
heavy = {{"torch", "transformers", "tensorflow", "lm_eval", "kfp"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
