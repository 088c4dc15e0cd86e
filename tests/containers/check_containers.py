"""The images, and the tiny pipeline in them: `make test-containers`. Needs Docker; no part of `make test`.

It takes the images that build/images.env names, as `make images` left them.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
from mlflow import MlflowClient

from pipelines.containers import HOME_LABEL
from tests.containers.services import KEY, SECRET, services
from tests.pipeline_helpers import QUICK, ROOT

NAMES = dict(line.split("=", 1) for line in (ROOT / "build" / "images.env").read_text().splitlines())
PIPELINE, TRAINER = NAMES["PMC_IMAGE"], NAMES["PMC_TRAINER_IMAGE"]
BOTH = pytest.mark.parametrize("image", [PIPELINE, TRAINER], ids=["pipeline", "trainer"])
USER = 1000 if os.getuid() == 0 else os.getuid()
COMPILERS = r"cc|c\+\+|as|make|cmake|cpp|nvcc|cargo|rustc|go"


@dataclass
class Seen:
    """What was looked at while a run went on."""

    containers: dict[str, dict] = field(default_factory=dict)
    processes: list[tuple[str, int, str]] = field(default_factory=list)  # image, user, command


@dataclass
class Run:
    """A run in containers that is over."""

    home: Path
    code: int
    output: str
    seconds: float
    seen: Seen


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with services(tmp_path_factory.mktemp("servers")) as environment:
        yield environment | {"PMC_IMAGE": PIPELINE, "PMC_TRAINER_IMAGE": TRAINER, "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Where a container's user must be let through, as in a person's own folder.
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def finished(client: docker.DockerClient, servers: dict[str, str], home: Path) -> Run:
    run = _run(client, home, servers)
    assert run.code == 0, run.output[-4000:]
    return run


def test_the_tiny_pipeline_ends_with_a_registered_model(finished: Run, servers: dict[str, str]) -> None:
    (version,) = MlflowClient(servers["MLFLOW_TRACKING_URI"]).search_model_versions("name='pmc-llama-tiny'")
    assert version.tags["image"].startswith(f"{PIPELINE.partition(':')[0]}") and "@sha256:" in version.tags["image"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", version.tags["git_revision"])
    assert version.source.startswith("s3://")


def test_every_process_ran_as_a_user_without_rights_in_the_image_of_its_step(finished: Run) -> None:
    assert {image for image, _, _ in finished.seen.processes} == {PIPELINE, TRAINER}
    assert {user for _, user, _ in finished.seen.processes} == {USER}
    workers = {image for image, _, command in finished.seen.processes if "components.train.trainer" in command}
    assert workers == {TRAINER}
    for details in finished.seen.containers.values():
        rights = details["HostConfig"]
        assert rights["ReadonlyRootfs"] and rights["CapDrop"] == ["ALL"] and not rights["Privileged"]
        assert "no-new-privileges" in rights["SecurityOpt"]


def test_nothing_is_left_and_the_outputs_belong_to_the_user(client: docker.DockerClient, finished: Run) -> None:
    assert not _ours(client)
    owners = {path.stat().st_uid for path in (finished.home / "kfp").rglob("*")}
    assert owners == {USER}


def test_the_same_again_comes_from_the_cache(
    client: docker.DockerClient, servers: dict[str, str], finished: Run
) -> None:
    again = _run(client, finished.home, servers)
    assert again.code == 0, again.output[-4000:]
    commands = " ".join(command for _, _, command in again.seen.processes)
    # What looks at the world as it is runs each time.
    assert "train_model" not in commands and "evaluate_model" not in commands and "download_shard" not in commands
    assert again.seconds < finished.seconds


def test_a_step_that_fails_says_why_and_fails_the_run(
    client: docker.DockerClient, servers: dict[str, str], tmp_path: Path
) -> None:
    run = _run(client, tmp_path, servers, "download.source=files", "download.articles=/nowhere/articles")
    assert run.code == 1
    assert "/nowhere/articles" in run.output


def test_articles_of_this_machine_are_seen_only_where_they_are_mounted(
    client: docker.DockerClient, servers: dict[str, str], tmp_path: Path
) -> None:
    articles = tmp_path / "articles"
    articles.mkdir()
    (articles / "broken.xml").write_text("<article>")
    settings = ("download.source=files", f"download.articles={articles}")
    hidden = _run(client, tmp_path / "hidden", servers, *settings)
    assert hidden.code == 1 and str(articles) in hidden.output
    mounted = _run(client, tmp_path / "mounted", servers, *settings, mounts=[articles])
    # It is read now, and found to be no article.
    assert mounted.code == 1 and "Fetch articles" in mounted.output


def test_an_interrupted_run_leaves_no_container(
    client: docker.DockerClient, servers: dict[str, str], tmp_path: Path
) -> None:
    process = _start(tmp_path, servers)
    try:
        _wait_for_container(client, process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert not _ours(client)


def test_the_next_run_ends_the_containers_of_one_that_was_killed(
    client: docker.DockerClient, servers: dict[str, str], tmp_path: Path
) -> None:
    process = _start(tmp_path, servers, "train.epochs=2000")
    _wait_for_container(client, process, "train_model")
    process.kill()
    process.communicate()
    (orphan,) = _ours(client)
    # It ends what is left before it does anything else, and then fails at once.
    _run(client, tmp_path, servers, "download.source=files", "download.articles=/nowhere/articles")
    with pytest.raises(docker.errors.NotFound):
        orphan.reload()


def test_a_store_that_containers_cannot_see_is_refused(servers: dict[str, str], tmp_path: Path) -> None:
    process = _start(tmp_path, servers | {"PMC_STORE_URI": f"file://{tmp_path}/store"})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "set PMC_STORE_URI to s3://" in output


def test_an_image_that_is_not_there_is_named(servers: dict[str, str], tmp_path: Path) -> None:
    process = _start(tmp_path, servers | {"PMC_TRAINER_IMAGE": "localhost:1/nowhere:1"})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "localhost:1/nowhere:1" in output and "make images" in output


@BOTH
def test_no_compiler_no_package_manager_of_ours_no_cache_no_secret(client: docker.DockerClient, image: str) -> None:
    unwanted = re.compile(
        rf"(usr/|usr/local/)?s?bin/({COMPILERS}|([\w-]+-)?(gcc|g\+\+|clang|ld)(-\d+)?)"
        r"|opt/venv/bin/pip.*|opt/venv/.*/tests/.*|opt/venv/.*/torch/test/.*"
        r"|build/.*|tmp/.+|root/\.cache/.*|home/.*|var/lib/apt/lists/.+_.+|var/cache/apt/.+\.(deb|bin)"
        r"|(.*/)?(pip\.conf|\.netrc|\.pypirc|\.env|\.git|credentials)(/.*)?"
    )
    assert [name for name in _names(client, image) if unwanted.fullmatch(name)] == []


@BOTH
def test_any_user_can_run_it_on_a_root_that_cannot_be_written(client: docker.DockerClient, image: str) -> None:
    script = """
        import getpass, os, pathlib, tempfile
        import components.train.trainer, components.evaluate.evaluate, torch, transformers
        assert os.getuid() == 54321 and getpass.getuser()
        pathlib.Path(os.environ["HOME"], "written").write_text("")
        assert torch.ones(2).sum() == 2
        try:
            pathlib.Path("/opt/pmc/components/changed").write_text("")
        except OSError:
            print("fine")
    """
    program = "\n".join(line.removeprefix(" " * 8) for line in script.splitlines())
    said = _in(client, image, ["python", "-c", program], user="54321:54321", tmpfs={"/tmp": "mode=1777"})
    assert said.split() == ["fine"]


def test_every_step_of_the_pipeline_is_in_its_image(client: docker.DockerClient) -> None:
    modules = [
        f"components.{path.parent.name}.component" for path in sorted((ROOT / "components").glob("*/component.py"))
    ]
    program = f"import importlib\nfor each in {modules}: importlib.import_module(each)\nprint('all')"
    assert _in(client, PIPELINE, ["python", "-c", program], tmpfs={"/tmp": "mode=1777"}).split() == ["all"]


@BOTH
def test_an_image_says_what_it_is(client: docker.DockerClient, image: str) -> None:
    config = client.images.get(image).attrs["Config"]
    labels, variables = config["Labels"], dict(each.split("=", 1) for each in config["Env"])
    assert config["User"] == "1000:1000" and not config["Entrypoint"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"]
    assert labels["org.opencontainers.image.revision"] == variables["PMC_GIT_REVISION"]
    assert variables["PMC_IMAGE"] == image


def test_dependencies_have_a_layer_of_their_own(client: docker.DockerClient) -> None:
    layers = [each for each in client.images.get(PIPELINE).history() if each["Size"] > 1e6]
    venv = [each for each in layers if "/opt/venv" in each["CreatedBy"]]
    code = [each for each in client.images.get(PIPELINE).history() if "/opt/pmc" in each["CreatedBy"] and each["Size"]]
    assert len(venv) == 1 and venv[0]["Size"] > 100e6
    assert sum(each["Size"] for each in code) < 20e6


def test_nothing_that_pip_was_told_during_the_build_is_in_the_image(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    """With few packages, as the way they come in is the same."""
    canary = "canary-8c1f.invalid"
    base = client.images.get(PIPELINE).attrs["Config"]["Labels"]["org.opencontainers.image.base.name"]
    tag = "pmc-llama-canary:check"
    command = [
        "docker",
        "build",
        "--file",
        "images/pipeline.Dockerfile",
        "--tag",
        tag,
        "--build-arg",
        f"BASE_IMAGE={base}",
    ]
    command += ["--build-arg", "EXTRAS=register", "--build-arg", f"PIP_TRUSTED_HOST={canary}"]
    flags = os.environ.get("BUILD_FLAGS", "").split()
    built = subprocess.run([*command, *flags, "."], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    try:
        history = json.dumps(client.images.get(tag).history()) + json.dumps(client.images.get(tag).attrs)
        assert canary not in history
        archive = tmp_path / "image.tar"
        with archive.open("wb") as file:
            file.writelines(client.images.get(tag).save())
        assert _files_with(archive, [canary.encode(), KEY.encode(), SECRET.encode()]) == []
    finally:
        client.images.remove(tag)


def _names(client: docker.DockerClient, image: str) -> list[str]:
    """Every file of an image, without the slash at the beginning."""
    container = client.containers.create(image)
    try:
        # What Docker itself adds to a container is empty.
        with tarfile.open(fileobj=_Stream(container.export()), mode="r|") as files:
            return [each.name for each in files if not each.isdir()]
    finally:
        container.remove()


class _Stream(io.RawIOBase):
    """Bytes that come in pieces, as a file that can only be read on."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)):
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _files_with(archive: Path, words: list[bytes]) -> list[str]:
    """Names of the files of an image that hold one of the words, in any layer."""
    found = []
    with tarfile.open(archive) as image:
        for layer in (each for each in image if each.isfile()):
            file = image.extractfile(layer)
            assert file is not None
            rest = b""
            while chunk := file.read(1 << 20):
                if any(word in rest + chunk for word in words):
                    found.append(layer.name)
                    break
                rest = chunk[-64:]
    return found


