"""The base model from a folder, a bucket and a stand-in of the Hugging Face hub over real HTTP."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from components.common import storage
from components.common.errors import InputError, PipelineError, StorageError
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest
from components.download import base_model
from components.download.base_model import download_base_model
from components.download.settings import DownloadSettings
from tests.hub_server import Fault, Hub, Repo, running_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_good"
QUICK = {"attempts": 3, "longest_backoff_seconds": 0.01, "connect_timeout_seconds": 2, "read_timeout_seconds": 2}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield running


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model of two weight files with their index, beside a pickle, another layout and files below."""
    folder = tmp_path / "model"
    (folder / "original").mkdir(parents=True)
    weights = {f"model-0000{i}-of-00002.safetensors": f"w{i}" for i in (1, 2)}
    rng = np.random.default_rng(0)
    for name, tensor in weights.items():
        save_file({tensor: rng.random((700, 700))}, folder / name)
    index = {"metadata": {}, "weight_map": {tensor: name for name, tensor in weights.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "consolidated.safetensors").write_bytes(b"another layout")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "README.md").write_text("# Model")
    (folder / "original" / "params.json").write_text("{}")
    return folder


KEPT = {
    "config.json",
    "tokenizer.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
}


def _fetch(place: Path | str, store: Path | str, revision: str = COMMIT) -> Manifest:
    settings = DownloadSettings(base_model=str(place), base_model_revision=revision, transport=QUICK)
    return download_base_model(settings, storage.to_uri(store))


def _serve(hub: Hub, folder: Path, **more: bool) -> str:
    hub.repos["models/lab/model"] = Repo(folder, COMMIT, **more)  # type: ignore[arg-type]
    return "lab/model"


def _stored(manifest: Manifest) -> dict[str, str]:
    folder = storage.local_path(manifest.extra["model_uri"])
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def test_the_same_files_come_from_the_hub_a_folder_and_a_bucket(
    hub: Hub, sharded: Path, s3_server: str, tmp_path: Path
) -> None:
    bucket = storage.join(s3_server, "mirror")
    storage.upload_folder(sharded, bucket)
    manifests = [
        _fetch(place, tmp_path / str(number)) for number, place in enumerate((_serve(hub, sharded), sharded, bucket))
    ] + [_fetch(bucket, storage.join(s3_server, "store"))]
    assert len({manifest.fingerprint for manifest in manifests}) == 1
    expected = {name: sha256_file(sharded / name) for name in KEPT}
    for manifest in manifests[:3]:
        assert _stored(manifest) == expected
    for manifest in manifests:
        assert {shard.name: shard.sha256 for shard in manifest.shards} == expected
        assert expected.items() <= manifest.inputs.items()
        assert manifest.totals["weight_bytes"] == sum((sharded / n).stat().st_size for n in KEPT if "-of-" in n)
        assert manifest.extra["model_uri"] == manifest.shards[0].uri.rpartition("/")[0]
    remote = manifests[3]
    assert {
        storage.relative(e.uri, remote.extra["model_uri"]) for e in storage.list_files(remote.extra["model_uri"])
    } == KEPT


def test_a_commit_is_recorded_and_a_branch_is_resolved_to_it_with_a_warning(
    hub: Hub, sharded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pinned = _fetch(_serve(hub, sharded), tmp_path / "a")
    assert (pinned.extra["commit"], pinned.inputs["repository"]) == (COMMIT, f"lab/model@{COMMIT}")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    moving = _fetch("lab/model", tmp_path / "a", revision="main")
    assert moving.extra == pinned.extra
    assert moving.shards == pinned.shards
    assert f"it is {COMMIT} now: set download.base_model_revision" in caplog.text


def test_a_download_that_was_cut_off_goes_on_at_the_next_file(hub: Hub, sharded: Path, tmp_path: Path) -> None:
    _serve(hub, sharded)
    hub.faults = [Fault("model-00002-of", status=503, times=9)]
    with pytest.raises(InputError, match=rf"lab/model@{COMMIT}/model-00002-of-00002.safetensors .* it answers 503"):
        _fetch("lab/model", tmp_path)
    hub.faults.clear()
    hub.requests.clear()
    manifest = _fetch("lab/model", tmp_path)
    # The index is read to know which files are due; of the weights only the one that was missing is asked for.
    assert {path.rpartition("/")[2] for _, path, _, _ in hub.asked("/resolve/")} == {
        "model.safetensors.index.json",
        "model-00002-of-00002.safetensors",
    }
    assert _stored(manifest).keys() == KEPT


def test_a_stored_file_that_was_damaged_since_is_fetched_again(hub: Hub, sharded: Path, tmp_path: Path) -> None:
    first = _fetch(_serve(hub, sharded), tmp_path)
    damaged = storage.local_path(first.extra["model_uri"]) / "model-00001-of-00002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert _stored(_fetch("lab/model", tmp_path)) == {name: sha256_file(sharded / name) for name in KEPT}


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_connection_that_breaks_in_a_file_goes_on_where_it_broke(
    ranges: bool, hub: Hub, sharded: Path, tmp_path: Path
) -> None:
    hub.ranges = ranges
    weights = "model-00001-of-00002.safetensors"
    hub.faults = [Fault(str(sharded / weights), cut=3_000_000)]
    assert _stored(_fetch(_serve(hub, sharded), tmp_path))[weights] == sha256_file(sharded / weights)
    assert [asked for *_, asked in hub.asked(str(sharded / weights))] == [None, "bytes=2097152-"]


def test_busy_answers_are_tried_again(hub: Hub, sharded: Path, tmp_path: Path) -> None:
    hub.faults = [
        Fault("/api/models", status=500),
        Fault("/api/models", status=429, headers={"Retry-After": "0"}),
        Fault("config.json", status=503),
        Fault("tokenizer.json", status=429),
    ]
    assert _stored(_fetch(_serve(hub, sharded), tmp_path)).keys() == KEPT


@pytest.mark.parametrize(
    ("name", "kind"), [("config.json", "git object id"), ("model-00001-of-00002.safetensors", "SHA-256")]
)
def test_a_file_with_wrong_bytes_is_refused_by_name_and_not_stored(
    name: str, kind: str, hub: Hub, sharded: Path, tmp_path: Path
) -> None:
    hub.faults = [Fault(name, flip=True, times=9)]
    with pytest.raises(InputError, match=f"{name} came with the {kind} [0-9a-f]+ where its source says"):
        _fetch(_serve(hub, sharded), tmp_path / "store")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(name)]


