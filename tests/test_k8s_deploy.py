"""`make deploy` looks before it changes anything, says what it changes, and makes a password once.

kubectl is a script here that keeps a folder as its cluster and writes down how it was called.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.errors import InputError, PipelineError
from tests.k8s_helpers import ENVIRONMENT, NAMESPACE
from tools.cluster_manifests.deploy import deploy
from tools.cluster_manifests.installation import ROOT, read_installation
from tools.manifests import find_kubectl

# $STATE/<kind>-<name> is there when the cluster has it; `applied` is what was applied last.
SCRIPT = """#!/bin/bash
[ "$1" = kustomize ] && exec "$REAL_KUBECTL" "$@"
shift 2  # --namespace NAME
echo "$*" >> "$STATE/calls"
last="${@: -1}"
case "$1" in
  config) [ -e "$STATE/no-context" ] && exit 1; echo test-context ;;
  get) [ -e "$STATE/broken" ] && { echo "Unable to connect" >&2; exit 1; }
       [ -e "$STATE/$2-$3" ] || { echo "Error from server (NotFound): $3" >&2; exit 1; } ;;
  create) cat > "$STATE/sent"; name=$(sed 's/.*"name": "\\([^"]*\\)".*/\\1/' "$STATE/sent")
          mv "$STATE/sent" "$STATE/secret-$name"; echo "secret/$name created" ;;
  diff) [ -e "$STATE/broken-diff" ] && exit 2; cmp -s "$last" "$STATE/applied" && exit 0; echo "+ changed"; exit 1 ;;
  apply) [ -e "$STATE/conflict" ] && { echo "Apply failed with 1 conflict" >&2; exit 1; }
         cp "$last" "$STATE/applied"; echo applied ;;
  rollout) echo rolled out ;;
esac
"""


class Cluster:
    """A folder that passes for a cluster."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.program = folder / "kubectl"
        self.program.write_text(SCRIPT)
        self.program.chmod(0o755)
        self.manifests = folder / "made.yaml"
        self.manifests.write_text("kind: List\n")
        monkeypatch.setenv("STATE", str(self.state))
        monkeypatch.setenv("REAL_KUBECTL", find_kubectl())
        self.has(f"namespace-{NAMESPACE}")

    def has(self, *names: str) -> None:
        for name in names:
            (self.state / name).touch()

    def deploy(self, overlay: str = "dev", agreed: bool = True) -> None:
        deploy(read_installation(overlay, ENVIRONMENT), str(self.program), self.manifests, agreed)

    @property
    def calls(self) -> list[str]:
        path = self.state / "calls"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def secret(self, name: str) -> dict[str, str]:
        values: dict[str, str] = json.loads((self.state / f"secret-{name}").read_text())["stringData"]
        return values


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def test_the_command_renders_checks_and_applies(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "tools.manifests", "deploy", "dev", "--output", str(cluster.manifests)]
    given = {**os.environ, **ENVIRONMENT, "PATH": os.environ["PATH"], "KUBECTL": str(cluster.program), "YES": "1"}
    done = subprocess.run(command, cwd=ROOT, env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Cluster: test-context, namespace team-a" in done.stdout and "+ changed" in done.stdout
    assert (cluster.state / "applied").read_text() == cluster.manifests.read_text()
    for value in cluster.secret("pmc-llama-mlflow-database")["password"], cluster.secret("pmc-llama-s3").popitem()[1]:
        assert value not in done.stdout + done.stderr + cluster.manifests.read_text()


def test_dev_gets_its_passwords_once_and_then_changes_nothing(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.deploy()
    assert cluster.calls == ["config", "get", "get", "get", "diff", "create", "create", "apply", "rollout"]
    database, s3 = cluster.secret("pmc-llama-mlflow-database"), cluster.secret("pmc-llama-s3")
    assert database["uri"] == f"postgresql://mlflow:{database['password']}@pmc-llama-postgresql:5432/mlflow"
    assert len(database["password"]) == 48 and s3.keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    cluster.deploy()
    assert capfd.readouterr().out.rstrip().endswith("Nothing changes.")
    assert cluster.calls.count("create") == 2 and cluster.calls.count("apply") == 1
    assert cluster.secret("pmc-llama-mlflow-database") == database


@pytest.mark.parametrize(
    ("state", "remove", "sentence"),
    [
        ("no-context", "", "kubectl has no current context"),
        ("", f"namespace-{NAMESPACE}", "There is no namespace team-a; make a Kubeflow profile of that name"),
        ("broken", "", "The cluster cannot be asked: Unable to connect"),
        ("broken-diff", "", "kubectl cannot tell what would change"),
        ("conflict", "", "kubectl apply failed"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_refused_in_one_sentence(
    cluster: Cluster, state: str, remove: str, sentence: str
) -> None:
    if state:
        cluster.has(state)
    if remove:
        (cluster.state / remove).unlink()
    with pytest.raises(PipelineError, match=sentence):
        cluster.deploy()
    assert not (cluster.state / "applied").exists() and "rollout" not in cluster.calls


def test_production_makes_no_secret_and_refuses_without_the_databases(cluster: Cluster) -> None:
    with pytest.raises(InputError, match="has no secret pmc-llama-mlflow-database"):
        cluster.deploy("production")
    cluster.has("secret-pmc-llama-mlflow-database")
    cluster.deploy("production")
    assert "create" not in cluster.calls and "apply" in cluster.calls


def test_nobody_to_ask_means_that_nothing_is_made(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # not a terminal
    with pytest.raises(InputError, match=r"Nothing was applied. YES=1 applies without asking."):
        cluster.deploy(agreed=False)
    assert "diff" in cluster.calls and not {"apply", "create"} & set(cluster.calls)
