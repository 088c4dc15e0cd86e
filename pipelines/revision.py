"""The git revision of this working copy."""

import subprocess
from pathlib import Path

from components.common.settings import get_settings


def git_revision() -> str:
    """The revision that the environment names, else that of the working copy; empty without either."""
    if get_settings().git_revision:
        return get_settings().git_revision
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
