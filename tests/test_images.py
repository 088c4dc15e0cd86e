"""What can be said of the images without building them; `make test-containers` builds and runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
SCRIPTS = sorted(IMAGES.glob("*.sh"))
each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order, each with its arguments on one line."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    found = instructions(dockerfile)
    start = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def requirements(*extras: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(IMAGES / "requirements.py"), str(ROOT), *extras]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def build(
    tmp_path: Path, *images: str, script: str = "build.sh", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of images/ with a docker that writes down what it is told, in a repository of its own."""
    (tmp_path / "images").mkdir()
    for path in (*SCRIPTS, *DOCKERFILES):
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
        (tmp_path / "images" / path.name).chmod(0o755)
    (tmp_path / "pyproject.toml").write_text('version = "1.2.3"\n')
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n'
        'case "$*" in *RepoDigests*) echo other.example.org/pmc-llama-pipeline@sha256:0000;'
        ' echo "registry.example.org/team/pmc-llama-pipeline@sha256:1111";; *inspect*) echo 1000000;; esac\n'
    )
    docker.chmod(0o755)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "images", "pyproject.toml"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TORCH_"))}
    return subprocess.run(
        [str(tmp_path / "images" / script), *images],
        env=clean | {"DOCKER": str(docker)} | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@each_dockerfile
def test_it_ends_as_a_user_by_number_without_an_entry_point(dockerfile: Path) -> None:
    # Kubernetes cannot see that a user with a name is not root; KFP's commands replace CMD, not ENTRYPOINT.
    stage = last_stage(dockerfile)
    assert [arguments for name, arguments in stage if name == "USER"] == ["1000:1000"]
    assert "ENTRYPOINT" not in {name for name, _ in instructions(dockerfile)}


@each_dockerfile
def test_its_base_is_an_argument_with_a_fixed_tag(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    assert found[0][0] == "ARG"
    name, _, default = found[0][1].partition("=")
    assert name == "BASE_IMAGE"
    assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", default)
    stages = [arguments for instruction, arguments in found if instruction == "FROM"]
    assert stages[0] == "${BASE_IMAGE} AS base"
    assert {stage.split()[0] for stage in stages[1:]} == {"base"}


@each_dockerfile
def test_nothing_comes_from_the_network_but_through_pip_and_the_distribution(dockerfile: Path) -> None:
    text = "\n".join(" ".join(each) for each in instructions(dockerfile))
    assert not re.search(r"^ADD\b|\bcurl\b|\bwget\b|\bgit clone\b", text, re.MULTILINE)
    # A frontend would be pulled, and a mount needs BuildKit, which not everybody has.
    assert "syntax=" not in dockerfile.read_text() and "--mount" not in text


@each_dockerfile
def test_what_pip_is_told_stays_out_of_the_last_stage(dockerfile: Path) -> None:
    arguments = {value.partition("=")[0] for name, value in last_stage(dockerfile) if name == "ARG"}
    assert arguments <= {"IMAGE", "REVISION", "VERSION", "SOURCE", "BASE_IMAGE"}
    variables = " ".join(value for name, value in last_stage(dockerfile) if name in ("ENV", "LABEL"))
    assert not re.search(r"PIP_|INDEX_URL|PASSWORD|SECRET|TOKEN|ACCESS_KEY", variables)


@each_dockerfile
def test_it_copies_by_name_and_names_what_it_is(dockerfile: Path) -> None:
    for name, arguments in instructions(dockerfile):
        if name == "COPY":
            assert not any(source in (".", "./", "*") for source in arguments.split()[:-1])
    labels = next(value for name, value in last_stage(dockerfile) if name == "LABEL")
    for label in ("title", "licenses", "version", "revision", "source", "base.name"):
        assert f"org.opencontainers.image.{label}=" in labels


@each_dockerfile
def test_every_file_it_copies_is_there_and_let_through(dockerfile: Path) -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, arguments in instructions(dockerfile):
        sources = arguments.split()[:-1]
        if name != "COPY" or sources[0].startswith("--from"):
            continue
        for source in sources:
            if source.startswith("build/wheels/"):
                continue  # where there are any
            assert (ROOT / source).exists(), source
            assert any(Path(source).match(pattern) for pattern in let_through), source


def test_the_context_of_a_build_holds_nothing_but_what_is_named() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert not any(pattern in ("!.env", "!.", "!*", "!.git") for pattern in patterns)


def test_the_extras_of_an_image_are_resolved_to_requirements_with_both_bounds() -> None:
    lines = requirements("train", "evaluate").stdout.splitlines()
    assert lines == sorted(set(lines))
    assert "torch==2.13.0" in lines and any(line.startswith("lm-eval") for line in lines)
    assert not any(line.startswith(("lxml", "pytest", "pmc-llama")) for line in lines)
    # An extra that names other extras brings theirs.
    assert set(lines) < set(requirements("local").stdout.splitlines())


def test_an_extra_that_is_not_there_is_named() -> None:
    ended = requirements("trian")
    assert ended.returncode == 1
    assert "'trian'" in ended.stderr and "train" in ended.stderr


@pytest.mark.parametrize("image", ["pipeline", "trainer"])
def test_the_extras_in_a_dockerfile_exist(image: str) -> None:
    arguments = dict(
        value.partition("=")[::2] for name, value in instructions(IMAGES / f"{image}.Dockerfile") if name == "ARG"
    )
    assert requirements(*arguments["EXTRAS"].strip('"').split()).returncode == 0


def test_an_image_is_named_by_registry_version_and_commit(tmp_path: Path) -> None:
    built = build(tmp_path, "pipeline", REGISTRY="registry.example.org/team/", BASE_IMAGE="my/base:1")
    assert built.returncode == 0, built.stderr
    noted = (tmp_path / "build" / "images.env").read_text()
    match = re.fullmatch(r"PMC_IMAGE=(registry\.example\.org/team/pmc-llama-pipeline:1\.2\.3-[0-9a-f]{12})\n", noted)
    assert match
    call = (tmp_path / "calls").read_text().splitlines()[0]
    assert f"--tag {match[1]}" in call and "--build-arg BASE_IMAGE=my/base:1" in call
    assert re.search(r"--build-arg REVISION=[0-9a-f]{40} ", call)


def test_a_tree_with_changes_does_not_pass_for_its_commit(tmp_path: Path) -> None:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "new.py").write_text("")
    assert build(tmp_path, "pipeline").returncode == 0
    assert "-dirty\n" in (tmp_path / "build" / "images.env").read_text()
    assert re.search(r"REVISION=[0-9a-f]{40}-dirty", (tmp_path / "calls").read_text())


def test_an_index_with_a_password_is_on_no_command_line(tmp_path: Path) -> None:
    built = build(tmp_path, "pipeline", PIP_INDEX_URL="https://user:hunter2@pypi.example.org/simple")
    calls = (tmp_path / "calls").read_text()
    assert "--build-arg PIP_INDEX_URL " in calls
    assert "hunter2" not in calls + built.stdout + built.stderr


def test_a_pushed_image_is_noted_by_the_digest_in_its_own_registry(tmp_path: Path) -> None:
    pushed = build(tmp_path, "pipeline", script="push.sh", REGISTRY="registry.example.org/team", TAG="1.0")
    assert pushed.returncode == 0, pushed.stderr
    noted = (tmp_path / "build" / "images.env").read_text()
    assert noted == "PMC_IMAGE=registry.example.org/team/pmc-llama-pipeline@sha256:1111\n"
    assert "push --quiet registry.example.org/team/pmc-llama-pipeline:1.0" in (tmp_path / "calls").read_text()


def test_a_push_without_a_registry_is_refused(tmp_path: Path) -> None:
    pushed = build(tmp_path, "pipeline", script="push.sh", REGISTRY="")
    assert pushed.returncode != 0 and "REGISTRY=" in pushed.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound_and_stops_at_its_first_error(script: Path) -> None:
    text = script.read_text()
    shell = "sh" if text.startswith("#!/bin/sh") else "bash"
    assert subprocess.run([shell, "-n", str(script)], capture_output=True, timeout=60).returncode == 0
    if text.startswith("#!"):
        assert re.search(r"^set -eu", text, re.MULTILINE)
