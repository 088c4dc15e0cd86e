"""Registered versions load from their weights in the store; reruns, failures and champions are told apart."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest
from components.common.settings import get_settings
from components.register.comparison.comparison import Comparison
from components.register.gate.gate import decide
from components.register.register import register
from components.register.registry.promotion import promote, roll_back
from components.register.settings import RegisterSettings
from tests.evaluate_helpers import save_model
from tests.ports import free_ports
from tests.register_helpers import write_corpus, write_evaluation, write_questions

module = importlib.import_module("components.register.register")
ROOT = Path(__file__).parents[1]
NAME = "pmc-llama-test"
SETTINGS = RegisterSettings(model_name=NAME, benchmarks=["medqa"])
LINEAGE = {"recipe": "tiny", "git_revision": "abc123", "image": "", "pipeline_run": "<script>alert(1)</script>"}


def run(tmp_path: Path, model: Manifest, loss: float, correct: int, settings: RegisterSettings = SETTINGS, **more):
    """Register a model: the base answers 40 of 100 questions at a loss of 3.0."""
    lineage = LINEAGE | more.pop("lineage", {})
    return register(
        model,
        write_corpus(tmp_path),
        write_evaluation(tmp_path, "base", 3.0, {"medqa": 40}),
        write_evaluation(tmp_path, model.fingerprint, loss, {"medqa": correct}),
        settings,
        lineage,
        **more,
    )


def aliases(registry_client: MlflowClient) -> dict[str, str]:
    found = registry_client.get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_a_better_model_becomes_champion_by_reference_to_its_weights(registry_client, tmp_path):
    model = save_model(tmp_path)
    base = Manifest(
        kind="model",
        fingerprint="base",
        inputs={},
        settings={},
        shards=[],
        totals={},
        extra={"name": "huggyllama/llama-7b", "commit": "4782ad2", "model_uri": "file:///base"},
    )
    result = run(tmp_path, model, 2.5, 60, base_model=base, benchmarks=write_questions(tmp_path))
    assert (result.version, result.aliases, result.verdict.passed) == ("1", ["candidate", "champion"], True)
    version = registry_client.get_model_version_by_alias(NAME, "champion")
    assert version.source == model.extra["model_uri"]
    tags = version.tags
    assert tags["model_fingerprint"] == tags["train_fingerprint"] == model.fingerprint
    assert tags["corpus_fingerprint"] == write_corpus(tmp_path).fingerprint
    assert (tags["base_fingerprint"], tags["base_model"]) == ("base", "huggyllama/llama-7b")
    assert json.loads(tags["licences"]) == {"CC BY": 7, "CC0": 2}
    assert tags["articles"] == "9"
    assert tags["recipe"] == "tiny"
    assert "image" not in tags
    assert (tags["verdict"], tags["judged_against"]) == ("passed", "none")
    assert tags["verdict_reason"] == tags["promotion_reason"] == result.verdict.reason
    assert json.loads(tags["evaluation"])["medqa"]["candidate"][0] == 0.6
    assert len(json.loads(tags["datasets"])["medqa-test"]) == 64
    assert storage.read(tags["card_uri"]).decode() == result.card
    assert Comparison.load(tags["comparison_uri"]) == result.comparison
    assert "| MedQA-USMLE | as is | 40.0%" in version.description
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
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = mlflow.artifacts.download_artifacts(uri)
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
ids = tokenizer("the heart", return_tensors="pt", return_token_type_ids=False)
print(model.generate(**ids, max_new_tokens=4).shape[1] > ids["input_ids"].shape[1], folder)
"""


def test_the_champion_loads_and_generates_in_a_fresh_process_without_a_network(registry_client, tmp_path, monkeypatch):
    model = save_model(tmp_path)
    run(tmp_path, model, 2.5, 60)
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "TextGenerationPipeline LlamaForCausalLM torch.float32"
    assert int(lines[1]) > len("the heart")
    assert lines[2] == "2 True"
    assert lines[3].startswith("[string (required)]")
    assert lines[-1].rstrip("/") == f"True {storage.local_path(model.extra['model_uri'])}"  # no copy of the weights


def test_a_model_that_fails_the_gate_is_candidate_only_and_says_why(registry_client, tmp_path):
    result = run(tmp_path, save_model(tmp_path), 2.5, 20)
    assert result.aliases == ["candidate"]
    assert "medqa fell from 40.0% to 20.0% against the base" in result.verdict.reason
    assert aliases(registry_client) == {"candidate": "1"}
    assert registry_client.get_model_version(NAME, "1").tags["verdict"] == "failed"
    assert result.summary["passed"] is False
    assert result.summary["medqa_candidate"] == 0.2
    assert result.summary["perplexity_base"] == pytest.approx(math.exp(3.1))


