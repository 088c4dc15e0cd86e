"""Further benchmarks: MMLU's medical subjects, the same from the hub's form and from the official files."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.download import benchmark_table as module
from components.download.benchmark_table import SUITES, TABLE
from components.download.benchmarks import download_benchmarks
from components.download.sample import BENCHMARKS_DIR
from components.download.settings import DownloadSettings, HubSettings
from tests.hub_server import Repo, running_hub

COMMIT = "e" * 40


def rows(subject: str, split: str, count: int) -> list[dict]:
    return [
        {
            "question": f'What is "{subject}" <b>{split}</b>,\nnumber {i}?',
            "subject": subject,
            "choices": [f"first, {i}", "second", "third", "fourth"],
            "answer": i % 4,
        }
        for i in range(count)
    ]


def write_csv(folder: Path, subject: str, split: str, questions: list[dict]) -> Path:
    path = folder / f"mmlu/{split}/{subject}_{split}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([q["question"], *q["choices"], "ABCD"[q["answer"]]] for q in questions)
    return path


def write_parquet(folder: Path, subject: str, split: str, questions: list[dict]) -> None:
    path = folder / subject / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(questions), path)


def subjects() -> list[tuple[str, str, int]]:
    return [
        (name.removeprefix("mmlu_"), split, count)
        for name in SUITES["mmlu_medical"]
        for split, count in TABLE[name].counts.items()
    ]


@pytest.fixture
def mirror(tmp_path) -> Path:
    """The bundled benchmarks under the names of samples, and MMLU in its official files."""
    place = tmp_path / "mirror"
    shutil.copytree(BENCHMARKS_DIR, place)
    for name in ("pubmedqa/ori_pqal.json", "medmcqa/dev.json", "medmcqa/train.json"):
        (place / name).rename((place / name).with_suffix(".sample.json"))
    for split in ("test", "train"):
        (place / f"medqa/phrases_no_exclude_{split}.jsonl").rename(place / f"medqa/{split}.sample.jsonl")
    for subject, split, count in subjects():
        write_csv(place, subject, split, rows(subject, split, count))
    return place


def fetch(place: Path, tmp_path: Path, **more: Any) -> Manifest:
    return download_benchmarks(DownloadSettings(benchmarks=str(place), **more), storage.to_uri(tmp_path / "store"))


def test_mmlu_in_a_folder_is_taken_beside_the_three(mirror, tmp_path):
    manifest = fetch(mirror, tmp_path)
    counts = {shard.name: shard.rows for shard in manifest.shards if shard.name.startswith("mmlu_")}
    assert counts == {f"mmlu_{subject}-{split}": count for subject, split, count in subjects()}
    first = json.loads(storage.read(manifest.shard("mmlu_anatomy-dev").uri).splitlines()[1])
    assert first == {
        "id": "mmlu-anatomy-dev-2",
        "question": 'What is "anatomy" <b>dev</b>,\nnumber 1?',
        "context": "",
        "options": {"A": "first, 1", "B": "second", "C": "third", "D": "fourth"},
        "answer": "B",
        "subject": "anatomy",
    }
    assert manifest.inputs["mmlu/test/anatomy_test.csv"]


def test_the_hub_gives_the_same_questions(mirror, tmp_path, monkeypatch):
    copy = tmp_path / "hub"
    for subject, split, count in subjects():
        write_parquet(copy, subject, split, rows(subject, split, count))
    pinned = {name: module.Entry(**vars(entry) | {"hub": f"lab/mmlu@{COMMIT}"}) for name, entry in TABLE.items()}
    monkeypatch.setattr(module, "TABLE", pinned)
    monkeypatch.setattr("components.download.benchmark_hub._pubmedqa", lambda repo: iter(()))
    monkeypatch.setattr("components.download.benchmark_hub._MEDQA_FILES", {})
    monkeypatch.setattr("components.download.benchmark_hub._MEDMCQA_FILES", {})
    manifest = fetch(mirror, tmp_path)
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        hub.repos["datasets/lab/mmlu"] = Repo(copy, COMMIT)
        pins = HubSettings(**dict.fromkeys(("pubmedqa", "medmcqa", "medqa"), f"lab/mmlu@{COMMIT}"))
        settings = DownloadSettings(benchmarks="hub", hub=pins, more_benchmarks=["mmlu_medical"])
        from_hub = download_benchmarks(settings, storage.to_uri(tmp_path / "store"))
    assert len(from_hub.shards) == 12
    for shard in from_hub.shards:
        assert shard.sha256 == manifest.shard(shard.name).sha256
    assert from_hub.settings["more_benchmarks"] == list(SUITES["mmlu_medical"])


def test_what_is_asked_for_must_be_in_the_folder(mirror, tmp_path):
    suite = fetch(mirror, tmp_path, more_benchmarks=["multimedqa"])
    assert suite.fingerprint == fetch(mirror, tmp_path).fingerprint
    (mirror / "mmlu/test/anatomy_test.csv").unlink()
    with pytest.raises(InputError, match=r"no test questions of mmlu_anatomy, which download\.more_benchmarks asks"):
        fetch(mirror, tmp_path, more_benchmarks=["multimedqa"])


def test_a_file_that_lost_a_row_is_refused_with_both_numbers(mirror, tmp_path):
    path = mirror / "mmlu/test/anatomy_test.csv"
    write_csv(mirror, "anatomy", "test", rows("anatomy", "test", 134))
    with pytest.raises(InputError, match=f"{path} gives 134 questions of mmlu_anatomy-test .* number is 135"):
        fetch(mirror, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"a question, a,b,c,d,A\n', "is no CSV"),
        ("a question,a,b,c,A\n", "MMLU anatomy dev row 1 has 5 columns where the official file has 6"),
        ("a question,a,b,c,d,E\n", "MMLU anatomy dev row 1: the answer 'E' is none of A, B, C, D"),
        (",a,b,c,d,A\n", "row 1: the question is empty"),
    ],
)
def test_rows_of_another_form_are_refused(mirror, tmp_path, text, message):
    (mirror / "mmlu/dev/anatomy_dev.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        fetch(mirror, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, r"row 1: the answer is 4 of 4; the hub's copy has 0 to 3 of four"),
        ({"choices": ["a", "b"]}, "row 1: the answer is 0 of 2"),
        ({"choices": None}, "no field 'choices'"),
    ],
)
def test_rows_of_the_hub_of_another_form_are_refused(change, message):
    row = {key: value for key, value in (rows("anatomy", "dev", 1)[0] | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        TABLE["mmlu_anatomy"].question("dev", 1, row)


def test_a_benchmark_that_nobody_knows_is_refused_with_those_that_are():
    with pytest.raises(ValidationError, match=r"no benchmark 'mmlu_law'; known are mmlu_medical, multimedqa, mmlu_an"):
        DownloadSettings(more_benchmarks=["mmlu_law"])
