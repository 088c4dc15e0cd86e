"""A run in containers, as far as it can be told without Docker; `make test-containers` has the rest."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests

from components.common.errors import InputError, PipelineError
from components.common.settings import get_settings
from pipelines.containers import (
    Containers,
    _compare_revisions,
    _ContainerStep,
    _identity,
    _lines,
    environment,
    run_in_containers,
)
from pipelines.local import Place
from pipelines.recipe import load_recipe

ROOT = Path(__file__).parent.parent


class Container:
    """A container as docker's client gives it."""

    def __init__(self, chunks: list[bytes], code: int = 0, out_of_memory: bool = False, vanishes: bool = False) -> None:
        self._chunks, self._code, self._vanishes = chunks, code, vanishes
        self.attrs = {"State": {"OOMKilled": out_of_memory}}
        self.removed = False

    def start(self) -> None:
        pass

    def logs(self, **_: Any) -> Any:
        return iter(self._chunks)

    def wait(self) -> dict[str, int]:
        if self._vanishes:
            response = requests.Response()
            response.status_code = 404
            raise docker.errors.NotFound("gone", response, "No such container")
        return {"StatusCode": self._code}

    def reload(self) -> None:
        pass

    def remove(self, **_: Any) -> None:
        self.removed = True


def run_step(container: Container, ending: bool = False) -> tuple[int, dict[str, Any]]:
    asked: dict[str, Any] = {}

    def create(**arguments: Any) -> Container:
        asked.update(arguments)
        return container

    event = threading.Event()
    if ending:
        event.set()
    step = _ContainerStep(Path("/home"), {"image:1": "image@sha256:1"}, event)
    client = SimpleNamespace(containers=SimpleNamespace(create=create))
    return step(client, "image:1", ["true"], {}, environment={"A": "b", "PMC_IMAGE": "image:1"}), asked


def test_a_step_gets_the_exit_code_of_its_container_which_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    container = Container([b"12:00:00 half of an um", b"laut: \xc3", b"\xa4\n", b"and the rest"], code=3)
    code, asked = run_step(container)
    assert code == 3 and container.removed
    assert capsys.readouterr().out == "12:00:00 half of an umlaut: ä\nand the rest\n"
    assert asked["environment"] == {"A": "b", "PMC_IMAGE": "image@sha256:1"}


def test_a_container_that_vanishes_before_its_exit_code_is_known_has_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _ = run_step(Container([], vanishes=True))
    assert code == 1
    assert "ERROR: Docker lost a step in image:1: No such container" in capsys.readouterr().out


def test_a_step_that_ran_out_of_memory_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run_step(Container([], code=137, out_of_memory=True))
    assert code == 137
    assert "ERROR: The step's container ran out of memory." in capsys.readouterr().out


def test_no_step_is_started_once_the_run_is_being_ended() -> None:
    code, asked = run_step(Container([]), ending=True)
    assert code == 1 and not asked


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_whole_wherever_the_stream_is_cut(size: int) -> None:
    text = "erste Zeile: äöü\r\n\nzweite, 4.3 µm\nohne Ende"
    data = text.encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert list(_lines(iter(chunks))) == ["erste Zeile: äöü", "", "zweite, 4.3 µm", "ohne Ende"]


def test_a_container_gets_the_places_of_the_run_and_nothing_else_of_this_machine() -> None:
    variables = {
        "PMC_STORE_URI": "s3://bucket",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HF_TOKEN": "token",
        "https_proxy": "http://proxy:3128",
        "PMC_LOG_LEVEL": "",
        "PMC_RUNNER_PID": "1234",
        "PMC_GIT_REVISION": "of this checkout",
        "PMC_IMAGE": "a",
        "PMC_TRAINER_IMAGE": "b",
        "AWS_SHARED_CREDENTIALS_FILE": "/home/me/.aws/credentials",
        "PATH": "/usr/bin",
        "HOME": "/home/me",
        "PYTHONPATH": "/src",
        "GITHUB_TOKEN": "not theirs",
    }
    assert sorted(environment(variables)) == [
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_URI", "PMC_STORE_URI", "https_proxy",
    ]  # fmt: skip


def test_a_profile_becomes_the_key_that_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text("[mine]\naws_access_key_id = AK\naws_secret_access_key = SK\naws_session_token = ST\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert environment(os.environ) | {"MLFLOW_DISABLE_TELEMETRY": "true"} == {
        "AWS_ACCESS_KEY_ID": "AK",
        "AWS_SECRET_ACCESS_KEY": "SK",
        "AWS_SESSION_TOKEN": "ST",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    } | {name: value for name, value in os.environ.items() if name.startswith("OMP_")}


def test_a_profile_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match="nobody"):
        environment(os.environ)


@pytest.mark.parametrize(
    ("name", "digests", "expected"),
    [
        ("host:5000/team/image:1.0", ["host:5000/team/image@sha256:d"], "host:5000/team/image@sha256:d"),
        ("image:1.0", ["other/image@sha256:d"], "image:1.0@sha256:id"),
        ("host:5000/image", [], "host:5000/image@sha256:id"),
        ("image@sha256:d", ["image@sha256:d"], "image@sha256:d"),
    ],
)
def test_an_image_is_known_by_its_digest_or_by_its_id_until_it_is_pushed(
    name: str, digests: list[str], expected: str
) -> None:
    assert _identity(name, SimpleNamespace(id="sha256:id", attrs={"RepoDigests": digests})) == expected


@pytest.mark.parametrize(
    ("built", "here", "said"),
    [("a" * 40, "b" * 40, True), ("a" * 40, "a" * 40, False), (f"{'a' * 40}-dirty", "a" * 40, False), ("", "a", False)],
)
def test_an_image_of_another_commit_is_told(
    built: str, here: str, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _compare_revisions("image:1", built, here)
    assert ("image:1 was built from commit aaaaaaaaaaaa" in caplog.text) is said


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PMC_STORE_URI": "file:///somewhere"}, "set PMC_STORE_URI to s3://"),
        ({"PMC_STORE_URI": "s3://bucket", "MLFLOW_TRACKING_URI": "sqlite:///x.db"}, "set MLFLOW_TRACKING_URI"),
        ({"PMC_STORE_URI": "s3://bucket"}, "set MLFLOW_TRACKING_URI"),
    ],
)
def test_a_place_that_no_container_sees_is_refused(
    variables: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with pytest.raises(InputError, match=said):
        Containers([]).check(Place(tmp_path))


def test_a_mount_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*/articles"):
        Containers([tmp_path / "articles"]).check(Place(tmp_path))


def test_a_training_that_needs_a_cluster_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["train.launcher=pytorchjob"])
    with pytest.raises(InputError, match=r"train\.launcher=local"):
        run_in_containers(recipe, tmp_path)


def test_a_docker_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMC_STORE_URI", "s3://bucket")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    get_settings.cache_clear()
    with pytest.raises(PipelineError, match=r"Docker does not answer.*DOCKER_HOST"):
        Containers([]).check(Place(tmp_path))


def test_a_run_that_cannot_start_ends_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "run-containers", "--home", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "set PMC_STORE_URI to s3://" in ended.stderr and "Traceback" not in ended.stderr
