"""Benchmarks from official files, and the base model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.common import storage
from components.common.errors import InputError
from components.download.base_model import download_base_model
from components.download.benchmarks import download_benchmarks
from components.download.sample import BENCHMARKS_DIR
from components.download.settings import DownloadSettings

OFFICIAL = Path(__file__).parent.parent.parent / "shared" / "data" / "benchmarks"


def _copy(tmp_path: Path) -> Path:
    shutil.copytree(BENCHMARKS_DIR, tmp_path / "b")
    return tmp_path / "b"


def _load(place: Path | str, tmp_path: Path) -> dict[str, list[dict]]:
    manifest = download_benchmarks(DownloadSettings(benchmarks=str(place)), storage.to_uri(tmp_path / "store"))
    return {
        shard.name: [json.loads(line) for line in storage.read(shard.uri).decode().splitlines()]
        for shard in manifest.shards
    }


def test_the_sample_has_thirty_test_questions_of_each_benchmark(tmp_path: Path) -> None:
    splits = _load("sample", tmp_path)
    for name in ("pubmedqa-test", "medmcqa-test", "medqa-test"):
        assert len(splits[name]) >= 30
    for questions in splits.values():
        assert all(question["answer"] in question["options"] for question in questions)


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official files are not here")
def test_the_official_files_give_the_official_counts(tmp_path: Path) -> None:
    splits = _load(OFFICIAL, tmp_path)
    assert {n: len(q) for n, q in splits.items() if "test" in n} == {
        "pubmedqa-test": 500,
        "medmcqa-test": 4183,
        "medqa-test": 1273,
    }


def test_medmcqa_counts_its_answers_from_1_and_the_other_convention_is_refused(tmp_path: Path) -> None:
    place = _copy(tmp_path)
    path = place / "medmcqa" / "dev.json"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    question = next(q for q in _load(place, tmp_path)["medmcqa-test"] if q["id"] == lines[0]["id"])
    assert question["options"][question["answer"]] == lines[0][("opa", "opb", "opc", "opd")[lines[0]["cop"] - 1]]
    path.write_text("\n".join(json.dumps({**line, "cop": line["cop"] - 1}) for line in lines))
    with pytest.raises(InputError, match="counts from 0"):
        _load(place, tmp_path)


def test_a_question_without_a_field_is_named(tmp_path: Path) -> None:
    place = _copy(tmp_path)
    path = place / "pubmedqa" / "ori_pqal.json"
    questions = json.loads(path.read_text())
    pmid = next(iter(questions))
    del questions[pmid]["final_decision"]
    path.write_text(json.dumps(questions))
    with pytest.raises(InputError, match=f"{pmid} has no field 'final_decision'"):
        _load(place, tmp_path)


def test_a_missing_file_and_broken_json_are_named(tmp_path: Path) -> None:
    place = _copy(tmp_path)
    (place / "medmcqa" / "dev.json").write_text('{"id": 1\n')
    with pytest.raises(InputError, match=r"dev\.json line 1 is no JSON"):
        _load(place, tmp_path)
    (place / "medmcqa" / "dev.json").unlink()
    with pytest.raises(InputError, match=r"no medmcqa/dev\.json"):
        _load(place, tmp_path)
    with pytest.raises(InputError, match=r"download\.benchmarks is not set"):
        download_benchmarks(DownloadSettings(benchmarks=""), storage.to_uri(tmp_path / "store"))


def test_the_bundled_model_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, same, other = (
        download_base_model(DownloadSettings(base_model_seed=seed), storage.to_uri(tmp_path / name))
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert {shard.name for shard in one.shards} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_folder_is_taken_and_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    store = storage.to_uri(tmp_path / "store")
    first = download_base_model(DownloadSettings(), store)
    folder = storage.local_path(first.extra["model_uri"])
    assert download_base_model(DownloadSettings(base_model=str(folder)), store).fingerprint == first.fingerprint
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle"):
        download_base_model(DownloadSettings(base_model=str(pickled)), store)


def test_a_model_that_is_nowhere_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="nobody/nothing"):
        download_base_model(DownloadSettings(base_model="nobody/nothing"), storage.to_uri(tmp_path))


def test_the_download_stage_never_imports_torch(tmp_path: Path) -> None:
    code = f"""
import sys
from components.download.settings import DownloadSettings
from components.download.plan import plan_download
from components.download.fetch import fetch_shard
from components.download.benchmarks import download_benchmarks
from components.download.base_model import download_base_model
s, root = DownloadSettings(), 'file://{tmp_path}'
plan = plan_download(s, root)
fetch_shard(plan, 'shard-00000', s), download_benchmarks(s, root), download_base_model(s, root)
print({{'torch', 'transformers'}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