@pytest.mark.parametrize("place", ["hub", "folder"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:-1000], "is cut short: 3,919,0.. bytes, and its header says 3,920,0"),
        (lambda data: data[:40], "is cut short: it ends after 40 bytes, within its header"),
        (lambda data: data + b"x", "is too long"),
        (lambda data: b"\xff" * 8 + data, "is no safetensors file: its header would have"),
        (lambda data: data[:8] + b"no" + data[10:], "is no safetensors file: its header cannot be read"),
    ],
    ids=["no end", "no header", "too long", "length", "json"],
)
def test_weights_that_are_not_what_their_header_says_are_refused_by_name(
    place: str, change: object, sentence: str, hub: Hub, sharded: Path, tmp_path: Path
) -> None:
    path = sharded / "model-00001-of-00002.safetensors"
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=f"{path.name} {sentence}"):
        _fetch(_serve(hub, sharded) if place == "hub" else sharded, tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*-of-*"))


def test_an_index_names_only_weights_that_are_there(sharded: Path, tmp_path: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks model-00002-of-00002\.safetensors \(1 of the 2 weight files"):
        _fetch(sharded, tmp_path / "store")
    for wrong in ("../model.safetensors", "pytorch_model.bin", 7):
        (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": wrong}}))
        with pytest.raises(InputError, match="no safetensors file beside it"):
            _fetch(sharded, tmp_path / "store")
    for wrong in ("[]", "{", '{"weight_map": 3}'):
        (sharded / "model.safetensors.index.json").write_text(wrong)
        with pytest.raises(InputError, match=r"model\.safetensors\.index\.json cannot be read"):
            _fetch(sharded, tmp_path / "store")


def test_a_model_of_pickles_alone_is_refused_by_name(hub: Hub, sharded: Path, tmp_path: Path) -> None:
    for path in sharded.glob("*.safetensors"):
        path.unlink()
    for place in (_serve(hub, sharded), sharded):
        with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle"):
            _fetch(place, tmp_path / "store")
    assert not hub.asked("/resolve/")


def test_what_is_missing_from_a_model_is_named(sharded: Path, tmp_path: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match=r"consolidated\.safetensors but neither model\.safetensors nor"):
        _fetch(sharded, tmp_path / "store")
    (sharded / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        _fetch(sharded, tmp_path / "store")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("/api", status=401, headers={"X-Error-Code": "GatedRepo"}), "it is gated; accept its terms"),
        (Fault("/api", status=403, headers={"X-Error-Code": "GatedRepo"}), "it is gated; accept its terms"),
        (Fault("/api", status=401), "there is no such repository, or it needs an account: set HF_TOKEN"),
        (
            Fault("/api", status=401, headers={"X-Error-Message": "Invalid credentials in"}),
            "it does not accept HF_TOKEN",
        ),
        (Fault("/api", status=403), "it needs an account: set HF_TOKEN"),
        (Fault("/api", status=404, headers={"X-Error-Code": "RevisionNotFound"}), "there is no such revision"),
        (Fault("/api", status=404), "it answers 404; check the name and HF_ENDPOINT"),
        (Fault("/api", status=429), "it limits the rate of requests"),
        (Fault("/api", status=500), "it answers 500; try again later"),
        (Fault("/api", cut=0, status=418), "it answers 418"),
        (Fault("config.json", status=404, headers={"X-Error-Code": "EntryNotFound"}), "the file is listed but not"),
    ],
)
def test_every_answer_of_the_hub_is_one_sentence(
    fault: Fault, sentence: str, hub: Hub, sharded: Path, tmp_path: Path
) -> None:
    fault.times = 9
    hub.faults = [fault]
    with pytest.raises(InputError, match=f"^Cannot fetch .*lab/model.* from the hub {hub.url}: .*{sentence}") as caught:
        _fetch(_serve(hub, sharded), tmp_path)
    assert "\n" not in str(caught.value)
    tries = 3 if fault.status in (429, 500) else 1
    assert len(hub.asked(fault.part)) == tries


def test_a_name_a_revision_or_a_folder_that_is_not_there_is_named(hub: Hub, sharded: Path, tmp_path: Path) -> None:
    _serve(hub, sharded)
    with pytest.raises(InputError, match=r"model lab/other .*there is no such repository"):
        _fetch("lab/other", tmp_path)
    with pytest.raises(InputError, match=r"revision v9.*there is no such revision"):
        _fetch("lab/model", tmp_path, revision="v9")
    with pytest.raises(InputError, match=r"There is no folder \./models/nothing"):
        _fetch("./models/nothing", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"There is nothing at file:///.*/empty"):
        _fetch(tmp_path / "empty", tmp_path)
    with pytest.raises(InputError, match="that is no name of a repository"):
        _fetch("lab/mo--del", tmp_path)


def test_another_commit_than_the_pinned_one_is_refused(hub: Hub, sharded: Path, tmp_path: Path) -> None:
    hub.repos["models/lab/model"] = Repo(sharded, COMMIT, branches=("f" * 40,))
    with pytest.raises(InputError, match=f"The hub answers with commit {COMMIT} of lab/model for f+; check"):
        _fetch("lab/model", tmp_path, revision="f" * 40)


def test_the_links_of_the_hubs_own_cache_are_followed(sharded: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in KEPT:
        (snapshot / name).symlink_to(Path("../..") / "model" / name)
    assert _fetch(snapshot, tmp_path / "store").fingerprint == _fetch(sharded, tmp_path / "store").fingerprint


def test_a_hub_that_is_not_there_or_no_hub_is_one_sentence(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults = [Fault("/api", status=200, times=9)]
    with pytest.raises(InputError, match="what answers there is no Hugging Face hub"):
        _fetch("lab/model", tmp_path)
    for wrong in ("http://[", "127.0.0.1:9/hub"):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        with pytest.raises(InputError, match=r"check .*HF_ENDPOINT"):
            _fetch("lab/model", tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"it cannot be reached \(ConnectError\); .* give a folder or an s3:// prefix"):
        _fetch("lab/model", tmp_path)


def test_offline_mode_is_named(hub: Hub, tmp_path: Path) -> None:
    code = f"""
from components.common.errors import InputError
from components.download.base_model import download_base_model
from components.download.settings import DownloadSettings
try:
    download_base_model(DownloadSettings(base_model="lab/model"), "file://{tmp_path}")
except InputError as error:
    print(error)
"""
    environment = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.url, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "HF_HUB_OFFLINE is set; unset it, or give a folder" in done.stdout
    assert not hub.requests


def test_the_token_opens_a_gated_model_and_goes_nowhere_else(
    hub: Hub, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _serve(hub, sharded, gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(InputError, match="it is gated") as refused:
        _fetch("lab/model", tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.requests.clear()
    hub.faults = [Fault("config.json", status=503)]
    manifest = _fetch("lab/model", tmp_path)
    assert {authorization for server, _, authorization, _ in hub.requests if server == "hub"} == {f"Bearer {TOKEN}"}
    assert {authorization for server, _, authorization, _ in hub.requests if server == "cdn"} == {None}
    told = caplog.text + manifest.to_json() + str(refused.value)
    assert TOKEN not in told
    assert "hf_bad" not in told


def test_a_full_disk_is_found_before_the_first_file(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(base_model.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(StorageError, match=r"The base model needs 0\.0 GB and .* has 0\.0 GB left"):
        _fetch(sharded, tmp_path / "store")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_store_that_refuses_is_named(sharded: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(PipelineError, match="store"):
        _fetch(sharded, tmp_path / "store")


def _large_model(folder: Path, megabytes: int) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    data = megabytes * 1_000_000
    header = json.dumps({"w": {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        # Sparse: its bytes read as zeros.
        file.truncate(8 + len(header) + data)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_stays_flat_however_large_the_weights_are(hub: Hub, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from components.download.base_model import download_base_model
from components.download.settings import DownloadSettings
download_base_model(DownloadSettings(base_model="lab/model", base_model_revision=sys.argv[1]), sys.argv[2])
# Not getrusage: its maximum starts with that of the process that forked this one.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""
    peaks = []
    for megabytes in (3, 400):
        _serve(hub, _large_model(tmp_path / "large", megabytes))
        command = [sys.executable, "-c", code, COMMIT, storage.to_uri(tmp_path / "store")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    # What is under way, which on a busy disk is a dozen parts of ten megabytes.
    assert peaks[1] - peaks[0] < 200, peaks