def test_a_rerun_for_the_same_model_reuses_its_version_and_changes_no_file(registry_client, tmp_path):
    model = save_model(tmp_path)
    first = run(tmp_path, model, 2.5, 60)
    files = {path: path.read_bytes() for path in (tmp_path / "model-0").rglob("*") if path.is_file()}
    again = run(tmp_path, model, 2.5, 60, lineage={"git_revision": "def456"})
    assert (again.version, again.aliases) == (first.version, first.aliases)
    assert len(registry_client.search_model_versions(f"name = '{NAME}'")) == 1
    assert registry_client.get_model_version(NAME, "1").tags["git_revision"] == "def456"
    assert aliases(registry_client) == {"candidate": "1", "champion": "1"}
    changed = {path.name for path, data in files.items() if path.read_bytes() != data}
    assert changed <= {"README.md"}  # it names the revision


def test_a_second_model_must_beat_the_champion_who_becomes_previous(registry_client, tmp_path):
    run(tmp_path, save_model(tmp_path, seed=0), 2.5, 60)
    worse = run(tmp_path, save_model(tmp_path, seed=1), 2.7, 58)
    assert (worse.version, worse.aliases) == ("2", ["candidate"])
    assert "against the champion" in worse.verdict.reason
    assert registry_client.get_model_version(NAME, "2").tags["judged_against"] == "1"
    better = run(tmp_path, save_model(tmp_path, seed=2), 2.4, 80)
    assert (better.version, better.aliases) == ("3", ["candidate", "champion"]), better.verdict.reason
    assert aliases(registry_client) == {"candidate": "3", "champion": "3", "previous": "1"}


def test_a_champion_that_changes_while_the_gate_deliberates_is_judged_against(registry_client, tmp_path, monkeypatch):
    run(tmp_path, save_model(tmp_path, seed=0), 2.5, 60)
    run(tmp_path, save_model(tmp_path, seed=1), 2.9, 50)
    calls = []

    def deliberate(evidence, settings):
        calls.append(evidence.champion.version)
        if len(calls) == 1:  # somebody clicks in MLflow's pages meanwhile
            registry_client.set_registered_model_alias(NAME, "champion", "2")
        return decide(evidence, settings)

    monkeypatch.setattr(module, "decide", deliberate)
    result = run(tmp_path, save_model(tmp_path, seed=2), 2.4, 80)
    assert calls == ["1", "2"]
    assert result.verdict.passed, result.verdict.reason
    assert aliases(registry_client) == {"candidate": "3", "champion": "3", "previous": "2"}
    assert registry_client.get_model_version(NAME, "3").tags["judged_against"] == "2"


def test_a_champion_that_never_stays_the_same_ends_in_a_sentence(registry_client, tmp_path, monkeypatch):
    for seed, correct in ((0, 60), (1, 50)):
        run(tmp_path, save_model(tmp_path, seed=seed), 2.9, correct)

    def deliberate(evidence, settings):
        registry_client.set_registered_model_alias(NAME, "champion", "2" if evidence.champion.version == "1" else "1")
        return decide(evidence, settings)

    monkeypatch.setattr(module, "decide", deliberate)
    with pytest.raises(PipelineError, match=r"The champion of .* was version . when the decision was made, and is ver"):
        run(tmp_path, save_model(tmp_path, seed=2), 2.4, 80)
    assert aliases(registry_client)["champion"] in ("1", "2")


def test_a_version_that_a_person_rolled_back_is_not_promoted_again_by_a_rerun(registry_client, tmp_path):
    run(tmp_path, save_model(tmp_path, seed=0), 2.5, 60)
    better = save_model(tmp_path, seed=1)
    run(tmp_path, better, 2.4, 80)
    place = get_settings()
    roll_back(place.tracking_uri, place.store_uri, NAME, "it made things up")
    again = run(tmp_path, better, 2.4, 80)
    assert "version 2 was rolled back on " in again.verdict.reason
    assert "(it made things up); promote it by hand" in again.verdict.reason
    assert aliases(registry_client) == {"candidate": "2", "champion": "1", "previous": "2"}


def test_a_forced_champion_keeps_its_place_on_a_rerun_that_fails(registry_client, tmp_path):
    run(tmp_path, save_model(tmp_path, seed=0), 2.5, 60)
    weak = save_model(tmp_path, seed=1)
    run(tmp_path, weak, 2.5, 20)
    place = get_settings()
    promote(place.tracking_uri, place.store_uri, f"{NAME}/2", force=True, reason="a demonstration")
    assert run(tmp_path, weak, 2.5, 20).aliases == ["candidate", "champion"]
    tags = registry_client.get_model_version(NAME, "2").tags
    assert (tags["promotion_forced"], tags["promotion_reason"]) == ("yes", "a demonstration")


