"""The instruction set: bundled, from a folder, a bucket's form of it, or the hub; and what is no instruction set."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.instruction_set import INSTRUCTIONS, read_instructions
from components.common.manifest import Manifest
from components.download import instructions as module
from components.download.benchmarks import download_benchmarks
from components.download.settings import DownloadSettings
from tests.hub_server import Hub, Repo, running_hub

COMMIT = "d" * 40
ORGAN = {"instruction": "Name an organ.", "input": "", "output": "The heart."}
TERM = {"instruction": "Explain the term.", "input": "hepatitis", "output": "Inflammation of the liver."}
QUICK = {"attempts": 2, "longest_backoff_seconds": 0.01}


def download(place: Path | str, tmp_path: Path) -> Manifest:
    settings = DownloadSettings.model_validate({"instructions": str(place), "transport": QUICK})
    return download_benchmarks(settings, storage.to_uri(tmp_path / "store"))


def texts(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(solved.instruction, solved.input, solved.output) for solved in read_instructions(manifest)]


def write(path: Path, entries: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------------- where it comes from


def test_the_bundled_set_joins_the_benchmarks_and_changes_none_of_them(tmp_path: Path) -> None:
    plain, manifest = download("", tmp_path), download("sample", tmp_path)
    assert manifest.shards[:-1] == plain.shards
    assert manifest.fingerprint == plain.fingerprint
    assert manifest.totals == plain.totals | {
        "instructions": 120,
        "instructions_duplicates": 0,
        "instructions_empty": 0,
    }
    assert manifest.settings["instructions"] == "sample"
    assert set(manifest.inputs) - set(plain.inputs) == {"instructions/instructions.jsonl"}
    found = texts(manifest)
    assert len(set(found)) == 120
    assert all(instruction and output and len(output) < 200 for instruction, _, output in found)
    assert download("sample", tmp_path) == manifest


def test_no_bundled_answer_gives_a_dose(tmp_path: Path) -> None:
    for _, _, output in texts(download("sample", tmp_path)):
        assert not any(unit in output for unit in (" mg ", " ml ", " tablets"))


@pytest.mark.parametrize("name", ["a.jsonl", "deep/er/a.jsonl"])
def test_a_folder_and_a_file_alone(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "set" / name, [ORGAN, TERM | {"source": "mine", "sample_id": 3}])
    expected = [("Name an organ.", "", "The heart."), ("Explain the term.", "hepatitis", TERM["output"])]
    assert texts(download(tmp_path / "set", tmp_path)) == expected
    assert texts(download(file, tmp_path)) == expected
    assert texts(download(f"file://{file}", tmp_path)) == expected


def test_json_lists_json_lines_and_parquet_give_the_same_shard(tmp_path: Path) -> None:
    entries = [ORGAN, {key: value for key, value in ORGAN.items() if key != "input"} | {"output": "Ωmega"}, TERM]
    write(tmp_path / "lines" / "a.jsonl", entries)
    write(tmp_path / "named-json" / "a.json", entries)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "alpaca.json").write_text(json.dumps(entries, indent=1))
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    table = pa.Table.from_pylist([entry | {"input": entry.get("input")} for entry in entries])
    pq.write_table(table, tmp_path / "parquet" / "data" / "train-0.parquet")
    (tmp_path / "parquet" / "dataset_infos.json").write_text('{"default": {}}')
    found = [download(tmp_path / kind, tmp_path) for kind in ("lines", "named-json", "list", "parquet")]
    assert len({manifest.shard(INSTRUCTIONS).sha256 for manifest in found}) == 1
    assert len(texts(found[0])) == 3


def test_several_files_are_read_by_name(tmp_path: Path) -> None:
    write(tmp_path / "set" / "b.jsonl", [TERM])
    write(tmp_path / "set" / "a.jsonl", [ORGAN])
    assert [found[0] for found in texts(download(tmp_path / "set", tmp_path))] == [
        "Name an organ.",
        "Explain the term.",
    ]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


def test_a_data_set_of_the_hub_is_read_at_its_commit(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "repo" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([ORGAN, TERM]), tmp_path / "repo" / "data" / "train-00000.parquet")
    (tmp_path / "repo" / "README.md").write_text("# A set")
    hub.repos["datasets/lab/instructions"] = Repo(tmp_path / "repo", COMMIT)
    manifest = download(f"lab/instructions@{COMMIT}", tmp_path)
    assert len(texts(manifest)) == 2
    assert "instructions/data/train-00000.parquet" in manifest.inputs
    assert not hub.asked("README.md")


@pytest.mark.parametrize("pin", ["lab/instructions@main", "lab/instructions@" + "D" * 40, "@", "lab@" + COMMIT])
def test_a_data_set_that_is_not_pinned_is_refused_before_anything_is_asked(pin: str, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"download\.instructions is .* give owner/name@commit"):
        download(pin, tmp_path)
    assert not hub.requests


# ----------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"instruction": "a", "input": ""}, r"a\.jsonl line 3 has no field 'output' where a text is due"),
        ({"question": "a", "output": "b"}, "line 3 has no field 'instruction'"),
        ({"instruction": "a", "output": 5}, "line 3 has int as 'output'"),
        ({"instruction": "a", "output": None}, "line 3 has NoneType as 'output'"),
        ({"instruction": ["a"], "output": "b"}, "line 3 has list as 'instruction'"),
        ({"instruction": "a", "output": "b", "input": {}}, "line 3 has dict as 'input'"),
        ({"instruction": "a" * 100_001, "output": "b"}, "line 3 has 100,001 characters as 'instruction'"),
        ({"instruction": "a", "output": "\ud800"}, "line 3 has half a character"),
        (["a", "b"], "line 3 is no object with the fields instruction, input, output"),
        ("a", "line 3 is no object"),
    ],
)
def test_a_line_of_another_form_is_named(entry: Any, message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [ORGAN])
    file.write_text(file.read_text() + "\n" + json.dumps(entry) + "\n")
    with pytest.raises(InputError, match=message):
        download(file, tmp_path)
    assert not list(tmp_path.glob("store/instructions/**/*.jsonl"))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"instruction": "a" "b"}', "\xff\xfe"])
def test_a_line_that_is_no_json_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(json.dumps(ORGAN).encode() + b"\n" + text.encode("latin-1") + b"\n")
    with pytest.raises(InputError, match=r"a\.jsonl line 2 is no JSON"):
        download(file, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[1, 2", r"a\.json is no JSON"),
        ("a.json", b"[" * 100_000, r"a\.json is no JSON"),
        ("a.json", b"[[]]", r"a\.json entry 1 is no object"),
        ("a.parquet", b"PAR1 not", r"a\.parquet is no Parquet file"),
        ("a.csv", b"a,b", r"There is no \.jsonl, \.parquet or \.json file at .*; check download\.instructions"),
        ("a.jsonl", b"\n \n", "holds no instruction with an answer"),
        ("a.jsonl", b'{"instruction": "a", "output": " "}\n', "holds no instruction with an answer"),
    ],
)
def test_files_that_hold_no_instructions_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        download(tmp_path / "set", tmp_path)


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file at .*nowhere; check download\.instructions"):
        download(tmp_path / "nowhere", tmp_path)


def test_a_set_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set" / "a.jsonl", [ORGAN])
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    with pytest.raises(InputError, match=r"have 71 bytes, more than 10; give a part"):
        download(tmp_path / "set", tmp_path)


def test_repeated_and_empty_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    spaced = {"instruction": " Name an organ.\n", "input": "  ", "output": "The heart. "}
    entries = [ORGAN, spaced, TERM, TERM | {"output": ""}, TERM | {"instruction": " \t"}]
    manifest = download(write(tmp_path / "a.jsonl", entries), tmp_path)
    assert len(texts(manifest)) == manifest.totals["instructions"] == 2
    assert (manifest.totals["instructions_duplicates"], manifest.totals["instructions_empty"]) == (1, 2)


# ------------------------------------------------------------------------------------------------------ who reads it


def test_a_manifest_without_a_set_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"come without an instruction set: set download\.instructions"):
        list(read_instructions(download("", tmp_path)))


def test_a_file_that_was_changed_or_is_no_set_is_refused(tmp_path: Path) -> None:
    manifest = download("sample", tmp_path)
    path = storage.local_path(manifest.shard(INSTRUCTIONS).uri)
    path.write_bytes(path.read_bytes() + b'{"id": "x"}\n')
    with pytest.raises(InputError, match="is not the file that its manifest names"):
        list(read_instructions(manifest))
    shards = [s.model_copy(update={"sha256": module.sha256_bytes(path.read_bytes())}) for s in manifest.shards[-1:]]
    with pytest.raises(InputError, match=r"Line 121 of .* is no instruction \(instruction: Field required\)"):
        list(read_instructions(manifest.model_copy(update={"shards": shards})))
