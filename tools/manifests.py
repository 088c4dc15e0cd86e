"""Renders, checks and applies what the pipeline needs on a cluster; docs/cluster.md names the variables it reads.

python -m tools.manifests render dev            write build/manifests-dev.yaml, checked
python -m tools.manifests deploy production     the same, then show the differences, ask, and apply
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from components.common.errors import InputError, PipelineError
from tools.cluster_manifests.deploy import deploy
from tools.cluster_manifests.installation import ROOT, Installation, read_installation
from tools.cluster_manifests.policy import policy_problems
from tools.cluster_manifests.render import as_yaml, render
from tools.cluster_manifests.schemas import schema_problems


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked; return the exit status."""
    parser = argparse.ArgumentParser(description="Render, check and apply the manifests of a cluster.")
    parser.add_argument("action", choices=["render", "deploy"])
    parser.add_argument("overlay", help="dev, production, serving, or a folder with a kustomization.yaml")
    parser.add_argument("--output", type=Path, help="the file to write; build/manifests-OVERLAY.yaml")
    options = parser.parse_args(arguments)
    try:
        installation = read_installation(options.overlay, os.environ)
        kubectl = find_kubectl()
        output = options.output or ROOT / "build" / f"manifests-{installation.overlay.name}.yaml"
        objects = make(installation, kubectl, output)
        print(f"Wrote {output}: {len(objects)} objects for namespace {installation.namespace}, checked.")
        if options.action == "deploy":
            deploy(installation, kubectl, output, agreed=os.environ.get("YES") == "1")
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make(installation: Installation, kubectl: str, output: Path) -> list[dict[str, Any]]:
    """Render an installation into a file, if it is sound.

    Raises:
        InputError: It is not; names every problem.
    """
    objects = render(installation, kubectl)
    if problems := [*(each for found in objects for each in schema_problems(found)), *policy_problems(objects)]:
        raise InputError("The manifests are not sound:\n" + "\n".join(f"  {each}" for each in problems))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(as_yaml(objects), encoding="utf-8")
    return objects


def find_kubectl() -> str:
    """The kubectl of this machine, else the one of the development environment.

    Raises:
        InputError: There is neither.
    """
    beside = Path(sys.executable).parent / "kubectl"
    found = os.environ.get("KUBECTL") or shutil.which("kubectl") or (str(beside) if beside.is_file() else None)
    if not found:
        raise InputError("There is no kubectl here; `make setup` brings one, or set KUBECTL to yours.")
    return found


if __name__ == "__main__":
    sys.exit(main())