def test_a_champion_that_cannot_be_compared_with_stops_the_promotion(registry_client, tmp_path):
    first = save_model(tmp_path, seed=0)
    run(tmp_path, first, 2.5, 60)
    registry_client.set_model_version_tag(NAME, "1", "evaluation_uri", f"file://{tmp_path}/gone.json")
    second = save_model(tmp_path, seed=1)
    gone = run(tmp_path, second, 2.0, 90)
    assert gone.aliases == ["candidate"]
    assert "the evaluation of the champion, version 1, cannot be read" in gone.verdict.reason
    registry_client.delete_model_version_tag(NAME, "1", "evaluation_uri")
    missing = run(tmp_path, second, 2.0, 90)
    assert "the champion, version 1, has no evaluation to compare with" in missing.verdict.reason
    storage.delete(storage.join(first.extra["model_uri"], "model.safetensors"))
    lost = run(tmp_path, second, 2.0, 90)
    assert "the weights of the champion, version 1, are gone (model.safetensors missing" in lost.verdict.reason
    alone = SETTINGS.model_copy(update={"compare_with_champion": False})
    free = run(tmp_path, second, 2.0, 90, alone)
    assert free.aliases == ["candidate", "champion"]
    assert registry_client.get_model_version(NAME, "2").tags["judged_against"] == "any"


def test_a_champion_that_fails_a_stricter_gate_loses_its_place(registry_client, tmp_path):
    model = save_model(tmp_path)
    run(tmp_path, model, 2.5, 60)
    strict = SETTINGS.model_copy(update={"min_perplexity_gain": 0.9})
    assert run(tmp_path, model, 2.5, 60, strict).aliases == ["candidate"]
    assert "champion" not in aliases(registry_client)


def test_an_mlflow_that_is_down_at_the_end_costs_a_rerun_and_nothing_else(registry_client, tmp_path, monkeypatch):
    model = save_model(tmp_path)
    up = get_settings().tracking_uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    get_settings.cache_clear()
    with pytest.raises(PipelineError, match=r"^MLflow at http://127\.0\.0\.1:\d+ cannot register pmc-llama-test: "):
        run(tmp_path, model, 2.5, 60)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", up)
    get_settings.cache_clear()
    assert run(tmp_path, model, 2.5, 60).aliases == ["candidate", "champion"]


def test_an_adapter_without_its_base_is_refused(registry_client, tmp_path):
    adapter = save_model(tmp_path).model_copy(update={"extra": {"adapter_uri": "file:///adapter"}})
    with pytest.raises(InputError, match=r"is an adapter, .* set finetune\.merge_adapter where it is made"):
        run(tmp_path, adapter, 2.5, 60)


def test_the_report_escapes_what_it_shows(registry_client, tmp_path):
    html = run(tmp_path, save_model(tmp_path), 2.5, 60).html
    assert "<script>alert(1)</script>" not in html


def test_an_evaluation_of_another_model_is_refused(registry_client, tmp_path):
    base = write_evaluation(tmp_path, "base", 3.0, {"medqa": 40})
    with pytest.raises(InputError, match="evaluation is of model base, not of"):
        register(save_model(tmp_path), write_corpus(tmp_path), base, base, SETTINGS, LINEAGE)


def test_altered_results_are_refused(registry_client, tmp_path):
    model = save_model(tmp_path)
    candidate = write_evaluation(tmp_path, model.fingerprint, 2.5, {"medqa": 20})
    path = Path(candidate.extra["results"]["medqa"].removeprefix("file://"))
    path.write_text(path.read_text().replace("false", "true"))
    base = write_evaluation(tmp_path, "base", 3.0, {"medqa": 40})
    with pytest.raises(InputError, match=r"medqa\.jsonl is not the file that its manifest names"):
        register(model, write_corpus(tmp_path), base, candidate, SETTINGS, LINEAGE)


def test_without_a_tracking_address_nothing_is_registered(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    get_settings.cache_clear()
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        run(tmp_path, save_model(tmp_path), 2.5, 60)


def test_a_registry_that_cannot_be_used_is_named_without_its_password(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://user:secret@mlflow")
    get_settings.cache_clear()
    with pytest.raises(PipelineError, match=r"^MLflow at mlflow cannot .*") as caught:
        run(tmp_path, save_model(tmp_path), 2.5, 60)
    assert "secret" not in str(caught.value)


def test_registering_never_imports_torch_or_transformers(registry_client, tmp_path):
    model = save_model(tmp_path)
    arguments = {
        "model": model,
        "corpus": write_corpus(tmp_path),
        "base_eval": write_evaluation(tmp_path, "base", 3.0, {"medqa": 40}),
        "candidate_eval": write_evaluation(tmp_path, model.fingerprint, 2.5, {"medqa": 60}),
    }
    for name, manifest in arguments.items():
        manifest.save(tmp_path / f"{name}.json")
    script = f"""
import sys
from components.common.manifest import Manifest
from components.register.register import register
from components.register.settings import RegisterSettings
manifests = {{name: Manifest.load(f"{tmp_path}/{{name}}.json") for name in {list(arguments)}}}
settings = RegisterSettings(model_name="{NAME}", benchmarks=["medqa"])
result = register(**manifests, settings=settings, lineage={{}})
assert result.aliases == ["candidate", "champion"], result.verdict
heavy = {{"torch", "transformers", "tensorflow", "lm_eval", "kfp"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
