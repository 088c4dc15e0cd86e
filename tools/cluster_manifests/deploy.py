"""Applies an installation: looks first, shows what will change, asks, and waits until it runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from components.common.errors import ClusterError, InputError
from tools.cluster_manifests.installation import Installation
from tools.cluster_manifests.secrets import dev_secrets

_MANAGER = "pmc-llama-pipeline"
_DATABASE_SECRET = "pmc-llama-mlflow-database"
_PATIENCE = "300s"


def deploy(installation: Installation, kubectl: str, manifests: Path, agreed: bool) -> None:
    """Apply rendered manifests to the cluster of kubectl's current context.

    Args:
        installation: What they were rendered for.
        kubectl: The program.
        manifests: The file.
        agreed: Whether to go on without asking.

    Raises:
        InputError: There is no context, no such namespace, or a secret is missing; or nobody agrees.
        ClusterError: The cluster refuses.
    """
    cluster = _Kubectl(kubectl, installation.namespace)
    print(f"Cluster: {cluster.context()}, namespace {installation.namespace}")
    cluster.require_namespace()
    missing = [
        each for each in dev_secrets(installation.namespace) if not cluster.has("secret", each["metadata"]["name"])
    ]
    if not installation.is_dev and not installation.is_serving and _DATABASE_SECRET in _named(missing):
        raise InputError(
            f"Namespace {installation.namespace} has no secret {_DATABASE_SECRET}, which MLflow cannot do without; "
            'make it with the key `uri` (docs/cluster.md, "Secrets").'
        )
    wanted = missing if installation.is_dev else []
    for name in _named(wanted):
        print(f"New: secret {name}, with values drawn now.")
    if not cluster.differs(manifests) and not wanted:
        print("Nothing changes.")
        return
    if not agreed and not _asked("Apply this?"):
        raise InputError("Nothing was applied. YES=1 applies without asking.")
    for secret in wanted:
        cluster.run("create", "--filename", "-", sent=json.dumps(secret))
    cluster.run("apply", "--server-side", f"--field-manager={_MANAGER}", "--filename", str(manifests))
    if not installation.is_serving:
        cluster.run("rollout", "status", "deployment/pmc-llama-mlflow", f"--timeout={_PATIENCE}")


def _named(objects: list[dict[str, Any]]) -> list[str]:
    return [each["metadata"]["name"] for each in objects]


def _asked(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


class _Kubectl:
    """kubectl in one namespace."""

    def __init__(self, program: str, namespace: str) -> None:
        self._program, self._namespace = program, namespace

    def context(self) -> str:
        found = self._call("config", "current-context")
        if found.returncode:
            raise InputError(
                "kubectl has no current context; set KUBECONFIG, or choose one: kubectl config use-context."
            )
        return found.stdout.strip()

    def require_namespace(self) -> None:
        found = self._call("get", "namespace", self._namespace, "--output=name")
        if found.returncode and "NotFound" in found.stderr:
            raise InputError(
                f"There is no namespace {self._namespace}; make a Kubeflow profile of that name, or set NAMESPACE to "
                "the one that Kubeflow runs your pipelines in."
            )
        # Who may work in a namespace only may not always look at it.
        if found.returncode and "Forbidden" not in found.stderr:
            raise ClusterError(f"The cluster cannot be asked: {found.stderr.strip()[:500]}")

    def has(self, kind: str, name: str) -> bool:
        found = self._call("get", kind, name, "--output=name")
        if found.returncode and "NotFound" not in found.stderr:
            raise ClusterError(f"kubectl cannot look for {kind} {name}: {found.stderr.strip()[:500]}")
        return found.returncode == 0

    def differs(self, manifests: Path) -> bool:
        """Show what would change; returns whether anything would."""
        arguments = ["--server-side", f"--field-manager={_MANAGER}", "--filename", str(manifests)]
        shown = self._call("diff", *arguments, shown=True)
        if shown.returncode > 1:
            raise ClusterError("kubectl cannot tell what would change (see above); nothing was applied.")
        return shown.returncode == 1

    def run(self, *arguments: str, sent: str | None = None) -> None:
        if self._call(*arguments, shown=True, sent=sent).returncode:
            raise ClusterError(f"kubectl {arguments[0]} failed (see above).")

    def _call(self, *arguments: str, shown: bool = False, sent: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [self._program, "--namespace", self._namespace, *arguments]
        sys.stdout.flush()
        return subprocess.run(command, input=sent, capture_output=not shown, text=True)
