"""Benchmarks from official files and from a stand-in of the Hugging Face hub, and the bundled base model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow.json import read_json

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest
from components.download.base_model import download_base_model
from components.download.benchmarks import download_benchmarks
from components.download.official import COUNTS, pubmedqa_test_ids
from components.download.sample import BENCHMARKS_DIR
from components.download.settings import DownloadSettings
from tests.hub_server import Fault, Hub, Repo, running_hub

OFFICIAL = Path(__file__).parent.parent.parent / "shared" / "data" / "benchmarks"
COMMITS = {"pubmedqa": "a" * 40, "medmcqa": "b" * 40, "medqa": "c" * 40}
QUICK = {"attempts": 2, "longest_backoff_seconds": 0.01}


def _copy(tmp_path: Path) -> Path:
    """The bundled files as a mirror would hold samples: under names that say so."""
    place = tmp_path / "b"
    shutil.copytree(BENCHMARKS_DIR, place)
    for name in ("pubmedqa/ori_pqal.json", "medmcqa/dev.json", "medmcqa/train.json"):
        (place / name).rename((place / name).with_suffix(".sample.json"))
    for split in ("test", "train"):
        (place / f"medqa/phrases_no_exclude_{split}.jsonl").rename(place / f"medqa/{split}.sample.jsonl")
    return place


def _manifest(place: Path | str, tmp_path: Path, **more: object) -> Manifest:
    settings = DownloadSettings(benchmarks=str(place), transport=QUICK, **more)  # type: ignore[arg-type]
    return download_benchmarks(settings, storage.to_uri(tmp_path / "store"))


def _load(place: Path | str, tmp_path: Path) -> dict[str, list[dict]]:
    return {
        shard.name: [json.loads(line) for line in storage.read(shard.uri).decode().split("\n") if line]
        for shard in _manifest(place, tmp_path).shards
    }


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _write_lines(path: Path, records: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _grown(records: list[dict], count: int) -> Iterator[str]:
    """The records as JSON lines, repeated up to the count; a repeated one gets an id of its own."""
    repeated = [json.dumps(record | {"id": "an id of its own"}) for record in records]
    for i in range(count):
        text = repeated[i % len(records)].replace("an id of its own", f"repeated-{i}")
        yield (json.dumps(records[i]) if i < len(records) else text) + "\n"


def _write_grown(path: Path, records: list[dict], count: int) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(_grown(records, count)), encoding="utf-8")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the official form and size: the real ones as far as they are here, else the bundled ones, repeated."""
    folder = tmp_path_factory.mktemp("official")
    source, real = (OFFICIAL, True) if OFFICIAL.exists() else (BENCHMARKS_DIR, False)
    entries = json.loads((source / "pubmedqa/ori_pqal.json").read_text())
    if not real:
        filler = list(entries.values())
        ids = sorted(pubmedqa_test_ids()) + [f"{i}" for i in range(1, 501)]
        entries = {pmid: filler[i % len(filler)] for i, pmid in enumerate(ids)}
    (folder / "pubmedqa").mkdir()
    (folder / "pubmedqa/ori_pqal.json").write_text(json.dumps(entries))
    truth = {pmid: entries[pmid]["final_decision"] for pmid in pubmedqa_test_ids()}
    (folder / "pubmedqa/test_ground_truth.json").write_text(json.dumps(truth))
    train = [line | {"exp": ""} for line in _lines(source / f"medmcqa/train{'.sample' * real}.json")[:200]]
    _write_grown(folder / "medmcqa/dev.json", _lines(source / "medmcqa/dev.json"), COUNTS["medmcqa-test"])
    _write_grown(folder / "medmcqa/train.json", train, COUNTS["medmcqa-train"])
    for split in ("test", "dev", "train"):
        name = f"{split}.sample" if real and split != "test" else f"phrases_no_exclude_{'test' if real else 'train'}"
        questions = _lines(source / f"medqa/{name}.jsonl")
        _write_grown(folder / f"medqa/phrases_no_exclude_{split}.jsonl", questions, COUNTS[f"medqa-{split}"])
    return folder


