"""The virtual environment of the other tools, so that the project's own stays lean."""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
ENVIRONMENT = ROOT / "build" / "peers"


def interpreter() -> Path:
    """Return the Python of the peers' environment, which is made on first use (a minute or two, 1.3 GB).

    It holds this project's dependencies too, in the versions of constraints.txt but for what a peer needs older, so
    that every contender runs in the same interpreter on the same libraries.
    """
    python = ENVIRONMENT / "bin" / "python"
    wanted = [*_requirements(), sys.version]
    mark = ENVIRONMENT / ".made-of"
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    if mark.is_file() and mark.read_text() == digest:
        return python
    print(f"Installing what is compared with into {ENVIRONMENT}; this takes a minute or two once.", file=sys.stderr)
    venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    constraints = ENVIRONMENT / "constraints.txt"
    constraints.write_text(_constraints())
    pip = [str(python), "-m", "pip", "install", "-qqq", "--constraint", str(constraints)]
    # Warnings off: pip's deprecations are not this project's.
    subprocess.run([*pip, *_requirements()], check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    mark.write_text(digest)
    return python


def _requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = project["optional-dependencies"]
    return sorted({*_peers(), *project["dependencies"], *groups["download"], *groups["preprocess"]})


def _peers() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line]


def _constraints() -> str:
    bounded = {_name(line) for line in _peers()}
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    return "\n".join(line for line in pinned if _name(line) not in bounded)


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
