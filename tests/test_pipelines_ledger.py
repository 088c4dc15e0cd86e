"""The local runner's cache and its record."""

from pathlib import Path

import pytest
from kfp import dsl

from components.common import storage
from components.common.manifest import Manifest, Shard
from pipelines import ledger as ledger_module
from pipelines.ledger import StepLedger


@pytest.fixture
def ledger(tmp_path: Path) -> StepLedger:
    return StepLedger(str(tmp_path / "cache"), {"comp-train-model": "Train the model"}, {"comp-train-model": "train"})


def _key(ledger: StepLedger, component: str = "comp-train-model", **arguments: object) -> str:
    return ledger.compute_key(component, "image", ["python"], arguments=arguments, env_vars={}, custom_cache_key=None)


def _artifact(folder: Path, fingerprint: str = "f" * 16) -> dsl.Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "shard-0.bin"
    data.write_bytes(b"x")
    shard = Shard(name="shard-0", uri=storage.to_uri(data), rows=1, bytes=1, sha256="0")
    manifest = Manifest(kind="raw", fingerprint=fingerprint, inputs={}, settings={}, shards=[shard], totals={"rows": 1})
    manifest.save(folder / "manifest")
    return dsl.Dataset(name="raw", uri=str(folder / "manifest"), metadata=manifest.metadata())


def test_an_artifact_counts_by_its_fingerprint_and_not_by_its_place(ledger: StepLedger, tmp_path: Path) -> None:
    here, there = _artifact(tmp_path / "a"), _artifact(tmp_path / "b")
    other = _artifact(tmp_path / "c", "e" * 16)
    assert _key(ledger, corpus=here) == _key(ledger, corpus=there) != _key(ledger, corpus=other)
    assert _key(ledger, corpus=[here]) != _key(ledger, corpus=[here, other])


def test_a_changed_setting_is_another_key(ledger: StepLedger) -> None:
    assert _key(ledger, train={"epochs": 1}) != _key(ledger, train={"epochs": 2})


def test_a_stage_whose_code_changed_runs_again_and_the_others_do_not(
    ledger: StepLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("common", "train", "evaluate"):
        (tmp_path / "components" / stage).mkdir(parents=True)
        (tmp_path / "components" / stage / "x.py").write_text("1")
    monkeypatch.setattr(ledger_module, "COMPONENTS", tmp_path / "components")
    before = _key(ledger, a=1)
    (tmp_path / "components" / "evaluate" / "x.py").write_text("2")
    assert _key(ledger, a=1) == before
    (tmp_path / "components" / "train" / "x.py").write_text("2")
    assert _key(ledger, a=1) != before


def test_an_entry_counts_only_while_its_shards_are_there(ledger: StepLedger, tmp_path: Path) -> None:
    key = _key(ledger, a=1)
    assert ledger.get(key) is None
    ledger.put(key, {"raw": _artifact(tmp_path / "a"), "Output": ["shard-0"]})
    cached = ledger.get(key)
    assert cached is not None
    assert cached["Output"] == ["shard-0"]
    (tmp_path / "a" / "shard-0.bin").unlink()
    assert ledger.get(key) is None


def test_the_record_tells_what_ran_and_what_was_cached(ledger: StepLedger, tmp_path: Path) -> None:
    key = _key(ledger, a=1)
    ledger.put(key, {"raw": _artifact(tmp_path / "a")})
    ledger.get(key)
    assert [(r.name, r.cached) for r in ledger.results] == [("Train the model", False), ("Train the model", True)]
    assert ledger.results[0].numbers["rows"] == 1


def test_every_component_of_the_pipeline_is_keyed_by_its_own_stage() -> None:
    from pipelines.local import _names_and_stages
    from pipelines.pmc_llama import build_pipeline
    from pipelines.recipe import load_recipe

    names, stages = _names_and_stages(build_pipeline(load_recipe("tiny")))
    assert stages["comp-train-model"] == "train"
    assert stages["comp-find-duplicates"] == "preprocess"
    assert stages["comp-summarise-run"] == "summary"
    assert stages["comp-register-answering-model"] == "register"
    assert len(stages) == 16
    assert names["comp-evaluate-model-2"] == "Evaluate the candidate"