@pytest.fixture(scope="module")
def hub_copy(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mirror's questions in the form of the hub's data sets."""
    folder = tmp_path_factory.mktemp("hub")
    entries = json.loads((mirror / "pubmedqa/ori_pqal.json").read_text())
    rows = [
        {
            "pubid": int(pmid),
            "question": entry["QUESTION"],
            "context": {"contexts": entry["CONTEXTS"], "labels": entry["LABELS"], "meshes": entry["MESHES"]},
            "long_answer": entry["LONG_ANSWER"],
            "final_decision": entry["final_decision"],
        }
        for pmid, entry in entries.items()
    ]
    _write_parquet(folder / "pubmedqa/pqa_labeled/train-00000-of-00001.parquet", rows)
    for split, name in (("dev", "validation"), ("train", "train")):
        table = read_json(mirror / f"medmcqa/{split}.json")
        answers = pc.subtract(table["cop"], 1)
        table = table.set_column(table.schema.get_field_index("cop"), "cop", answers)
        _write_parquet(folder / f"medmcqa/data/{name}-00000-of-00001.parquet", table)
    for split in ("test", "dev", "train"):
        questions = _lines(mirror / f"medqa/phrases_no_exclude_{split}.jsonl")
        _write_lines(folder / f"medqa/{split}.json", (_as_on_hub(split, i, q) for i, q in enumerate(questions)))
    return folder


def _as_on_hub(split: str, index: int, question: dict) -> dict:
    endings = {f"ending{i}": question["options"][letter] for i, letter in enumerate("ABCD")}
    label = "ABCD".index(question["answer_idx"])
    return {"id": f"{split}-{index:05d}", "sent1": question["question"], "sent2": "", **endings, "label": label}


def _write_parquet(path: Path, rows: list[dict] | pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows) if isinstance(rows, list) else rows, path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


def _serve(hub: Hub, folder: Path) -> dict[str, str]:
    """Put the three data sets on the hub; returns the settings that name them."""
    for name, commit in COMMITS.items():
        hub.repos[f"datasets/lab/{name}"] = Repo(folder / name, commit)
    return {name: f"lab/{name}@{commit}" for name, commit in COMMITS.items()}


def test_the_sample_has_thirty_test_questions_of_each_benchmark(tmp_path: Path) -> None:
    manifest = _manifest("sample", tmp_path)
    splits = _load("sample", tmp_path)
    for name in ("pubmedqa-test", "medmcqa-test", "medqa-test"):
        assert len(splits[name]) >= 30
    for questions in splits.values():
        assert all(question["answer"] in question["options"] for question in questions)
    assert manifest.extra == {}
    assert manifest.inputs["medmcqa/dev.json"] == sha256_file(BENCHMARKS_DIR / "medmcqa/dev.json")


def test_the_hub_and_a_mirror_give_the_same_bytes(mirror: Path, hub_copy: Path, hub: Hub, tmp_path: Path) -> None:
    pins = _serve(hub, hub_copy)
    from_mirror = _manifest(mirror, tmp_path / "mirror")
    from_hub = _manifest("hub", tmp_path / "hub", hub=pins)
    assert {shard.name: shard.rows for shard in from_hub.shards} == COUNTS
    assert from_hub.fingerprint == from_mirror.fingerprint
    assert from_hub.totals == from_mirror.totals
    for ours, theirs in zip(from_hub.shards, from_mirror.shards, strict=True):
        assert storage.read(ours.uri) == storage.read(theirs.uri)
    in_data_set = {path: path.relative_to(hub_copy).parts for path in hub_copy.rglob("*") if path.is_file()}
    assert from_hub.inputs == {
        f"{pins[name]}/{'/'.join(parts)}": sha256_file(path) for path, (name, *parts) in in_data_set.items()
    }
    assert from_mirror.inputs == {
        path.relative_to(mirror).as_posix(): sha256_file(path) for path in mirror.rglob("*") if path.is_file()
    }
    assert from_hub.settings == {"benchmarks": "hub", "hub": pins, "more_benchmarks": []}
    assert from_hub.extra == from_mirror.extra == {}


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official files are not here")
def test_the_official_files_give_the_official_counts_and_samples_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = _manifest(OFFICIAL, tmp_path)
    assert {shard.name: shard.rows for shard in manifest.shards} == {
        "pubmedqa-test": 500,
        "pubmedqa-train": 500,
        "medmcqa-test": 4183,
        "medmcqa-train": 1000,
        "medqa-test": 1273,
        "medqa-dev": 1272,
        "medqa-train": 777,
    }
    assert manifest.extra == {"samples": ["medmcqa-train", "medqa-dev", "medqa-train"]}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "Samples, not the whole: medmcqa-train, medqa-dev, medqa-train; compare no results with published ones there."
    ]


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official files are not here")
def test_the_bundled_list_is_the_official_test_set_of_pubmedqa() -> None:
    truth = json.loads((OFFICIAL / "pubmedqa/test_ground_truth.json").read_text())
    assert pubmedqa_test_ids() == truth.keys()


@pytest.mark.parametrize("file", ["medmcqa/dev.json", "medqa/phrases_no_exclude_dev.jsonl"])
def test_a_file_that_lost_a_line_is_refused_with_both_numbers(file: str, mirror: Path, tmp_path: Path) -> None:
    place = tmp_path / "short"
    shutil.copytree(mirror, place, copy_function=os.link)
    (place / file).unlink()
    (place / file).write_bytes((mirror / file).read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0])
    number = sum(1 for _ in (mirror / file).open())
    with pytest.raises(
        InputError, match=f"{file} gives {number - 1:,} questions of .* and the official number is {number:,};"
    ):
        _manifest(place, tmp_path)


def test_a_short_data_set_on_the_hub_is_refused(hub_copy: Path, hub: Hub, tmp_path: Path) -> None:
    place = tmp_path / "short"
    shutil.copytree(hub_copy, place, copy_function=os.link)
    file = place / "pubmedqa/pqa_labeled/train-00000-of-00001.parquet"
    table = pq.read_table(file)
    file.unlink()
    pq.write_table(table.slice(0, 999), file)
    pins = _serve(hub, place)
    with pytest.raises(InputError, match=rf"{pins['pubmedqa']}/pqa_labeled/.* the official number is 500"):
        _manifest("hub", tmp_path, hub=pins)


def test_another_choice_of_test_questions_is_refused(mirror: Path, tmp_path: Path) -> None:
    place = tmp_path / "other"
    shutil.copytree(mirror, place, copy_function=os.link)
    entries = json.loads((place / "pubmedqa/ori_pqal.json").read_text())
    (place / "pubmedqa/test_ground_truth.json").unlink()
    (place / "pubmedqa/test_ground_truth.json").write_text(json.dumps(dict.fromkeys(sorted(entries)[:500], "yes")))
    with pytest.raises(InputError, match="the 500 test questions are not PubMedQA's official ones"):
        _manifest(place, tmp_path)


@pytest.mark.parametrize("pin", ["lab/medqa", "lab/medqa@main", "lab/medqa@0123abc", "medqa@" + "c" * 40])
def test_a_data_set_that_is_not_pinned_is_refused_before_anything_is_asked(pin: str, hub: Hub, tmp_path: Path) -> None:
    pins = {name: f"lab/{name}@{commit}" for name, commit in COMMITS.items()} | {"medqa": pin}
    with pytest.raises(InputError, match=f"download.hub.medqa is '{pin}', which can change .* give owner/name@commit"):
        _manifest("hub", tmp_path, hub=pins)
    assert not hub.requests


def test_what_is_wrong_on_the_hub_is_named(hub_copy: Path, hub: Hub, tmp_path: Path) -> None:
    pins = _serve(hub, hub_copy)
    with pytest.raises(InputError, match=r"dataset lab/medqa \(revision d+\) .*there is no such revision"):
        _manifest("hub", tmp_path, hub=pins | {"medqa": "lab/medqa@" + "d" * 40})
    with pytest.raises(InputError, match=r"lab/medqa@c+ on the Hugging Face hub has no file pqa_labeled/"):
        _manifest("hub", tmp_path, hub=pins | {"pubmedqa": pins["medqa"]})
    hub.faults = [Fault("pqa_labeled", status=500, times=9)]
    with pytest.raises(InputError, match=r"lab/pubmedqa@a+/pqa_labeled/.* it answers 500"):
        _manifest("hub", tmp_path, hub=pins)
    hub.faults = [Fault("pubmedqa/pqa_labeled", flip=True, times=9)]
    with pytest.raises(InputError, match=r"lab/pubmedqa@a+/pqa_labeled/.* came with the SHA-256"):
        _manifest("hub", tmp_path, hub=pins)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"question": "?"}], "PubMedQA row 1 has no field 'pubid'|PubMedQA row 1 has no field 'context'"),
        (b"PAR1 no more", "is no Parquet file"),
    ],
)
def test_parquet_of_another_form_is_refused(
    rows: list[dict] | bytes, sentence: str, hub_copy: Path, hub: Hub, tmp_path: Path
) -> None:
    place = tmp_path / "other"
    shutil.copytree(hub_copy, place, copy_function=os.link)
    file = place / "pubmedqa/pqa_labeled/train-00000-of-00001.parquet"
    file.unlink()
    file.write_bytes(rows) if isinstance(rows, bytes) else _write_parquet(file, rows)
    with pytest.raises(InputError, match=sentence):
        _manifest("hub", tmp_path, hub=_serve(hub, place))


def test_the_hubs_answers_must_count_from_0(hub_copy: Path, hub: Hub, tmp_path: Path) -> None:
    place = tmp_path / "other"
    shutil.copytree(hub_copy, place, copy_function=os.link)
    file = place / "medmcqa/data/validation-00000-of-00001.parquet"
    rows = [row | {"cop": row["cop"] + 1} for row in pq.read_table(file).to_pylist()]
    file.unlink()
    _write_parquet(file, rows)
    with pytest.raises(InputError, match=r"MedMCQA dev row \d+: cop is 4, the hub's copy has 0, 1, 2 or 3"):
        _manifest("hub", tmp_path, hub=_serve(hub, place))


def test_medmcqa_counts_its_answers_from_1_and_the_other_convention_is_refused(tmp_path: Path) -> None:
    place = _copy(tmp_path)
    path = place / "medmcqa" / "dev.sample.json"
    lines = _lines(path)
    question = next(q for q in _load(place, tmp_path)["medmcqa-test"] if q["id"] == lines[0]["id"])
    assert question["options"][question["answer"]] == lines[0][("opa", "opb", "opc", "opd")[lines[0]["cop"] - 1]]
    path.write_text("\n".join(json.dumps({**line, "cop": line["cop"] - 1}) for line in lines))
    with pytest.raises(InputError, match="counts from 0"):
        _load(place, tmp_path)


def test_a_line_ends_where_json_lines_end_and_nowhere_else(tmp_path: Path) -> None:
    place = _copy(tmp_path)
    path = place / "medqa" / "test.sample.jsonl"
    lines = _lines(path)
    lines[0]["question"] = "Which\u2028of\u0085these?"
    path.write_text("\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\r\n\r\n", newline="")
    questions = _load(place, tmp_path)["medqa-test"]
    assert len(questions) == len(lines)
    assert questions[0]["question"] == lines[0]["question"]


def test_a_question_without_a_field_or_twice_is_named(tmp_path: Path) -> None:
    place = _copy(tmp_path)
    path = place / "medmcqa" / "dev.sample.json"
    lines = _lines(path)
    _write_lines(path, [*lines, lines[3]])
    with pytest.raises(InputError, match=f"holds the question {lines[3]['id']} more than once"):
        _load(place, tmp_path)
    path = place / "pubmedqa" / "ori_pqal.sample.json"
    questions = json.loads(path.read_text())
    pmid = next(iter(questions))
    del questions[pmid]["final_decision"]
    path.write_text(json.dumps(questions))
    with pytest.raises(InputError, match=f"{pmid} has no field 'final_decision'"):
        _load(place, tmp_path)


def test_a_missing_file_and_broken_json_are_named(tmp_path: Path) -> None:
    place = _copy(tmp_path)
    (place / "medmcqa" / "dev.sample.json").write_text('{"id": 1\n')
    with pytest.raises(InputError, match=r"dev\.sample\.json line 1 is no JSON"):
        _load(place, tmp_path)
    (place / "medmcqa" / "dev.sample.json").unlink()
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