def _in(client: docker.DockerClient, image: str, command: list[str], **arguments) -> str:
    rights = {"network_mode": "none", "read_only": True, "cap_drop": ["ALL"], "remove": True, "stderr": True}
    return client.containers.run(image, command, **rights, **arguments).decode()


def _start(home: Path, environment: dict[str, str], *settings: str, mounts: list[Path] | None = None):
    command = [sys.executable, "-m", "pipelines", "run-containers", "--home", str(home)]
    command += [part for setting in (*QUICK, *settings) for part in ("--set", setting)]
    command += [part for path in mounts or [] for part in ("--mount", str(path))]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"COLUMNS": "160"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _run(
    client: docker.DockerClient, home: Path, environment: dict[str, str], *settings: str,
    mounts: list[Path] | None = None,
) -> Run:  # fmt: skip
    started, seen, over = time.monotonic(), Seen(), threading.Event()
    process = _start(home, environment, *settings, mounts=mounts)
    watcher = threading.Thread(target=_watch, args=(client, seen, over))
    watcher.start()
    try:
        output, _ = process.communicate(timeout=1800)
    finally:
        process.kill()
        over.set()
        watcher.join()
    return Run(home, process.returncode, output, time.monotonic() - started, seen)


def _watch(client: docker.DockerClient, seen: Seen, over: threading.Event) -> None:
    while not over.wait(0.1):
        for container in _ours(client):
            try:
                container.reload()
                image = container.attrs["Config"]["Image"]
                seen.containers[container.id] = container.attrs
                # The number, as a user's name would be this machine's.
                table = container.top(ps_args="-eo pid,uid,args")
            except docker.errors.APIError:
                continue  # it has ended in the meantime
            seen.processes += [(image, int(row[1]), row[2]) for row in table["Processes"] or []]


def _ours(client: docker.DockerClient) -> list:
    return client.containers.list(all=True, filters={"label": HOME_LABEL}, ignore_removed=True)


def _wait_for_container(client: docker.DockerClient, process: subprocess.Popen, step: str = "") -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if any(step in " ".join(each.attrs["Config"]["Cmd"]) for each in _ours(client) if each.status == "running"):
            return
        time.sleep(0.2)
    pytest.fail("No container showed up.")
